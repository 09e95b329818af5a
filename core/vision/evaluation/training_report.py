"""The report of a training: one self-contained HTML page for the people who are responsible for the parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from scipy import stats

from core.html.charts import Mark, Strip, curves, histograms
from core.html.rendering import png
from core.html.rendering import render as render_page
from core.vision.bundle.manifest import TRIALS, Manifest
from core.vision.calibration.record import Calibration
from core.vision.evaluation.comparison import LearnedFromReviews
from core.vision.evaluation.detectability_chart import detectability_chart
from core.vision.evaluation.evaluation import Control, Evaluation
from core.vision.evaluation.examples import ReportExamples
from core.vision.evaluation.heatmap import legend
from core.vision.evaluation.metrics import Scores
from core.vision.evaluation.similar_images import SimilarImages
from core.vision.input.input_checks import InputRanges
from core.vision.training.fit_interface import Epoch

_LISTED = 10
_CONTROLS: Final[Mapping[str, str]] = {
    "mean_brightness": "darkness",
    "mean_brightness_deviation": "odd brightness",
    "standard_deviation": "contrast",
    "nearest_thumbnail": "nearest thumbnail",
}
_MEASURES: Final[Mapping[str, str]] = {
    "aspect": "width / height",
    "enlargement": "enlargement to the prepared size",
    "brightness": "mean brightness, 0 to 255",
    "saturated": "share of saturated pixels",
    "dark": "share of black pixels",
    "sharpness": "sharpness, 0 to 8",
    "colourfulness": "colourfulness, 0 to 1",
}
"""The names of the ranges of `core.vision.input.input_checks` on the page."""


@dataclass(frozen=True)
class TrialRow:
    """A row of the table of what was tried; see `core.vision.selection.trial.Trial`."""

    description: str
    partial_auroc: float
    caught: float
    test_auroc: float | None
    milliseconds: float


@dataclass(frozen=True)
class ReportContent:
    """The content of the report.

    Attributes:
        folder: the name of the folder of images.
        manifest: the manifest of the bundle.
        sha256: of the manifest.
        curve: every epoch.
        held_out: scores of the good parts that the threshold was calibrated on, float64.
        tested: the evaluation on `test/`; None without test images.
        gallery: the images of the report.
        unreadable: name and reason for each unreadable image.
        notes: notes of the training, for people.
        facts: of the detector, by name.
        trials: what was tried before the detector was chosen, the chosen one first.
        learned: what it learned from reviews; None if it did not.
        similar: the images that count as shots of the same parts because of their looks; None if there are none.
    """

    folder: str
    manifest: Manifest
    sha256: str
    curve: Sequence[Epoch]
    held_out: Scores
    tested: Evaluation | None = None
    gallery: ReportExamples = field(default_factory=ReportExamples)
    unreadable: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    trials: Sequence[TrialRow] = ()
    learned: LearnedFromReviews | None = None
    similar: SimilarImages | None = None


def render(content: ReportContent) -> str:
    """Render the page: HTML that loads nothing, can be printed, and has at most eight images of each kind."""
    manifest, tested = content.manifest, content.tested
    return render_page(
        "training_report.html",
        title=f"Training on {content.folder}",
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        manifest=manifest,
        sha256=content.sha256,
        calibration=manifest.threshold.calibration,
        sample=_sample(manifest.threshold.calibration),
        threshold=manifest.threshold.value,
        warnings=[note[:1].upper() + note[1:] for note in (*content.notes, *_warnings(manifest))],
        histograms=_histograms(content),
        **_detection(manifest, tested),
        tested=tested,
        examples=_examples(content.gallery),
        legend=png(legend(240, 14)),
        curve=_curve(content),
        inputs=_inputs(manifest.inputs),
        origin=_origin(content),
        options=manifest.training.options if manifest.training is not None else {},
        unreadable=content.unreadable,
        learned=content.learned,
        similar=content.similar,
        trials=content.trials,
        detectability=manifest.detectability,
        detectability_chart=detectability_chart(manifest.detectability) if manifest.detectability is not None else None,
        listed=_LISTED,
    )


def _count(count: int, total: int) -> dict[str, Any]:
    """Return a share with its exact 95 % interval (Clopper & Pearson, Biometrika 26 (1934), 404-413)."""
    interval = stats.binomtest(count, total).proportion_ci(0.95, method="exact")
    share = f"{count / total:.1%}, 95% interval {interval.low:.1%} to {interval.high:.1%}"
    return {"count": count, "of": total, "share": share}


def _detection(manifest: Manifest, tested: Evaluation | None) -> dict[str, Any]:
    """Return the results on the test images: the cards, the AUROC table, and the share caught per type of defect."""
    metrics = manifest.metrics
    shown: dict[str, Any] = {"metrics": metrics, "caught": None, "rejected": None, "detection": [], "kinds": {}}
    if metrics is not None:
        shown["caught"] = _count(round(metrics.recall * metrics.defective), metrics.defective)
        shown["rejected"] = _count(round(metrics.false_reject_rate * metrics.good), metrics.good)
    if tested is not None:
        result = Control(tested.metrics.auroc, tested.metrics.auroc_interval)
        controls = [(f"control: {_CONTROLS.get(name, name)}", control, "") for name, control in tested.controls.items()]
        shown["detection"] = [(manifest.architecture.name, result, "own"), *controls]
        shown["kinds"] = {kind: _count(count, total) for kind, (count, total) in tested.caught.items()}
    return shown


def _warnings(manifest: Manifest) -> list[str]:
    """Return warnings about figures that are not reliable."""
    warnings = []
    metrics, calibration, training = manifest.metrics, manifest.threshold.calibration, manifest.training
    chosen_by = training.options.get("choose_by") if training is not None else None
    if metrics is not None and chosen_by == "test":
        chosen = "The detector and its threshold were" if TRIALS in manifest.files else "The threshold was"
        warnings.append(
            f"{chosen} chosen by the images in test/, so the figures on them are too good: measure it on others."
        )
    if metrics is not None:
        name = max(metrics.controls, key=metrics.controls.__getitem__, default=None)
        if name is not None and metrics.controls[name] >= metrics.auroc:
            warnings.append(
                f"A trivial score, {_CONTROLS.get(name, name)}, separates the test parts as well as the detector does "
                f"({metrics.controls[name]:.3f} against {metrics.auroc:.3f}), so this test says nothing about the "
                "detector."
            )
    if calibration is not None and calibration.confidence_interval[1] > 3 * calibration.false_reject_rate:
        warnings.append(
            f"The threshold comes from only {calibration.sample_size} parts, so the interval is wide: calibrate again "
            "with `linewatch calibrate` once there are more good parts."
        )
    return warnings


def _histograms(content: ReportContent) -> Markup:
    manifest, tested = content.manifest, content.tested
    strips = [Strip("Good, held out", "held-out", content.held_out)]
    if tested is not None:
        strips.append(Strip("Good, test", "good", tested.good_scores))
        strips.append(Strip("Defective, test", "defective", tested.defective_scores))
    marks = [Mark("threshold", manifest.threshold.value)]
    if manifest.review_threshold is not None:
        marks.append(Mark("review from", manifest.review_threshold))
    return histograms(strips, marks)


def _sample(calibration: Calibration | None) -> str:
    """Describe the number of parts or lots in the sample, and how many independent ones they are worth."""
    if calibration is None:
        return ""
    grouped = calibration.groups is not None and calibration.groups != calibration.sample_size
    groups = f" of {calibration.groups} groups" if grouped else ""
    worth = calibration.effective_sample_size
    return groups + (f", worth {worth:.0f} independent ones," if worth is not None else "")


def _examples(gallery: ReportExamples) -> list[tuple[str, Sequence[Any]]]:
    rows = (
        ("Missed defects, the least suspicious first", gallery.missed),
        ("Best-caught defects", gallery.best_caught),
        ("Good parts that look worst", gallery.good),
    )
    return [(heading, examples) for heading, examples in rows if examples]


def _curve(content: ReportContent) -> dict[str, Any] | None:
    training, curve = content.manifest.training, content.curve
    if training is None or not curve:
        return None
    lines = [
        ("training", "good", [epoch.training_loss for epoch in curve]),
        ("validation", "held-out", [epoch.validation_loss for epoch in curve]),
    ]
    best = training.best_epoch or len(curve)
    drawable = all(np.isfinite(values).all() for _, _, values in lines)
    chart = curves(lines, marked=best, axis="loss") if drawable else None
    return {"chart": chart, "epochs": len(curve)}


def _inputs(inputs: InputRanges | None) -> dict[str, Any] | None:
    if inputs is None:
        return None
    ranges = inputs.model_dump(exclude={"sample_size"}).items()
    named = [(_MEASURES.get(name, name), _range(name, value)) for name, value in ranges]
    return {"sample_size": inputs.sample_size, "ranges": named}


def _range(name: str, value: float | tuple[float, float]) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.3g} to {value[1]:.3g}"
    return f"{'at least' if name == 'sharpness' else 'at most'} {value:.3g}"


def _origin(content: ReportContent) -> dict[str, object]:
    manifest, training = content.manifest, content.manifest.training
    origin: dict[str, object] = {"Model, SHA-256": content.sha256}
    if training is not None:
        parts = ", ".join(f"{count} {name}" for name, count in training.parts.items())
        origin |= {"Good images": parts, "Unreadable": training.unreadable}
        if training.groups is not None:
            origin["Groups, near-duplicates"] = f"{training.groups}, {training.near_duplicates}"
        origin |= {"Training set, SHA-256": training.training_set_digest, "Device": training.device}
    size = f"{manifest.preprocessing.width} × {manifest.preprocessing.height} pixels"
    if (bit_depth := manifest.preprocessing.bit_depth) is not None:
        size += f", {bit_depth} bits"
    origin |= {"Prepared to": size, "Score": manifest.score_method}
    origin |= content.facts
    if (backbone := manifest.backbone) is not None:
        origin["Backbone"] = f"{backbone.name}, weights from {backbone.source}, licence: {backbone.licence}"
    return origin
