"""What the demo prints about its burst: speed, counts, and how well defects were detected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from core.vision.evaluation.metrics import auroc, auroc_interval, controls
from core.vision.input.preprocessing import Preprocessing
from core.vision.train import TrainingOptions
from core.vision.training.dataset import read
from linewatch.cli.commands.models import describe_calibration
from linewatch.server.demo.cells import Cells
from linewatch.types.results import Inspection, ModelVersion

_CONTROLS = {
    "mean_brightness": ("mean brightness", "dark is suspicious; needs no network"),
    "mean_brightness_deviation": ("brightness deviation", "distance from the good cells' mean; needs no network"),
    "standard_deviation": ("contrast", "needs no network"),
    "nearest_thumbnail": ("nearest thumbnail", "distance to the closest good cell at 16 × 16; needs no network"),
}
"""Trivial scores of `core.vision.evaluation.metrics.controls`: what they are called here, and what they are."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Burst:
    """The results of the burst.

    Attributes:
        good, defective: inspections of held-out good and of defective cells.
        refused: how many images were rejected.
        accepted_after, finished_after: seconds from the first byte sent to the answer that all are durable, and to the
            last verdict.
        alone: milliseconds from upload to verdict of single images with nothing else to do, by the client's clock.
    """

    good: list[Inspection]
    defective: list[Inspection]
    refused: int
    accepted_after: float
    finished_after: float
    alone: list[float]

    @property
    def all(self) -> list[Inspection]:
        return [*self.good, *self.defective]


@dataclass(frozen=True)
class ReferenceResult:
    """The reference detector and its verdicts on the same cells."""

    version: ModelVersion
    good: list[Inspection]
    defective: list[Inspection]


@dataclass(frozen=True)
class Detection:
    """How well scores separate defective from good cells: AUROCs, 0 to 1, those of trivial scores by name."""

    auroc: float
    interval: tuple[float, float]
    controls: dict[str, float]


def detection(burst: Burst, cells: Cells, preprocessing: Preprocessing) -> Detection:
    """Measure the detector on its verdicts and the trivial controls on the same images."""
    good, defective = _scores(burst.good), _scores(burst.defective)
    of_good, of_defective = (
        _controls(images, cells.training, preprocessing) for images in (cells.good, cells.defective)
    )
    return Detection(
        auroc(good, defective),
        auroc_interval(good, defective),
        {name: auroc(of_good[name], of_defective[name]) for name in of_good},
    )


def _scores(inspections: Sequence[Inspection]) -> Scores:
    return np.array([one.anomaly_score for one in inspections if one.anomaly_score is not None], dtype=np.float64)


def _controls(images: list[Path], training: list[Path], preprocessing: Preprocessing) -> dict[str, Scores]:
    images_read, training_read = (
        read(paths, preprocessing, max_pixels=TrainingOptions.max_pixels, progress=_no_progress)
        for paths in (images, training)
    )
    return controls(images_read.thumbnails, images_read.deviations, training_read.thumbnails)


def _no_progress(done: int) -> None:
    """It takes a second, so there is no progress bar."""


def print_speed(out: Console, burst: Burst) -> None:
    """Throughput and latencies."""
    totals = [one.timings_ms["total"] for one in burst.all if "total" in one.timings_ms]
    p50, p99 = np.percentile(totals, [50, 99])
    one_p50, one_p99 = np.percentile(burst.alone, [50, 99])
    count = len(burst.all)
    table = _table("Speed")
    table.add_row("throughput", f"{count / burst.finished_after:.0f} images/s", "first byte sent to last verdict")
    table.add_row("all durable", f"{burst.accepted_after:.2f} s", "stored and committed, answered with 202")
    table.add_row("burst p50", f"{p50:.0f} ms", "accepted to verdict, by the system's clock;")
    table.add_row("burst p99", f"{p99:.0f} ms", "mostly queueing: all images came at once")
    table.add_row("alone p50", f"{one_p50:.0f} ms", f"upload to verdict, {len(burst.alone)} images one by one,")
    table.add_row("alone p99", f"{one_p99:.0f} ms", "by the client's clock")
    out.print(table)


