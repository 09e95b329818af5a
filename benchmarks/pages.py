"""The results of the detection benchmark as Markdown, and as one HTML page with histograms of the scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from benchmarks.detection_results import ResultRow, SetResults
from core.html.charts import Mark, Strip, histograms
from core.html.rendering import render

_DETECTOR_HEAD: Final = (
    "detector",
    "AUROC",
    "95 % interval",
    "development",
    "false rejects",
    "expected false rejects (95 %)",
    "recall",
    "ms per image",
    "training",
    "bundle",
)
_CONTROL_HEAD: Final = ("control", "AUROC")
_CHANGE_HEAD: Final = ("change", "AUROC", "difference", "false rejects", "recall", "good marked for review")


@dataclass(frozen=True)
class Table:
    """A table of text: its column names and its rows of cells."""

    head: Sequence[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Section:
    """The part of a page on one set. Histograms and robustness tables are listed by detector."""

    name: str
    counts: str
    detectors: Table
    controls: Table
    histograms: list[tuple[str, Markup]]
    robustness: list[tuple[str, Table]]


def render_markdown(results: Sequence[SetResults]) -> str:
    """Render all tables as Markdown."""
    parts = []
    for result in results:
        parts.append(f"## {result.set}\n\n{_counts(result)}\n")
        parts.extend([_markdown_table(_detector_table(result)), _markdown_table(_control_table(result))])
        for detector, table in _robustness_tables(result):
            parts.append(f"### Robustness: {detector}\n\n{_markdown_table(table)}")
    return "\n".join(parts)


def render_html(results: Sequence[SetResults]) -> str:
    """Render one HTML page that loads no other file."""
    sections = [
        Section(
            name=result.set,
            counts=_counts(result),
            detectors=_detector_table(result),
            controls=_control_table(result),
            histograms=_histograms(result),
            robustness=_robustness_tables(result),
        )
        for result in results
    ]
    return render("detection.html", package="benchmarks", title="Detection", sections=sections)


def _counts(result: SetResults) -> str:
    return "Images: " + ", ".join(f"{count} {use}" for use, count in result.images.items()) + "."


def _detector_table(result: SetResults) -> Table:
    return Table(_DETECTOR_HEAD, [_detector_cells(row) for row in result.rows])


def _detector_cells(row: ResultRow) -> list[str]:
    mean, low, high = row.expected_false_rejects
    return [
        f"{row.detector} ({row.seeds} seeds)",
        f"{row.auroc:.3f}",
        f"{row.interval[0]:.3f} to {row.interval[1]:.3f}",
        "" if row.development is None else f"{row.development:.3f}",
        f"{row.false_reject_rate:.1%}",
        f"{mean:.1%} ({low:.1%} to {high:.1%})",
        f"{row.recall:.1%}",
        f"{row.milliseconds:.1f}",
        f"{row.training_seconds:.0f} s",
        f"{row.bundle_bytes / 1e6:.1f} MB",
    ]


def _control_table(result: SetResults) -> Table:
    ranked = sorted(result.controls.items(), key=lambda item: -item[1])
    return Table(_CONTROL_HEAD, [[name.replace("_", " "), f"{value:.3f}"] for name, value in ranked])


def _robustness_tables(result: SetResults) -> list[tuple[str, Table]]:
    """Return a table for each detector. Differences are to its first row, the unchanged images."""
    tables = []
    for detector, changes in result.robustness.items():
        reference = changes[0].auroc
        rows = [
            [
                change.change,
                f"{change.auroc:.3f}",
                f"{change.auroc - reference:+.3f}",
                f"{change.false_reject_rate:.1%}",
                f"{change.recall:.1%}",
                f"{change.marked:.1%}",
            ]
            for change in changes
        ]
        tables.append((detector, Table(_CHANGE_HEAD, rows)))
    return tables


def _histograms(result: SetResults) -> list[tuple[str, Markup]]:
    """Draw a histogram for each detector, of its first seed."""
    charts = []
    for row in result.rows:
        run = next(run for run in result.runs if run.detector == row.detector)
        strips = [Strip("good", "good", run.good), Strip("defective", "defective", run.defective)]
        charts.append((row.detector, histograms(strips, [Mark("threshold", run.threshold)])))
    return charts


def _markdown_table(table: Table) -> str:
    lines = [table.head, ["---", *["---:"] * (len(table.head) - 1)], *table.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
