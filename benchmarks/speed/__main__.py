"""`make bench`: Linewatch next to a bare loop and to what people build by hand, on this machine, in one run.

All contenders decode and score the same images in the same way. They run one after another, in turns whose order
rotates, so that each ratio comes from runs that are close in time.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.speed import bare_loop, linewatch, peer_systems, report
from benchmarks.speed.bundles import train_default_bundle, write_reference_bundle
from benchmarks.speed.figures import rotated
from benchmarks.speed.images import JPEG, LARGE_JPEG, PNG, Kind
from benchmarks.speed.machine import describe_machine, versions
from benchmarks.speed.measuring import Session, Start, measure_bare_loop, measure_latencies, tune_litserve
from benchmarks.speed.peers.tuning import Tuning
from benchmarks.speed.results import BARE_LOOP, LINEWATCH, Cell, LoadedLatency, Results
from benchmarks.speed.run import Run

RESULTS: Final = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        alternations: of the first cell.
        run_seconds: of each run of a contender.
        latency_seconds: of each load below the capacity.
        burst: images that are all due at once.
        is_complete: whether there are other cells, and LitServe is tuned.
    """

    alternations: int
    run_seconds: float
    latency_seconds: float
    burst: int
    is_complete: bool


FULL: Final = Plan(alternations=5, run_seconds=7.0, latency_seconds=10.0, burst=1000, is_complete=True)
QUICK: Final = Plan(alternations=1, run_seconds=4.0, latency_seconds=4.0, burst=300, is_complete=False)


def main() -> None:
    """Measure, and write the results; `render` writes the tables and the chart anew from `speed.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("extent", nargs="?", choices=("full", "quick", "render"), default="full")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.extent == "render":
        report.write(report.read(arguments.out), arguments.out)
        return
    for results in measure(FULL if arguments.extent == "full" else QUICK):
        report.write(results, arguments.out)
    print(report.render_markdown(results))


def measure(plan: Plan) -> Iterator[Results]:
    """Run all contenders. Yields the results so far whenever a cell is complete."""
    started = time.monotonic()
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        reference = write_reference_bundle(folder / "reference")
        tuning = Tuning()
        if plan.is_complete:
            _say("tuning LitServe")
            tuning = tune_litserve(reference, JPEG)
        starts = _starts(reference, tuning)
        cells.append(_measure_cell("JPEG 900², reference network", reference, JPEG, starts, plan, plan.alternations))
        latencies = _measure_latencies(starts, cells[0], plan)

        def results() -> Results:
            return Results(describe_machine(), versions(), list(cells), latencies, (time.monotonic() - started) / 60)

        yield results()
        if not plan.is_complete:
            return
        for kind in (PNG, LARGE_JPEG):
            cells.append(_measure_cell(f"{kind.name}, reference network", reference, kind, starts, plan, 1))
            yield results()
        _say("training the default detector")
        default = train_default_bundle(folder / "default")
        starts = _starts(default, tuning)
        cells.append(_measure_cell("JPEG 900², default detector", default, JPEG, starts, plan, 1))
        yield results()


def _starts(bundle: Path, tuning: Tuning) -> dict[str, Start]:
    return {
        LINEWATCH: partial(linewatch.running, bundle),
        "LitServe, tuned": partial(peer_systems.litserve, bundle, tuning),
        "demo style": partial(peer_systems.demo_style, bundle),
        "Celery, one task an image": partial(peer_systems.celery_per_image, bundle),
    }


def _measure_cell(
    name: str, bundle: Path, kind: Kind, starts: Mapping[str, Start], plan: Plan, alternations: int
) -> Cell:
    _say(f"{name}: finding the fastest bare loop")
    variant = bare_loop.fastest(bundle, kind)
    settings = {BARE_LOOP: str(variant)}
    measured: list[dict[str, Run]] = []
    for alternation in range(alternations):
        runs: dict[str, Run] = {}
        for contender in rotated([BARE_LOOP, *starts], alternation):
            if contender == BARE_LOOP:
                runs[contender] = measure_bare_loop(bundle, kind, variant, plan.run_seconds)
            else:
                with Session.started(starts[contender], kind) as session:
                    runs[contender] = session.send_for(plan.run_seconds)
                    settings[contender] = session.contender.settings
            _say(f"{name}, {alternation + 1} of {alternations}: {contender}: {runs[contender].rate:.1f} images/s")
        measured.append(runs)
    return Cell(name, measured, {contender: text for contender, text in settings.items() if text})


def _measure_latencies(starts: Mapping[str, Start], cell: Cell, plan: Plan) -> list[LoadedLatency]:
    rows: list[LoadedLatency] = []
    rates = cell.rates()
    for name, start in starts.items():
        with Session.started(start, JPEG) as session:
            rows += measure_latencies(name, session, rates[name].median, plan.latency_seconds, plan.burst)
        _say(f"latency: {name}: {', '.join(f'{row.load} {row.latency.p50 * 1000:.0f} ms' for row in rows[-4:])}")
    return rows


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
