"""`make bench-rescoring`: re-scoring of real images, compared with a bare loop, under random kills and live load.

The images are the ELPV solar cells, made distinct by a few appended bytes. Name the parts to run; the default is all:

    archive   inspect the whole dataset with one version, re-score it with another, and print the report
    speed     re-score 20,000 images of a folder: rate relative to a bare loop of decoding and scoring, and peak memory
    kill      the same while planner, workers and dispatcher are killed at random: each image must have one result
    line      bursts of live images, alone and during a run, with their p99; then a run under a steady live load
"""

import argparse
import importlib.util
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.detectors.device import resolve_device
from core.vision.train import TrainingOptions, train
from linewatch import Client
from linewatch.server.demo.cells import link_images

RECIPE = "cells"
IMAGES = 20_000
SAMPLE = 1_000
PIECE_SECONDS = 80.0
MINIBATCH = 32
MAX_PIXELS = 64_000_000
BURST = 200
BURSTS = 4
STEADY_SECONDS = 240.0
LIMIT_SECONDS = 1800
KILLED = ("worker.scoring", "worker.io", "worker.dispatcher")


def list_cells() -> list[Path]:
    """Return the paths of all images of the installed dataset."""
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None, "pip install 'linewatch[demo]'"
    assert spec.submodule_search_locations
    return sorted(Path(spec.submodule_search_locations[0], "data", "images").glob("*.png"))


def write_archive(folder: Path, images: int) -> Path:
    """Write distinct images: cells with a number appended, which decoders ignore."""
    folder.mkdir(parents=True)
    for number, cell in enumerate(itertools.islice(itertools.cycle(list_cells()), images)):
        (folder / f"{number:06}.png").write_bytes(cell.read_bytes() + f"{number:06}".encode())
    return folder


@dataclass
class System:
    """A running `linewatch up`."""

    process: subprocess.Popen[str]
    url: str

    def children(self, words: str) -> list[psutil.Process]:
        """Return the child processes whose command line contains `words`."""
        matches = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if words in " ".join(child.cmdline()):
                    matches.append(child)
            except psutil.NoSuchProcess:
                continue
        return matches


@contextmanager
def run_system(folder: Path, **environment: str) -> Iterator[System]:
    """Run `linewatch up` with its data in `folder`, which is also an archive root."""
    command = [sys.executable, "-m", "linewatch.cli", "up", "--port", "0", "--data", str(folder / "data")]
    system_environment = os.environ | {"LINEWATCH_ARCHIVE_ROOTS": str(folder), **environment}
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=system_environment) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready: "), (folder / "log").read_text()[-2000:]
        try:
            yield System(process, line.removeprefix("ready: ").strip())
        finally:
            process.send_signal(signal.SIGTERM)


@dataclass
class Memory:
    """Samples of the resident memory of the re-scoring processes, in MB, one per second."""

    system: System
    samples: dict[str, list[float]] = field(default_factory=lambda: {words: [] for words in KILLED})

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Take samples until the context ends."""
        done = threading.Event()

        def sample() -> None:
            while not done.wait(1.0):
                for words in KILLED:
                    self.samples[words] += [child.memory_info().rss / 1e6 for child in self.system.children(words)]

        sampling = threading.Thread(target=sample)
        sampling.start()
        try:
            yield
        finally:
            done.set()
            sampling.join()

    def print_peaks(self) -> None:
        for words, samples in self.samples.items():
            tenth = max(1, len(samples) // 10)
            early, peak = max(samples[: 2 * tenth]), max(samples)
            print(
                f"peak memory of {words:18} {early:7.0f} MB in the first fifth, {peak:7.0f} MB overall, "
                f"ratio {peak / early:.3f}"
            )


def measure_bare_loop(bundle: Path, files: Sequence[Path]) -> float:
    """Return the images per second of a loop that only reads, decodes in threads and scores in minibatches."""
    detector = load_detector(read_folder(bundle), device=resolve_device("auto"), max_pixels=MAX_PIXELS)
    with ThreadPoolExecutor(4) as threads:

        def prepare(paths: Sequence[Path]) -> list[Any]:
            return list(threads.map(lambda path: detector.prepare(path.read_bytes()), paths))

        detector.score(prepare(files[:MINIBATCH]))
        started = time.perf_counter()
        for start in range(0, len(files), MINIBATCH):
            detector.score(prepare(files[start : start + MINIBATCH]))
        return len(files) / (time.perf_counter() - started)


def wait_for_run(lw: Client, run_id: Any) -> Any:
    """Wait until the run is final, and return it."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        run = lw.rescore_run(run_id, wait=20)
        if run.final:
            return run
        assert time.monotonic() < deadline, run


def run_rate(run: Any) -> float:
    """Return the images per second of a finished run."""
    return float(run.progress.done / (run.finished_at - run.started_at).total_seconds())


def read_labels() -> dict[str, Literal["ok", "ng"]]:
    """Return the labels that the dataset's experts were sure of, by file name."""
    lines = (list_cells()[0].parents[1] / "labels.csv").read_text().splitlines()
    rows = (line.split() for line in lines)
    sure: dict[float, Literal["ok", "ng"]] = {0.0: "ok", 1.0: "ng"}
    return {Path(row[0]).name: sure[float(row[1])] for row in rows if float(row[1]) in sure}


