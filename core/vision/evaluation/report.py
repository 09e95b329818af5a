"""The report of a training: one page of HTML that needs nothing but itself, for whoever answers for the parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Final

import numpy as np
from scipy import stats

from core.vision.bundle.manifest import Manifest
from core.vision.calibration.result import Calibration
from core.vision.evaluation.charts import Mark, Strip, curves, histograms
from core.vision.evaluation.evaluation import Control, Evaluation
from core.vision.evaluation.examples import ReportExample, ReportExamples
from core.vision.evaluation.metrics import Scores
from core.vision.evaluation.page import card, facts, heat_scale, image, notes, page
from core.vision.input.input_checks import InputRanges
from core.vision.training.options import Epoch

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
"""What the ranges of `core.vision.input.input_checks` are called here."""


@dataclass(frozen=True)
class ReportContent:
    """All that a training has to tell.

    Attributes:
        folder: the name of the folder of images.
        manifest: of the bundle, and its SHA-256.
        curve: every epoch.
        held_out: scores of the good parts that the threshold comes from, float64.
        tested: what was found on `test/`; None where there was nothing to test with.
        gallery: the images that are shown.
        unreadable: names and reasons.
        notes: lines for people about what was odd.
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


def render(account: ReportContent) -> str:
    """The page: HTML that loads nothing, prints well, and holds at most eight images of each kind."""
    training = account.manifest.training
    sections = [
        _head(account),
        _cards(account.manifest),
        _notes(account),
        _scores(account),
        _detection(account),
        _images(account),
        _curve(account.curve, training.best_epoch) if training and account.curve else "",
        _inputs(account.manifest.inputs) if account.manifest.inputs else "",
        _origin(account),
    ]
    return page(f"Training on {account.folder}", sections)


def _head(account: ReportContent) -> str:
    manifest = account.manifest
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"<h1>Training on {escape(account.folder)}</h1>"
        f'<p class="quiet">{escape(manifest.architecture.name)} · {made} · model <code>{account.sha256[:12]}</code></p>'
    )


def _cards(manifest: Manifest) -> str:
    calibration, metrics = manifest.threshold.calibration, manifest.metrics
    cards = []
    if calibration is not None:
        low, high = calibration.confidence_interval
        rate, interval = calibration.expected_false_reject_rate, f"{low:.1%} to {high:.1%}"
        cards.append(
            card(f"{rate:.1%}", "of good parts will be rejected", f"{calibration.confidence:.0%} interval {interval}")
        )
    if metrics is None:
        nothing = "add test/good and test/&lt;type of defect&gt;"
        return f'<div class="cards">{"".join(cards)}{card("–", "detection is not measured", nothing)}</div>'
    for rate, of, what in (
        (metrics.recall, metrics.defective, "defective test parts caught"),
        (metrics.false_reject_rate, metrics.good, "good test parts rejected"),
    ):
        cards.append(card(f"{round(rate * of)} of {of}", what, _share(round(rate * of), of)))
    low, high = metrics.auroc_interval
    cards.append(card(f"{metrics.auroc:.3f}", "AUROC on the test parts", f"95% interval {low:.3f} to {high:.3f}"))
    return f'<div class="cards">{"".join(cards)}</div>'


def _share(count: int, of: int) -> str:
    """A share with its exact 95 % interval (Clopper & Pearson, Biometrika 26 (1934), 404-413)."""
    interval = stats.binomtest(count, of).proportion_ci(0.95, method="exact")
    return f"{count / of:.1%}, 95% interval {interval.low:.1%} to {interval.high:.1%}"


def _notes(account: ReportContent) -> str:
    return notes([note[:1].upper() + note[1:] for note in (*account.notes, *_warnings(account.manifest))])


def _warnings(manifest: Manifest) -> list[str]:
    """What the figures themselves say against them."""
    warnings = []
    metrics, calibration = manifest.metrics, manifest.threshold.calibration
    if metrics is not None:
        name = max(metrics.controls, key=metrics.controls.__getitem__, default=None)
        if name is not None and metrics.controls[name] >= metrics.auroc:
            warnings.append(
                f"A trivial score, {_CONTROLS.get(name, name)}, tells the test parts apart as well as the detector "
                f"({metrics.controls[name]:.3f} against {metrics.auroc:.3f}): these test parts prove nothing."
            )
    if calibration is not None and calibration.confidence_interval[1] > 3 * calibration.false_reject_rate:
        warnings.append(
            f"The threshold comes from only {calibration.sample_size} parts, so the promise is wide: calibrate again "
            "with `linewatch calibrate` once there are more good parts."
        )
    return warnings


