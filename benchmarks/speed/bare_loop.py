"""The ceiling: loops that decode images from memory and score them in minibatches, without HTTP and without a queue.

`python -m benchmarks.speed.bare_loop BUNDLE` reads a `Kind` and the number of threads as JSON from the first line of
standard input, and a `_Task` from each line after it.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import torch
from pydantic import TypeAdapter

from benchmarks.speed.contender import environment
from benchmarks.speed.cores import CORES
from benchmarks.speed.cpu import usage
from benchmarks.speed.images import Kind, make_scenes
from benchmarks.speed.results import BARE_LOOP
from benchmarks.speed.run import Run
from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.detectors.detector import Detector

NAME: Final = BARE_LOOP
MINIBATCHES: Final = (1, 4, 8, 16)
_MAX_PIXELS: Final = 64_000_000
_WARM_UP_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Arrangement:
    """How the loops use the cores. Each thread has a loop of its own, and torch uses no other threads."""

    processes: int
    threads: int


ARRANGEMENTS: Final = (Arrangement(processes=CORES, threads=1), Arrangement(processes=1, threads=CORES))


@dataclass(frozen=True)
class Variant:
    """An arrangement and a minibatch size."""

    arrangement: Arrangement
    minibatch: int

    def __str__(self) -> str:
        arrangement = self.arrangement
        return f"{arrangement.processes} processes × {arrangement.threads} threads, minibatches of {self.minibatch}"


@dataclass(frozen=True)
class _Setup:
    kind: Kind
    threads: int


@dataclass(frozen=True)
class _Task:
    number: int
    minibatch: int


@dataclass(frozen=True)
class _Done:
    """When the first loop of a process began and the last one ended. `time.time`"""

    begun: float
    ended: float


class BareLoop:
    """Running processes of loops."""

    def __init__(self, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        self._processes = processes

    def run(self, number: int, minibatch: int) -> Run:
        """Score about this many images, the same number in each process."""
        each = -(-number // len(self._processes))
        roots = {process.pid: NAME for process in self._processes}
        before = usage(roots)
        for process in self._processes:
            _write(process, TypeAdapter(_Task).dump_json(_Task(each, minibatch)))
        done = [TypeAdapter(_Done).validate_json(_read(process)) for process in self._processes]
        begun, ended = min(loop.begun for loop in done), max(loop.ended for loop in done)
        return Run.of_usage(each * len(done), ended - begun, before, usage(roots))


@contextmanager
def running(bundle: Path, kind: Kind, arrangement: Arrangement) -> Iterator[BareLoop]:
    """Start the processes, and wait until they have loaded the detector and the images."""
    setup = TypeAdapter(_Setup).dump_json(_Setup(kind, arrangement.threads))
    command = [sys.executable, "-m", "benchmarks.speed.bare_loop", str(bundle)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
        for _ in range(arrangement.processes)
    ]
    try:
        for process in processes:
            _write(process, setup)
        for process in processes:
            _read(process)
        yield BareLoop(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def fastest(bundle: Path, kind: Kind) -> Variant:
    """Run each variant for about a second, and return the fastest, so that the ceiling is as high as it can be."""
    rates: dict[Variant, float] = {}
    for arrangement in ARRANGEMENTS:
        with running(bundle, kind, arrangement) as loop:
            rate = loop.run(8 * CORES, 8).rate
            for minibatch in MINIBATCHES:
                number = max(int(rate * _WARM_UP_SECONDS), 2 * minibatch * CORES)
                rates[Variant(arrangement, minibatch)] = loop.run(number, minibatch).rate
    return max(rates, key=rates.__getitem__)


def _write(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(line + b"\n")
    process.stdin.flush()


def _read(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a bare loop ended")
    return line


def _loop(detector: Detector, images: Sequence[bytes], number: int, minibatch: int) -> None:
    images_left = islice(cycle(images), number)
    while batch := [detector.prepare(image) for image in islice(images_left, minibatch)]:
        detector.score(batch)


def _serve(bundle: Path) -> None:
    setup = TypeAdapter(_Setup).validate_json(sys.stdin.buffer.readline())
    detector = load_detector(read_folder(bundle), device="auto", max_pixels=_MAX_PIXELS)
    images = make_scenes(setup.kind)
    torch.set_num_threads(setup.threads)
    detector.compile()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(setup.threads, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        print("ready", flush=True)
        for line in sys.stdin.buffer:
            task = TypeAdapter(_Task).validate_json(line)
            share = -(-task.number // setup.threads)
            begun = time.time()
            loops = [threads.submit(_loop, detector, images, share, task.minibatch) for _ in range(setup.threads)]
            for loop in loops:
                loop.result()
            print(TypeAdapter(_Done).dump_json(_Done(begun, time.time())).decode(), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