def show_archive(lw: Client, out: Path) -> None:
    """Re-score the whole dataset with the second version. Every eighth labelled image gets its label as a review."""
    images = list_cells()
    started = time.monotonic()
    for start in range(0, len(images), 500):
        paths = {path.name: path for path in images[start : start + 500]}
        batch = lw.submit_batch(paths, recipe=RECIPE, lot_id="elpv", line_id="line-1", station_id=f"st-{start // 1000}")
        while not batch.final:
            batch = lw.batch(batch.id, wait=30)
    print(f"inspected {len(images)} images with version 1 in {time.monotonic() - started:.0f} s")
    expert_labels = read_labels()
    inspections = lw.inspections(recipe=RECIPE, lot_id="elpv")
    labelled = [inspection for inspection in inspections if inspection.external_id in expert_labels]
    for inspection in labelled[::8]:
        label = expert_labels[str(inspection.external_id)]
        lw.review(inspection.id, label, reviewer="the dataset's experts", reason="its label")
    run = wait_for_run(lw, lw.rescore(RECIPE, 2, where={"lot_id": "elpv"}).id)
    print(f"re-scored with version 2: {run.status}, {run_rate(run):.1f} images/s, {run.counts}")
    started = time.monotonic()
    report = lw.rescore_report(run.id)
    print(f"report after {time.monotonic() - started:.2f} s: {json.dumps(report, default=str)[:6000]}")
    started = time.monotonic()
    page = lw.download_rescore_report(run.id, out / "rescore-report.html")
    print(f"HTML report of {page.stat().st_size / 1e6:.2f} MB after {time.monotonic() - started:.1f} s: {page}")
    again = wait_for_run(lw, lw.rescore(RECIPE, 1, where={"lot_id": "elpv"}, threshold=1.0).id)
    seconds = (again.finished_at - again.created_at).total_seconds()
    print(f"with another threshold only: {again.status}, {seconds:.2f} s after the request, {again.counts}")


def wait_until_settled(lw: Client, run_id: Any) -> tuple[Any, float]:
    """Wait until a paused run has written its claimed images. Return the run and the monotonic time of its progress."""
    run, moment = lw.rescore_run(run_id), time.monotonic()
    while time.monotonic() - moment < 2.0:
        time.sleep(0.1)
        later = lw.rescore_run(run_id)
        if later.progress.done != run.progress.done:
            run, moment = later, time.monotonic()
    return later, moment


def show_speed(lw: Client, system: System, folder: Path, bundle: Path, images: int) -> None:
    """Alternate between pieces of the run and the bare loop, so that a change of the machine's speed affects both.

    The time of a piece starts when the run is resumed, so it includes the start-up.
    """
    files = itertools.cycle(sorted((folder / "archive").glob("*.png")))
    memory = Memory(system)
    pieces: list[tuple[float, float]] = []
    with memory.sampled():
        bare = measure_bare_loop(bundle, list(itertools.islice(files, SAMPLE)))
        started = time.monotonic()
        run = lw.rescore(RECIPE, 2, folder=str(folder / "archive"))
        scored = run.progress.done
        while not run.final:
            run = lw.rescore_run(run.id, wait=20)
            if not run.final and time.monotonic() - started < PIECE_SECONDS:
                continue
            if not run.final:
                lw.pause_run(run.id)
            run, moment = wait_until_settled(lw, run.id)
            after = measure_bare_loop(bundle, list(itertools.islice(files, SAMPLE)))
            pieces.append(((run.progress.done - scored) / (moment - started), (bare + after) / 2))
            bare, scored, started = after, run.progress.done, time.monotonic()
            if not run.final:
                run = lw.resume_run(run.id)
    assert (run.status, run.progress.done) == ("completed", images), run
    rates, bares = zip(*pieces, strict=True)
    print(f"bare loop of decode + score, images/s   {_list(bares)}")
    print(f"re-scoring {images} of a folder, images/s  {_list(rates)}")
    ratios = [rate / bare_rate for rate, bare_rate in pieces]
    print(f"× the bare loop                         {_list(ratios)}; median {statistics.median(ratios):.2f}")
    memory.print_peaks()


def show_killed(lw: Client, system: System, folder: Path, images: int) -> None:
    """Kill random processes during a run, and print how many images have results."""
    generator = random.Random(0)  # noqa: S311 - selects the process and the time
    run_id = lw.rescore(RECIPE, 2, folder=str(folder / "archive")).id
    kills: Counter[str] = Counter()
    deadline = time.monotonic() + LIMIT_SECONDS
    due = time.monotonic() + 5
    while not (run := lw.rescore_run(run_id, wait=2)).final:
        assert time.monotonic() < deadline, run
        if time.monotonic() > due:
            words = generator.choice(KILLED)
            for child in system.children(words)[:1]:
                child.kill()
                kills[words] += 1
            due = time.monotonic() + generator.uniform(4, 20)
    results = Counter(result.path for result in lw.rescore_results(run_id))
    repeated = sum(number > 1 for number in results.values())
    print(f"killed {dict(kills)}: {run.status}, {run.progress.done} of {images} done, {run.counts['failed']} failed;")
    print(f"{len(results)} images with results, {repeated} of them with more than one")


