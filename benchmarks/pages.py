"""The results of the detection benchmark as Markdown, and as one HTML page with histograms of the scores."""

from collections.abc import Sequence
from html import escape
from typing import Final

from benchmarks.detection_results import ResultRow, SetResults
from core.html.charts import Mark, Strip, histograms

_STYLE: Final = """
:root { color-scheme: light dark; --text: #1c2126; --quiet: #5d6770; --line: #d5d9dd; --good: #2d6ca2;
  --defective: #d4661f; --ground: #fff; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e7ea; --quiet: #98a2ab; --line: #394046; --good: #5aa5e6;
  --defective: #ee8f4c; --ground: #16191c; } }
body { margin: 24px auto; max-width: 1080px; padding: 0 20px; background: var(--ground); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0 20px; }
th, td { text-align: right; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th, .quiet { color: var(--quiet); font-weight: 600; }
svg { width: 720px; max-width: 100%; height: auto; display: block; font: 12px system-ui, sans-serif; }
svg text { fill: var(--text); } svg .quiet { fill: var(--quiet); } svg .axis { stroke: var(--quiet); }
svg .grid { stroke: var(--line); } svg .mark { stroke: var(--text); stroke-dasharray: 5 3; }
svg .good { fill: var(--good); } svg .defective { fill: var(--defective); }
"""
_HEAD: Final = (
    "detector",
    "AUROC",
    "95 % interval",
    "development",
    "false rejects",
    "expected false rejects (95 %)",
    "recall",
    "ms an image",
    "training",
    "bundle",
)
_CHANGE_HEAD: Final = ("change", "AUROC", "difference", "false rejects", "recall", "good marked for review")

Table = tuple[Sequence[str], list[list[str]]]


def markdown(results: Sequence[SetResults]) -> str:
    """Render all tables as Markdown."""
    parts = []
    for result in results:
        parts.append(f"## {result.set}\n\n{_counts(result)}\n")
        parts.extend([_text(_detection(result)), _text(_controls(result))])
        for detector, table in _robustness(result):
            parts.append(f"### Robustness: {detector}\n\n{_text(table)}")
    return "\n".join(parts)


def html(results: Sequence[SetResults]) -> str:
    """Render one HTML page that loads no other file."""
    body = []
    for result in results:
        body.append(f"<h2>{escape(result.set)}</h2><p>{escape(_counts(result))}</p>")
        body.extend([_markup(_detection(result)), _markup(_controls(result)), *_histograms(result)])
        for detector, table in _robustness(result):
            body.append(f"<h3>Robustness: {escape(detector)}</h3>{_markup(table)}")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Detection</title>'
        f"<style>{_STYLE}</style></head><body><h1>Detection</h1>\n{chr(10).join(body)}\n</body></html>\n"
    )


def _counts(result: SetResults) -> str:
    return "Images: " + ", ".join(f"{count} {what}" for what, count in result.images.items()) + "."


def _detection(result: SetResults) -> Table:
    return _HEAD, [_cells(row) for row in result.rows]


def _cells(row: ResultRow) -> list[str]:
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


def _controls(result: SetResults) -> Table:
    ranked = sorted(result.controls.items(), key=lambda item: -item[1])
    return ("control", "AUROC"), [[name.replace("_", " "), f"{value:.3f}"] for name, value in ranked]


def _robustness(result: SetResults) -> list[tuple[str, Table]]:
    tables: list[tuple[str, Table]] = []
    for detector, changes in result.robustness.items():
        reference = changes[0].auroc
        rows = [
            [
                each.change,
                f"{each.auroc:.3f}",
                f"{each.auroc - reference:+.3f}",
                f"{each.false_reject_rate:.1%}",
                f"{each.recall:.1%}",
                f"{each.marked:.1%}",
            ]
            for each in changes
        ]
        tables.append((detector, (_CHANGE_HEAD, rows)))
    return tables


def _histograms(result: SetResults) -> list[str]:
    """Draw a histogram for each detector, of its first seed."""
    charts = []
    for row in result.rows:
        run = next(run for run in result.runs if run.detector == row.detector)
        strips = [Strip("good", "good", run.good), Strip("defective", "defective", run.defective)]
        charts.append(f"<h3>{escape(row.detector)}</h3>{histograms(strips, [Mark('threshold', run.threshold)])}")
    return charts


def _text(table: Table) -> str:
    head, rows = table
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _markup(table: Table) -> str:
    head, rows = table
    first = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    rest = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{first}</tr>{rest}</table>"