def print_counts(out: Console, burst: Burst) -> None:
    """How many images have which verdict."""
    table = Table(title="Counts", title_justify="left", title_style="bold", box=None, pad_edge=False)
    kinds = ("ok", "ng", "review", "failed")
    table.add_column("")
    for kind in (*kinds, "total"):
        table.add_column(kind, justify="right")
    for name, inspections in (("good cells", burst.good), ("defective cells", burst.defective)):
        counts = [sum(kind in (one.verdict, one.status) for one in inspections) for kind in kinds]
        table.add_row(name, *map(str, counts), str(len(inspections)))
    out.print(table)
    if burst.refused:
        out.print(f"{burst.refused} images were rejected.")


def print_detection(
    out: Console, found: Detection, burst: Burst, version: ModelVersion, beside: ReferenceResult
) -> None:
    """The AUROC of both detectors and of the controls; the expected and the measured rejects of the threshold."""
    low, high = found.interval
    table = _table("Detection (AUROC: 0.5 is guessing, 1.0 is perfect)")
    table.add_row(f"[bold]{_name(version)}[/]", f"[bold]{found.auroc:.3f}[/]", f"95% interval {low:.3f} to {high:.3f}")
    good, defective = _scores(beside.good), _scores(beside.defective)
    low, high = auroc_interval(good, defective)
    reference = f"95% interval {low:.3f} to {high:.3f}; the reference detector, kept for existing weights"
    table.add_row(_name(beside.version), f"{auroc(good, defective):.3f}", reference)
    for control, value in sorted(found.controls.items(), key=lambda one: -one[1]):
        table.add_row(_CONTROLS[control][0], f"{value:.3f}", _CONTROLS[control][1])
    out.print(table)
    out.print(_verdict_on_detector(found))
    rejected, recalled = (
        sum(one.verdict == "ng" for one in group) / len(group) for group in (burst.good, burst.defective)
    )
    out.print(f"Threshold {version.threshold.threshold:.6g}: {describe_calibration(version.threshold.calibration)}.")
    out.print(f"On this burst it rejected {rejected:.1%} of the good cells and {recalled:.1%} of the defective ones.")


def _name(version: ModelVersion) -> str:
    return f"{version.manifest['architecture']['name']}, {version.manifest['score_method']}"


def _verdict_on_detector(found: Detection) -> str:
    best = max(found.controls, key=lambda name: found.controls[name])
    if found.auroc <= found.controls[best]:
        return f"[yellow]The detector does not beat the control '{_CONTROLS[best][0]}': these images prove nothing.[/]"
    return "The detector beats every trivial control."


def print_verdicts(out: Console, burst: Burst, url: str) -> None:
    """A few verdicts of each kind, with their links; a link is never broken into lines."""
    out.print("[bold]A few verdicts[/] (the highest, the median and the lowest score of each kind)")
    for truth, group in (("defective", burst.defective), ("good", burst.good)):
        for one in _representative(group):
            colour = "red" if one.verdict == "ng" else "green"
            name = Path(one.external_id or "?").name
            link = f"{url}/v1/inspections/{one.id}"
            verdict = f"[{colour}]{one.verdict:6}[/] {one.anomaly_score:.6f}"
            out.print(f"{name}  {truth:9}  {verdict}  {link}", soft_wrap=True)


def _representative(group: Sequence[Inspection]) -> list[Inspection]:
    """The highest score, the median and the lowest."""
    ranked = sorted((one for one in group if one.anomaly_score is not None), key=lambda one: -(one.anomaly_score or 0))
    return [ranked[0], ranked[len(ranked) // 2], ranked[-1]] if ranked else []


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    return table
