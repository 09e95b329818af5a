"""Print the results of the demo's burst: speed, counts and detection quality."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from core.vision.evaluation.metrics import auroc, auroc_interval, controls
from core.vision.input.record import Preprocessing
from core.vision.train import TrainingOptions
from core.vision.training.dataset import read
from linewatch.cli.commands.models import describe_calibration
from linewatch.server.demo.cells import Cells
from linewatch.types.results import Inspection, ModelVersion

_CONTROLS = {
    "mean_brightness": ("mean brightness", "darker scores higher; needs no network"),
    "mean_brightness_deviation": ("brightness deviation", "distance from the good cells' mean; needs no network"),
    "standard_deviation": ("contrast", "needs no network"),
    "nearest_thumbnail": ("nearest thumbnail", "distance to the closest good cell at 16 × 16; needs no network"),
}
"""Label and description of each trivial score of `core.vision.evaluation.metrics.controls`."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Burst:
    """The results of the burst.

    Attributes:
        good, defective: inspections of held-out good cells and of defective cells.
        refused: how many images were rejected.
        accepted_after, finished_after: seconds from the first byte sent until the system answered that all images are
            durable, and until the last verdict.
        alone: milliseconds from upload to verdict of single images on an idle system, by the client's clock.
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
    """How well scores separate defective from good cells.

    Attributes:
        auroc: of the detector, 0 to 1.
        interval: 95% confidence interval of `auroc`.
        controls: the AUROC of each trivial score, by its name.
    """

    auroc: float
    interval: tuple[float, float]
    controls: dict[str, float]


def measure_detection(burst: Burst, cells: Cells, preprocessing: Preprocessing) -> Detection:
    """Measure the detector and the trivial controls on the same images."""
    good, defective = _scores(burst.good), _scores(burst.defective)
    good_controls, defective_controls = (
        _controls(images, cells.training, preprocessing) for images in (cells.good, cells.defective)
    )
    return Detection(
        auroc(good, defective),
        auroc_interval(good, defective),
        {name: auroc(good_controls[name], defective_controls[name]) for name in good_controls},
    )


def _scores(inspections: Sequence[Inspection]) -> Scores:
    scores = [inspection.anomaly_score for inspection in inspections if inspection.anomaly_score is not None]
    return np.array(scores, dtype=np.float64)


def _controls(images: list[Path], training: list[Path], preprocessing: Preprocessing) -> dict[str, Scores]:
    burst_images, training_images = (
        read(paths, preprocessing, max_pixels=TrainingOptions.max_pixels, progress=_no_progress)
        for paths in (images, training)
    )
    return controls(burst_images.thumbnails, burst_images.deviations, training_images.thumbnails)


def _no_progress(done: int) -> None:
    """Show no progress, because reading takes only a second."""


def print_speed(out: Console, burst: Burst) -> None:
    """Print throughput and latencies."""
    totals = [inspection.timings_ms["total"] for inspection in burst.all if "total" in inspection.timings_ms]
    p50, p99 = np.percentile(totals, [50, 99])
    alone_p50, alone_p99 = np.percentile(burst.alone, [50, 99])
    count = len(burst.all)
    table = _table("Speed")
    table.add_row("throughput", f"{count / burst.finished_after:.0f} images/s", "from first byte sent to last verdict")
    table.add_row("all durable", f"{burst.accepted_after:.2f} s", "all images stored and committed, then 202")
    table.add_row("burst p50", f"{p50:.0f} ms", "from acceptance to verdict, by the system's clock;")
    table.add_row("burst p99", f"{p99:.0f} ms", "mostly queueing: all images came at once")
    table.add_row("alone p50", f"{alone_p50:.0f} ms", f"from upload to verdict, {len(burst.alone)} images one by one,")
    table.add_row("alone p99", f"{alone_p99:.0f} ms", "by the client's clock")
    out.print(table)


def print_counts(out: Console, burst: Burst) -> None:
    """Print the number of images with each verdict."""
    table = Table(title="Counts", title_justify="left", title_style="bold", box=None, pad_edge=False)
    kinds = ("ok", "ng", "review", "failed")
    table.add_column("")
    for kind in (*kinds, "total"):
        table.add_column(kind, justify="right")
    for name, inspections in (("good cells", burst.good), ("defective cells", burst.defective)):
        counts = [sum(kind in (inspection.verdict, inspection.status) for inspection in inspections) for kind in kinds]
        table.add_row(name, *map(str, counts), str(len(inspections)))
    out.print(table)
    if burst.refused:
        out.print(f"{burst.refused} images were rejected.")


def print_detection(
    out: Console, measured: Detection, burst: Burst, version: ModelVersion, reference: ReferenceResult
) -> None:
    """Print the AUROC of both detectors and of the controls, and the expected and measured rejects."""
    low, high = measured.interval
    table = _table("Detection (AUROC: 0.5 is guessing, 1.0 is perfect)")
    interval = f"95% interval {low:.3f} to {high:.3f}"
    table.add_row(f"[bold]{_name(version)}[/]", f"[bold]{measured.auroc:.3f}[/]", interval)
    good, defective = _scores(reference.good), _scores(reference.defective)
    low, high = auroc_interval(good, defective)
    interval = f"95% interval {low:.3f} to {high:.3f}; the reference detector, kept for existing weights"
    table.add_row(_name(reference.version), f"{auroc(good, defective):.3f}", interval)
    for control, value in sorted(measured.controls.items(), key=lambda item: -item[1]):
        table.add_row(_CONTROLS[control][0], f"{value:.3f}", _CONTROLS[control][1])
    out.print(table)
    out.print(_compare_with_controls(measured))
    rejected, recalled = (
        sum(inspection.verdict == "ng" for inspection in inspections) / len(inspections)
        for inspections in (burst.good, burst.defective)
    )
    out.print(f"Threshold {version.threshold.threshold:.6g}: {describe_calibration(version.threshold.calibration)}.")
    out.print(f"On this burst it rejected {rejected:.1%} of the good cells and {recalled:.1%} of the defective ones.")


def _name(version: ModelVersion) -> str:
    return f"{version.manifest['architecture']['name']}, {version.manifest['score_method']}"


def _compare_with_controls(measured: Detection) -> str:
    best = max(measured.controls, key=lambda name: measured.controls[name])
    if measured.auroc <= measured.controls[best]:
        control = _CONTROLS[best][0]
        return f"[yellow]The detector does not beat the control '{control}', so this test says nothing about it.[/]"
    return "The detector beats every trivial control."


def print_verdicts(out: Console, burst: Burst, url: str) -> None:
    """Print a few verdicts of each kind with their links. Links are not wrapped."""
    out.print("[bold]A few verdicts[/] (the highest, the median and the lowest score of each kind)")
    for truth, inspections in (("defective", burst.defective), ("good", burst.good)):
        for inspection in _representative(inspections):
            colour = "red" if inspection.verdict == "ng" else "green"
            name = Path(inspection.external_id or "?").name
            link = f"{url}/v1/inspections/{inspection.id}"
            verdict = f"[{colour}]{inspection.verdict:6}[/] {inspection.anomaly_score:.6f}"
            out.print(f"{name}  {truth:9}  {verdict}  {link}", soft_wrap=True)


def _representative(inspections: Sequence[Inspection]) -> list[Inspection]:
    """Return the inspections with the highest, the median and the lowest score."""
    scored = [inspection for inspection in inspections if inspection.anomaly_score is not None]
    ranked = sorted(scored, key=lambda inspection: -(inspection.anomaly_score or 0))
    return [ranked[0], ranked[len(ranked) // 2], ranked[-1]] if ranked else []


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    return table