def burst_p99(lw: Client, images: Sequence[Path]) -> float:
    """Submit a burst. Return the 99th percentile of the seconds from acceptance to verdict."""
    batch = lw.submit_batch({path.name: path for path in images}, recipe=RECIPE)
    while not batch.final:
        batch = lw.batch(batch.id, wait=30)
    inspections = lw.inspections(batch_id=batch.id, page_size=1000)
    totals = [inspection.timings_ms["total"] / 1000 for inspection in inspections]
    return statistics.quantiles(totals, n=100)[-1]


def show_line(lw: Client, folder: Path) -> None:
    """Print the latency of bursts and single images, alone and during a run, and the run's share under live load."""
    images = list_cells()[:BURST]
    burst_p99(lw, images)
    idle, busy = [], []
    run_id = lw.rescore(RECIPE, 2, folder=str(folder / "archive")).id
    for _ in range(BURSTS):  # in turns, so that a change of the machine's speed affects both
        lw.pause_run(run_id)
        time.sleep(5)
        idle.append(burst_p99(lw, images))
        lw.resume_run(run_id)
        time.sleep(8)
        busy.append(burst_p99(lw, images))
    print(f"bursts of {BURST}: p99 alone {_list(idle)} s, during a run {_list(busy)} s, ", end="")
    print(f"ratio of the medians {statistics.median(busy) / statistics.median(idle):.2f}")
    latencies: dict[str, list[float]] = {name: [] for name in ("alone", "during a run")}
    actions: tuple[tuple[str, Callable[[Any], object]], ...] = (
        ("alone", lw.pause_run),
        ("during a run", lw.resume_run),
    )
    for name, action in actions:
        action(run_id)
        time.sleep(6)
        for path in images[:60]:
            started = time.monotonic()
            lw.submit(path, recipe=RECIPE, wait=60)
            latencies[name].append(time.monotonic() - started)
    for name, seconds in latencies.items():
        print(
            f"single images {name}: p50 {statistics.median(seconds) * 1000:.0f} ms, "
            f"p95 {statistics.quantiles(seconds, n=20)[-1] * 1000:.0f} ms"
        )
    _measure_steady_load(lw, run_id, images)
    lw.cancel_run(run_id)


def _measure_steady_load(lw: Client, run_id: Any, images: Sequence[Path]) -> None:
    """Keep the live queue full for some minutes, and print the run's share of the scored images."""
    before, started, live = lw.rescore_run(run_id).progress.done, time.monotonic(), 0
    batches = []
    print("images of the run / live images submitted, over time:", end="")
    while time.monotonic() - started < STEADY_SECONDS:
        batches.append(lw.submit_batch({path.name: path for path in images}, recipe=RECIPE))
        live += len(images)
        done = lw.rescore_run(run_id).progress.done - before
        print(f" {done}/{live}", end="", flush=True)
        while len(batches) > 1 and not lw.batch(batches[0].id, wait=10).final:
            pass
        batches = batches[-2:]
    done = lw.rescore_run(run_id).progress.done - before
    queued = sum(lw.batch(batch.id).counts["queued"] for batch in batches)
    scored = live - queued
    share = done / (done + scored)
    print(f"\n{STEADY_SECONDS:.0f} s of steady live load: {scored} live images, ", end="")
    print(f"{done} of the run, a share of {share:.3f}")


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def main() -> int:
    """Measure on a temporary system."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rescoring", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["archive", "speed", "kill", "line"])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--out", type=Path, default=Path(), help="folder for the HTML report of the part `archive`")
    parser.add_argument("--bundles", type=Path, help="folder that keeps the two trained bundles for the next time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        training_folder = link_images(folder / "learned").folder
        bundles = [folder / f"bundle-{number}" for number in (1, 2)]
        if arguments.bundles is not None:
            bundles = [arguments.bundles / bundle.name for bundle in bundles]
        for architecture, bundle in zip(("feature-autoencoder", "feature-gaussian"), bundles, strict=True):
            if not bundle.exists():
                train(training_folder, bundle, TrainingOptions(architecture=architecture), lambda _: None)
        write_archive(folder / "archive", arguments.images)
        with run_system(folder) as system, Client(system.url, timeout=120) as lw:
            lw.create_recipe(RECIPE, exist_ok=True)
            for bundle in bundles:
                lw.upload_bundle(RECIPE, bundle)
            for part in arguments.parts:
                print(f"-- {part}", flush=True)
                if part == "archive":
                    show_archive(lw, arguments.out)
                elif part == "speed":
                    show_speed(lw, system, folder, bundles[1], arguments.images)
                elif part == "kill":
                    show_killed(lw, system, folder, arguments.images)
                elif part == "line":
                    show_line(lw, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
