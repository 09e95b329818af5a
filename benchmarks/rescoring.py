"""`make bench-rescoring`: re-scoring real images, against the bare loop of decode + score, killed, beside the line.

The images are the ELPV solar cells, made distinct by a few appended bytes. The parts, all or those that are named:

    archive   the whole dataset, inspected with one version and scored again with another: what the report says
    speed     20,000 images of a folder: the rate as a ratio of the bare loop's, before and after, and peak memory
    kill      the same while planner, workers and dispatcher are killed at random: each image has one result
    line      bursts of live images, alone and during a run: their p99; and a run under a steady live load
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
from linewatch.server.demo.cells import lay_out

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


def cells() -> list[Path]:
    """All images of the dataset, as they are installed."""
    found = importlib.util.find_spec("elpv_dataset")
    assert found is not None, "pip install 'linewatch[demo]'"
    assert found.submodule_search_locations
    return sorted(Path(found.submodule_search_locations[0], "data", "images").glob("*.png"))


def write_archive(folder: Path, images: int) -> Path:
    """So many distinct images: cells with their number appended, which no decoder reads."""
    folder.mkdir(parents=True)
    for number, cell in enumerate(itertools.islice(itertools.cycle(cells()), images)):
        (folder / f"{number:06}.png").write_bytes(cell.read_bytes() + f"{number:06}".encode())
    return folder


@dataclass
class System:
    """A running `linewatch up`."""

    process: subprocess.Popen[str]
    url: str

    def children(self, words: str) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.process.pid).children():
            try:
                if words in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[System]:
    command = [sys.executable, "-m", "linewatch.cli", "up", "--port", "0", "--data", str(folder / "data")]
    own = os.environ | {"LINEWATCH_ARCHIVE_ROOTS": str(folder), **environment}
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=own) as process,
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
    """The resident memory of the processes that re-score, in MB, over time."""

    system: System
    seen: dict[str, list[float]] = field(default_factory=lambda: {words: [] for words in KILLED})

    @contextmanager
    def watched(self) -> Iterator[None]:
        done = threading.Event()

        def watch() -> None:
            while not done.wait(1.0):
                for words in KILLED:
                    self.seen[words] += [child.memory_info().rss / 1e6 for child in self.system.children(words)]

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()

    def tell(self) -> None:
        for words, seen in self.seen.items():
            tenth = max(1, len(seen) // 10)
            print(
                f"memory of {words:18} {max(seen[: 2 * tenth]):7.0f} MB at most in the first fifth, {max(seen):7.0f} MB"
                f" in all, ratio {max(seen) / max(seen[: 2 * tenth]):.3f}"
            )


def bare_rate(bundle: Path, files: Sequence[Path]) -> float:
    """Images a second of reading, decoding in threads and scoring in minibatches, and nothing else."""
    own = load_detector(read_folder(bundle), device=resolve_device("auto"), max_pixels=MAX_PIXELS)
    with ThreadPoolExecutor(4) as threads:

        def prepared(some: Sequence[Path]) -> list[Any]:
            return list(threads.map(lambda one: own.prepare(one.read_bytes()), some))

        own.score(prepared(files[:MINIBATCH]))
        begun = time.perf_counter()
        for start in range(0, len(files), MINIBATCH):
            own.score(prepared(files[start : start + MINIBATCH]))
        return len(files) / (time.perf_counter() - begun)


def finished(lw: Client, run_id: Any) -> Any:
    """The run once it is final."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        run = lw.rescore_run(run_id, wait=20)
        if run.final:
            return run
        assert time.monotonic() < deadline, run


def rate_of(run: Any) -> float:
    return float(run.progress.done / (run.finished_at - run.started_at).total_seconds())


def labels() -> dict[str, Literal["ok", "ng"]]:
    """What the dataset's experts were sure of, by the name of the image."""
    lines = (cells()[0].parents[1] / "labels.csv").read_text().splitlines()
    rows = (line.split() for line in lines)
    sure: dict[float, Literal["ok", "ng"]] = {0.0: "ok", 1.0: "ng"}
    return {Path(row[0]).name: sure[float(row[1])] for row in rows if float(row[1]) in sure}


