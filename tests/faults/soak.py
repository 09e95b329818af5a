"""`make soak`: steady uploads and random faults for ten minutes; then the oracle, and the memory of each process."""

import argparse
import random
import re
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psutil
from tabulate import tabulate

from tests.fixtures.faults.injection import FAULTS, Target
from tests.fixtures.faults.recovery import Recovery, inject
from tests.fixtures.faults.steady_uploads import Uploads
from tests.fixtures.part_images import write_bundle
from tests.fixtures.running_system import System

SERVICES = {
    "api": "-m api",
    "dispatcher": "worker.dispatcher",
    "scoring-1": "scoring-1@",
    "scoring-2": "scoring-2@",
    "io": "io@",
    "training": "training@",
    "postgres": "postgres",
    "valkey": "valkey-server",
}
SAMPLE_SECONDS = 5.0
PAUSE_SECONDS = (2.0, 8.0)
MAX_GROWTH, MAX_GROWTH_MB = 1.2, 10.0
"""Between the first and the last third; PostgreSQL's caches fill, and allocators keep what they once had."""


class Memory:
    """Samples the memory of each service, its children included, in MB (proportional set size)."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._samples: dict[str, list[float]] = defaultdict(list)
        self._stopping = threading.Event()

    @contextmanager
    def sampled(self) -> Iterator[None]:
        thread = threading.Thread(target=self._sample_all)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def _sample_all(self) -> None:
        while not self._stopping.wait(SAMPLE_SECONDS):
            for name, words in SERVICES.items():
                try:
                    found = self._system.children(words)
                    used = sum(one.memory_full_info().pss for own in found for one in [own, *own.children()])
                except psutil.Error:
                    continue  # it was just killed
                if used:
                    self._samples[name].append(used / 1e6)

    def _growth(self) -> Iterator[tuple[str, float, float]]:
        """The medians of the first and the last third of the samples of each service."""
        for name, samples in self._samples.items():
            third = max(1, len(samples) // 3)
            yield name, median(samples[:third]), median(samples[-third:])

    def faults(self) -> list[str]:
        """A line for each service that needs more memory at the end than at the beginning."""
        return [
            f"the memory of {name} grew from {first:.0f} to {last:.0f} MB"
            for name, first, last in self._growth()
            if last > first * MAX_GROWTH + MAX_GROWTH_MB
        ]

    def table(self) -> str:
        """The growth of each service, and its largest sample."""
        rows = [
            (name, first, last, last / first, max(self._samples[name]), len(self._samples[name]))
            for name, first, last in self._growth()
        ]
        headers = ("process", "first third MB", "last third MB", "ratio", "largest MB", "samples")
        return tabulate(rows, headers, floatfmt=(".0f", ".0f", ".0f", ".2f", ".0f", ".0f"))


def soak(folder: Path, *, seconds: float, seed: int, per_second: float) -> list[str]:
    """Run it; what was found wrong, a line each."""
    rng = random.Random(seed)
    random.seed(seed)
    system = System.start(folder, "--scoring-workers", "2")
    target, memory = Target.of(system), Memory(system)
    uploads = Uploads.of_a_new_recipe(system.url, write_bundle(folder / "bundle"), seed)
    recoveries: list[Recovery] = []
    end = time.monotonic() + seconds
    with memory.sampled(), uploads.running(per_second):
        uploads.wait_for(1)
        while time.monotonic() < end:
            time.sleep(rng.uniform(*PAUSE_SECONDS))
            recovery = inject(rng.choice(FAULTS), target, uploads)
            recoveries.append(recovery)
            print(f"{recovery.seconds:6.1f} s  {len(uploads.accepted):6} accepted  {recovery.fault}", flush=True)
    target.oracle.wait_until_final(uploads.ids, 60)
    wrong = [*uploads.errors, *target.oracle.faults_of(uploads.accepted, uploads.recipe)]
    wrong += memory.faults()
    system.stop()
    tracebacks = len(re.findall(r"Traceback \(most recent call last\)", system.log.read_text()))
    if tracebacks:
        wrong.append(f"{tracebacks} tracebacks in the log")
    print()
    print(memory.table())
    longest = max(recoveries, key=lambda one: one.seconds)
    print(f"\n{len(recoveries)} faults, {len(uploads.accepted)} inspections accepted, seed {seed}")
    print(f"recovery: median {median(one.seconds for one in recoveries):.1f} s, longest {longest.seconds:.1f} s")
    print(f"          ({longest.fault})")
    return wrong


def main() -> int:
    """0 if nothing was lost, doubled or wrong; else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--per-second", type=float, default=30.0, help="images uploaded a second")
    parser.add_argument("--keep", type=Path, help="an existing folder for the data and the log, which is kept")
    options = parser.parse_args()
    seed = random.randrange(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lw-", ignore_cleanup_errors=True) as name:
        folder = options.keep or Path(name)
        folder.chmod(0o755)
        wrong = soak(folder, seconds=options.seconds, seed=seed, per_second=options.per_second)
    for line in wrong:
        print(f"WRONG: {line}")
    print("lost 0, doubled 0" if not wrong else "failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
