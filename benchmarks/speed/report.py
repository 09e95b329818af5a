"""The results of `make bench` as Markdown, JSON and a chart."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.speed.chart import draw
from benchmarks.speed.figures import Spread
from benchmarks.speed.results import BARE_LOOP, LINEWATCH, Cell, Results
from benchmarks.speed.run import LOAD_GENERATOR

_PROMISES = {
    BARE_LOOP: "nothing: images in memory, scores thrown away",
    LINEWATCH: "an accepted image is on the disk and in the database, and gets exactly one verdict",
    "LitServe, tuned": "nothing: images and verdicts are in memory",
    "demo style": "nothing: images and verdicts are in memory",
    "Celery, one task an image": "an accepted image is in a file and in Redis; a crashed worker loses those it holds",
}
_INTRODUCTION = """\
All contenders decode and score the same images in the same way, with the same allocator settings. Images are sent over
TCP from a process of its own by 32 connections; its CPU time is the row `load generator`. A verdict of Linewatch counts
when a client that follows the feed has it; one of LitServe or of the demo's style when the answer has arrived; one of
Celery when it is in the result backend, without the time in which a client would ask for it.
"""


def write(results: Results, folder: Path) -> None:
    """Write `speed.md`, `speed.json` and `speed.svg`."""
    (folder / "speed.md").write_text(render_markdown(results))
    (folder / "speed.svg").write_text(draw(results) + "\n")
    (folder / "speed.json").write_bytes(TypeAdapter(Results).dump_json(results, indent=1) + b"\n")


def read(folder: Path) -> Results:
    """Read `speed.json`."""
    return TypeAdapter(Results).validate_json((folder / "speed.json").read_bytes())


def render_markdown(results: Results) -> str:
    """Render all tables, ratios first."""
    main, *others = results.cells
    parts = [
        "# Speed\n",
        f"`make bench`, {results.minutes:.0f} minutes on {_facts(results.machine)}.\n",
        _INTRODUCTION,
        "![Ratios and latencies](speed.svg)\n",
        f"## {main.name}\n",
        f"Ratios to the bare loop in the same alternation: median (lowest to highest) of {len(main.alternations)}.\n",
        _rate_table(main),
        _settings(main),
        "## CPU time\n\nMilliseconds per image by process, the median over the alternations.\n",
        _process_table(main),
        "## Memory\n\nProportional set size by process after the last run, MiB.\n",
        _memory_table(main),
        _latencies(results),
        *(f"## {cell.name}\n\n{_rate_table(cell)}\n{_settings(cell)}" for cell in others),
        f"## Versions\n\n{_facts(results.versions)}.\n",
    ]
    return "\n".join(parts)


def _rate_table(cell: Cell) -> str:
    ratios, rates = cell.ratios(), cell.rates()
    ranked = sorted(ratios, key=lambda name: -ratios[name].median)
    rows = [[name, _spread(ratios[name], ".2f"), _spread(rates[name], ".1f"), _PROMISES[name]] for name in ranked]
    return _table(["contender", "ratio to the bare loop", "images/s", "what it promises"], rows)


def _settings(cell: Cell) -> str:
    return "Settings: " + ". ".join(f"{name}: {text}" for name, text in cell.settings.items()) + ".\n"


def _process_table(cell: Cell) -> str:
    rows = []
    for name in cell.alternations[0]:
        runs = cell.runs(name)
        medians = {
            process: Spread.of([run.cpu_ms.get(process, 0.0) for run in runs]).median
            for process in dict.fromkeys(process for run in runs for process in run.cpu_ms)
        }
        rows += [[name, process, f"{milliseconds:.2f}"] for process, milliseconds in medians.items()]
        own = sum(milliseconds for process, milliseconds in medians.items() if process != LOAD_GENERATOR)
        rows.append([name, f"**all but the {LOAD_GENERATOR}**", f"**{own:.2f}**"])
    return _table(["contender", "process", "ms per image"], rows)


def _memory_table(cell: Cell) -> str:
    rows = []
    for name, run in cell.alternations[-1].items():
        rows += [[name, process, f"{size / 2**20:.0f}"] for process, size in run.memory_bytes.items()]
        rows.append([name, "**all**", f"**{sum(run.memory_bytes.values()) / 2**20:.0f}**"])
    return _table(["contender", "process", "MiB"], rows)


def _latencies(results: Results) -> str:
    rows = [
        [
            row.contender,
            row.load,
            "" if row.offered is None else f"{row.offered:.1f}",
            *(f"{seconds * 1000:.0f}" for seconds in (row.latency.p50, row.latency.p99, row.latency.largest)),
        ]
        for row in results.latencies
    ]
    return (
        "## Latency\n\nMilliseconds from when an image was due to its verdict, at shares of the contender's own "
        "capacity and in a burst. Images are due at fixed times, whether or not the contender keeps up.\n\n"
        + _table(["contender", "load", "images/s", "p50", "p99", "last"], rows)
    )


def _spread(spread: Spread, form: str) -> str:
    if spread.low == spread.high:
        return f"{spread.median:{form}}"
    return f"{spread.median:{form}} ({spread.low:{form}} to {spread.high:{form}})"


def _facts(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {fact}" for name, fact in facts.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