def show_archive(lw: Client, out: Path) -> None:
    """The whole dataset again with the second version; every eighth sure label is a person's review."""
    images = cells()
    begun = time.monotonic()
    for start in range(0, len(images), 500):
        some = {path.name: path for path in images[start : start + 500]}
        batch = lw.submit_batch(some, recipe=RECIPE, lot_id="elpv", line_id="line-1", station_id=f"st-{start // 1000}")
        while not batch.final:
            batch = lw.batch(batch.id, wait=30)
    print(f"inspected {len(images)} images with version 1 in {time.monotonic() - begun:.0f} s")
    known = labels()
    sure = [one for one in lw.inspections(recipe=RECIPE, lot_id="elpv") if one.external_id in known]
    for one in sure[::8]:
        lw.review(one.id, known[str(one.external_id)], reviewer="the dataset's experts", reason="its label")
    run = finished(lw, lw.rescore(RECIPE, 2, where={"lot_id": "elpv"}).id)
    print(f"scored again with version 2: {run.status}, {rate_of(run):.1f} images/s, {run.counts}")
    begun = time.monotonic()
    report = lw.rescore_report(run.id)
    print(f"its report after {time.monotonic() - begun:.2f} s: {json.dumps(report, default=str)[:6000]}")
    begun = time.monotonic()
    page = lw.download_rescore_report(run.id, out / "rescore-report.html")
    print(f"its page of {page.stat().st_size / 1e6:.2f} MB after {time.monotonic() - begun:.1f} s: {page}")
    again = finished(lw, lw.rescore(RECIPE, 1, where={"lot_id": "elpv"}, threshold=1.0).id)
    took = (again.finished_at - again.created_at).total_seconds()
    print(f"with another threshold only: {again.status}, {took:.2f} s after it was asked for, {again.counts}")


def held(lw: Client, run_id: Any) -> tuple[Any, float]:
    """The run once what was in hand is written, and the moment of its last change."""
    run, moment = lw.rescore_run(run_id), time.monotonic()
    while time.monotonic() - moment < 2.0:
        time.sleep(0.1)
        later = lw.rescore_run(run_id)
        if later.progress.done != run.progress.done:
            run, moment = later, time.monotonic()
    return later, moment


def show_speed(lw: Client, system: System, folder: Path, bundle: Path, images: int) -> None:
    """The run is held between its pieces for the bare loop, so that a machine that changes its pace does so for both.

    A piece's time begins when the run is resumed, and so includes that it has to get going again.
    """
    files = itertools.cycle(sorted((folder / "archive").glob("*.png")))
    memory = Memory(system)
    pieces: list[tuple[float, float]] = []
    with memory.watched():
        bare = bare_rate(bundle, list(itertools.islice(files, SAMPLE)))
        begun = time.monotonic()
        run = lw.rescore(RECIPE, 2, folder=str(folder / "archive"))
        scored = run.progress.done
        while not run.final:
            run = lw.rescore_run(run.id, wait=20)
            if not run.final and time.monotonic() - begun < PIECE_SECONDS:
                continue
            if not run.final:
                lw.pause_run(run.id)
            run, moment = held(lw, run.id)
            after = bare_rate(bundle, list(itertools.islice(files, SAMPLE)))
            pieces.append(((run.progress.done - scored) / (moment - begun), (bare + after) / 2))
            bare, scored, begun = after, run.progress.done, time.monotonic()
            if not run.final:
                run = lw.resume_run(run.id)
    assert (run.status, run.progress.done) == ("completed", images), run
    rates, bares = zip(*pieces, strict=True)
    print(f"bare loop of decode + score, images/s   {_list(bares)}")
    print(f"re-scoring {images} of a folder            {_list(rates)}")
    ratios = [rate / alone for rate, alone in pieces]
    print(f"of the bare loop                          {_list(ratios)}; median {statistics.median(ratios):.2f}")
    memory.tell()


def show_killed(lw: Client, system: System, folder: Path, images: int) -> None:
    chance = random.Random(0)  # noqa: S311 - which process and when
    run_id = lw.rescore(RECIPE, 2, folder=str(folder / "archive")).id
    kills: Counter[str] = Counter()
    deadline = time.monotonic() + LIMIT_SECONDS
    due = time.monotonic() + 5
    while not (run := lw.rescore_run(run_id, wait=2)).final:
        assert time.monotonic() < deadline, run
        if time.monotonic() > due:
            words = chance.choice(KILLED)
            for child in system.children(words)[:1]:
                child.kill()
                kills[words] += 1
            due = time.monotonic() + chance.uniform(4, 20)
    seen = Counter(one.path for one in lw.rescore_results(run_id))
    twice = sum(number > 1 for number in seen.values())
    print(f"killed {dict(kills)}: {run.status}, {run.progress.done} of {images} done, {run.counts['failed']} failed;")
    print(f"{len(seen)} images with results, {twice} of them with more than one")