def _scores(account: ReportContent) -> str:
    manifest, tested = account.manifest, account.tested
    strips = [Strip("Good, held out", "held-out", account.held_out)]
    if tested is not None:
        strips.append(Strip("Good, test", "good", tested.good_scores))
        strips.append(Strip("Defective, test", "defective", tested.defective_scores))
    marks = [Mark("threshold", manifest.threshold.value)]
    if manifest.review_threshold is not None:
        marks.append(Mark("review from", manifest.review_threshold))
    return f"<h2>Scores and threshold</h2>{_expected_rate(manifest)}{histograms(strips, marks)}"


def _expected_rate(manifest: Manifest) -> str:
    calibration = manifest.threshold.calibration
    if calibration is None:
        return "<p>The threshold was set by hand; what it costs is not known.</p>"
    low, high = calibration.confidence_interval
    return (
        f"<p>A part is <b>ng</b> when its score is {manifest.threshold.value:.6g} or more. "
        f"{_review(manifest)}The threshold comes from {calibration.sample_size} good parts{_sample(calibration)} that "
        "the detector was not trained on. Of new good parts like these, about "
        f"{calibration.expected_false_reject_rate:.1%} will be rejected; with {calibration.confidence:.0%} confidence "
        f"the share lies between {low:.1%} and {high:.1%}. "
        "The promise holds as long as parts, light and camera stay what they were.</p>"
    )


def _review(manifest: Manifest) -> str:
    if manifest.review_threshold is None:
        return ""
    calibration = manifest.threshold.calibration
    band = calibration.review if calibration is not None else None
    cost = f", for about {band.expected_rate:.1%} of good parts, those rejected included" if band is not None else ""
    return f"From {manifest.review_threshold:.6g} on it is <b>review</b>: a person decides{cost}. "


def _sample(calibration: Calibration) -> str:
    """How many parts or lots a sample is of, where that is known and makes a difference."""
    if calibration.groups is None or calibration.groups == calibration.sample_size:
        return ""
    worth = calibration.effective_sample_size
    return f" of {calibration.groups} groups{f', worth {worth:.0f} independent ones,' if worth is not None else ''}"


def _detection(account: ReportContent) -> str:
    tested = account.tested
    if tested is None:
        return ""
    metrics = tested.metrics
    own = Control(metrics.auroc, metrics.auroc_interval)
    rows = [_auroc_row(account.manifest.architecture.name, own, "own")]
    rows += [_auroc_row(f"control: {_CONTROLS.get(name, name)}", one, "") for name, one in tested.controls.items()]
    located = ""
    if metrics.pixel_auroc is not None and metrics.aupro is not None:
        located = (
            f"<p>Where the defects are: pixel AUROC {metrics.pixel_auroc:.3f}, "
            f"AUPRO {metrics.aupro:.3f} (to 30 % false positives), from the masks in ground_truth/.</p>"
        )
    kinds = "".join(
        f'<tr><td>{escape(kind)}</td><td class="n">{count} of {of}</td><td>{_share(count, of)}</td></tr>'
        for kind, (count, of) in tested.caught.items()
    )
    return (
        "<h2>Detection</h2>"
        '<table><tr><th>Score</th><th class="n">AUROC</th><th class="n">95% interval</th></tr>'
        f"{''.join(rows)}</table>"
        '<p class="quiet">The controls need no network. A detector that does not beat them has shown nothing.</p>'
        f"{located}<h3>Caught at the threshold, by type of defect</h3>"
        f'<table><tr><th>Type</th><th class="n">Caught</th><th>Share</th></tr>{kinds}</table>'
    )


def _auroc_row(name: str, one: Control, kind: str) -> str:
    low, high = one.interval
    return (
        f'<tr class="{kind}"><td>{escape(name)}</td><td class="n">{one.auroc:.3f}</td>'
        f'<td class="n">{low:.3f} to {high:.3f}</td></tr>'
    )