def burst_p99(lw: Client, images: Sequence[Path]) -> float:
    """The 99th percentile of a burst's times from acceptance to verdict, in seconds."""
    batch = lw.submit_batch({path.name: path for path in images}, recipe=RECIPE)
    while not batch.final:
        batch = lw.batch(batch.id, wait=30)
    totals = [one.timings_ms["total"] / 1000 for one in lw.inspections(batch_id=batch.id, page_size=1000)]
    return statistics.quantiles(totals, n=100)[-1]


def show_line(lw: Client, folder: Path) -> None:
    images = cells()[:BURST]
    burst_p99(lw, images)
    idle, beside = [], []
    run_id = lw.rescore(RECIPE, 2, folder=str(folder / "archive")).id
    for _ in range(BURSTS):  # in turn, so that a machine that changes its pace does so for both
        lw.pause_run(run_id)
        time.sleep(5)
        idle.append(burst_p99(lw, images))
        lw.resume_run(run_id)
        time.sleep(8)
        beside.append(burst_p99(lw, images))
    print(f"bursts of {BURST}: p99 alone {_list(idle)} s, during a run {_list(beside)} s, ", end="")
    print(f"medians' ratio {statistics.median(beside) / statistics.median(idle):.2f}")
    lone: dict[str, list[float]] = {name: [] for name in ("alone", "during a run")}
    acts: tuple[tuple[str, Callable[[Any], object]], ...] = (
        ("alone", lw.pause_run),
        ("during a run", lw.resume_run),
    )
    for name, act in acts:
        act(run_id)
        time.sleep(6)
        for path in images[:60]:
            begun = time.monotonic()
            lw.submit(path, recipe=RECIPE, wait=60)
            lone[name].append(time.monotonic() - begun)
    for name, seen in lone.items():
        print(
            f"single images {name}: p50 {statistics.median(seen) * 1000:.0f} ms, "
            f"p95 {statistics.quantiles(seen, n=20)[-1] * 1000:.0f} ms"
        )
    _steady(lw, run_id, images)
    lw.cancel_run(run_id)


def _steady(lw: Client, run_id: Any, images: Sequence[Path]) -> None:
    """Keep the live queue full for some minutes, and see what the run gets."""
    before, begun, live = lw.rescore_run(run_id).progress.done, time.monotonic(), 0
    batches = []
    print("the run's images of all, in time:", end="")
    while time.monotonic() - begun < STEADY_SECONDS:
        batches.append(lw.submit_batch({path.name: path for path in images}, recipe=RECIPE))
        live += len(images)
        done = lw.rescore_run(run_id).progress.done - before
        print(f" {done}/{live}", end="", flush=True)
        while len(batches) > 1 and not lw.batch(batches[0].id, wait=10).final:
            pass
        batches = batches[-2:]
    done = lw.rescore_run(run_id).progress.done - before
    left = sum(one.counts["queued"] for one in (lw.batch(each.id) for each in batches))
    scored = live - left
    share = done / (done + scored)
    print(f"\n{STEADY_SECONDS:.0f} s of steady live load: {scored} live images, ", end="")
    print(f"{done} of the run, a share of {share:.3f}")


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def main() -> int:
    """Measure on a system of its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rescoring", description=__doc__)
    parser.add_argument("parts", nargs="*", default=["archive", "speed", "kill", "line"])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--out", type=Path, default=Path(), help="where the page of the archive's report is kept")
    parser.add_argument("--bundles", type=Path, help="where the two versions are kept for the next time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        learned = lay_out(folder / "learned").folder
        bundles = [folder / f"bundle-{number}" for number in (1, 2)]
        if arguments.bundles is not None:
            bundles = [arguments.bundles / bundle.name for bundle in bundles]
        for architecture, bundle in zip(("feature-autoencoder", "feature-gaussian"), bundles, strict=True):
            if not bundle.exists():
                train(learned, bundle, TrainingOptions(architecture=architecture), lambda _: None)
        write_archive(folder / "archive", arguments.images)
        with running(folder) as system, Client(system.url, timeout=120) as lw:
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