def _images(account: ReportContent) -> str:
    threshold = account.manifest.threshold.value
    rows = (
        ("Missed defects, the least suspicious first", account.gallery.missed),
        ("Best-caught defects", account.gallery.best_caught),
        ("Good parts that look worst", account.gallery.good),
    )
    shown = "".join(
        f'<h3>{title}</h3><div class="images">{"".join(_figure(one, threshold) for one in exhibits)}</div>'
        for title, exhibits in rows
        if exhibits
    )
    if not shown:
        return ""
    return (
        "<h2>Images</h2>"
        '<p class="quiet">Left as it is, right with its heat, in units of the threshold: '
        f"{heat_scale()}. "
        "The line is drawn at 1, a third of the scale, which no part below the threshold reaches.</p>"
        f"{shown}"
    )


def _figure(one: ReportExample, threshold: float) -> str:
    ratio = f", {one.score / threshold:.2f} × threshold" if threshold > 0 else ""
    verdict = ", ng" if one.score >= threshold else ""
    return (
        f"<figure><div>{image(one.image, 'jpeg', 'the part')}{image(one.heatmap, 'jpeg', 'its heatmap')}</div>"
        f"<figcaption>{escape(one.name)}<span>{one.score:.4g}{ratio}{verdict}</span></figcaption></figure>"
    )


def _curve(curve: Sequence[Epoch], best: int) -> str:
    lines = [
        ("training", "good", [epoch.training_loss for epoch in curve]),
        ("validation", "held-out", [epoch.validation_loss for epoch in curve]),
    ]
    drawable = all(np.isfinite(values).all() for _, _, values in lines)
    chart = curves(lines, marked=best, axis="loss") if drawable else "<p>The losses are not finite.</p>"
    return f'<h2>Training</h2>{chart}<p class="quiet">The weights are those of epoch {best} of {len(curve)}.</p>'


def _inputs(inputs: InputRanges) -> str:
    rows = "".join(
        f"<tr><td>{_MEASURES.get(name, escape(name))}</td><td>{_range(name, value)}</td></tr>"
        for name, value in inputs.model_dump(exclude={"sample_size"}).items()
    )
    return (
        "<h2>What an image must be like</h2>"
        f"<p>Learned from {inputs.sample_size} good parts; an image beyond is marked <b>review</b> with the reason, "
        "whatever its score.</p>"
        f"<table><tr><th>Measure</th><th>Expected</th></tr>{rows}</table>"
    )


def _range(name: str, value: float | tuple[float, float]) -> str:
    if isinstance(value, tuple):
        return f"{value[0]:.3g} to {value[1]:.3g}"
    return f"{'at least' if name == 'sharpness' else 'at most'} {value:.3g}"


def _origin(account: ReportContent) -> str:
    manifest, training = account.manifest, account.manifest.training
    origin: dict[str, object] = {"Model, SHA-256": account.sha256}
    options: Mapping[str, object] = {}
    if training is not None:
        parts = ", ".join(f"{count} {name}" for name, count in training.parts.items())
        origin |= {"Good images": parts, "Unreadable": training.unreadable}
        if training.groups is not None:
            origin["Groups, near-duplicates"] = f"{training.groups}, {training.near_duplicates}"
        origin |= {"Training set, SHA-256": training.training_set_digest, "Device": training.device}
        options = training.options
    size = f"{manifest.preprocessing.width} × {manifest.preprocessing.height} pixels"
    origin |= {"Prepared to": size, "Score": manifest.score_method}
    if (backbone := manifest.backbone) is not None:
        origin["Backbone"] = f"{backbone.name}, weights from {backbone.source}, licence: {backbone.licence}"
    return (
        f"<h2>Where it comes from</h2>{facts(origin)}{_unreadable(account.unreadable)}"
        f'<div class="columns"><div><h3>Options</h3>{facts(options)}</div><div><h3>Network</h3>'
        f"{facts(manifest.architecture.settings)}<h3>Libraries</h3>{facts(manifest.libraries)}</div></div>"
    )


def _unreadable(files: Sequence[tuple[str, str]]) -> str:
    if not files:
        return ""
    listed = "".join(f"<tr><td>{escape(name)}</td><td>{escape(why)}</td></tr>" for name, why in files[:_LISTED])
    more = f'<p class="quiet">and {len(files) - _LISTED} more</p>' if len(files) > _LISTED else ""
    return f"<h3>Images that could not be read</h3><table><tr><th>File</th><th>Why</th></tr>{listed}</table>{more}"
