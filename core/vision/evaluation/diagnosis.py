"""Explain the score of an image: its prepared version, the panels of the detector and the heatmap, side by side."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from core.models.verdicts import Verdict, decide_verdict, is_anomaly
from core.vision.detectors.detector import Detector
from core.vision.evaluation.evaluation import ScoreNotFinite
from core.vision.evaluation.heatmap import SATURATED_FROM, legend, overlay, resize_map, scale_to_threshold
from core.vision.input.bit_depth import decode_visible
from core.vision.input.input_checks import InputRanges, failed_checks, measure_image
from core.vision.input.map_placement import place_map
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.preprocessing import prepare

_HEIGHT, _WIDEST = 360, 720
_MARGIN, _LINE, _SCALE_HEIGHT = 16, 22, 16
_NARROWEST_SHEET = 900
_PAPER, _INK, _SOFT = (250, 250, 250), (24, 28, 34), (95, 104, 115)
_MARKS = (0.5, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of an image.

    Attributes:
        score, threshold, review_threshold, verdict, is_anomaly, reasons: as in an inspection.
        prepared: the input of the detector.
        panels: see `Detector.diagnosis`.
        overlay: the heatmap over the image, RGB.
    """

    score: float
    threshold: float
    review_threshold: float | None
    verdict: Verdict
    is_anomaly: bool
    reasons: list[str]
    prepared: PreparedImage
    panels: dict[str, NDArray[Any]]
    overlay: Image.Image


def diagnose(
    detector: Detector,
    data: bytes,
    *,
    threshold: float,
    review_threshold: float | None = None,
    inputs: InputRanges | None = None,
) -> Diagnosis:
    """Score an encoded image as a worker does, and return the data that explains the score.

    Args:
        data: an encoded image.
        threshold, review_threshold: see `core.models.verdicts.decide_verdict`.
        inputs: the ranges for the input checks; None checks only the bit depth.

    Raises:
        core.intake.image_decoding.Undecodable: the image cannot be decoded.
        ScoreNotFinite: the score is not finite.
    """
    prepared = prepare(data, detector.preprocessing, max_pixels=detector.max_pixels)
    scored = detector.score([prepared.pixels])
    score = float(scored.scores[0])
    if not math.isfinite(score):
        raise ScoreNotFinite(f"the score is {score}, so there is no verdict: do not use this version for this image")
    failed = [] if inputs is None else failed_checks(measure_image(prepared), inputs)
    reasons = [*prepared.reasons, *failed]
    image = decode_visible(data, detector.preprocessing.bit_depth, max_pixels=detector.max_pixels)
    return Diagnosis(
        score=score,
        threshold=threshold,
        review_threshold=review_threshold,
        verdict=decide_verdict(score, threshold, review_threshold, reasons),
        is_anomaly=is_anomaly(score, threshold),
        reasons=reasons,
        prepared=prepared.pixels,
        panels=detector.diagnosis(prepared.pixels),
        overlay=overlay(image, place_map(scale_to_threshold(scored.maps[0], score, threshold), prepared)),
    )


def describe(diagnosis: Diagnosis) -> str:
    """Return the score, threshold, verdict and reasons as one line for people."""
    ratio = f" ({diagnosis.score / diagnosis.threshold:.2f} × the threshold)" if diagnosis.threshold > 0 else ""
    review = "" if diagnosis.review_threshold is None else f", review from {diagnosis.review_threshold:.6g}"
    because = f", because of {', '.join(diagnosis.reasons)}" if diagnosis.reasons else ""
    return (
        f"{diagnosis.verdict}{because}: score {diagnosis.score:.6g}{ratio}, threshold {diagnosis.threshold:.6g}{review}"
    )


def draw_sheet(diagnosis: Diagnosis, title: str) -> Image.Image:
    """Draw an RGB image for people: title, verdict, the panels in a row with their names, and the scale of the heatmap.

    Maps are grey, from 0 to their highest value, which is part of their name. Only the colours of the heatmap can be
    compared between images.
    """
    panels = [("as the detector sees it", _panel(Image.fromarray(diagnosis.prepared.round().astype(np.uint8))))]
    for name, content in diagnosis.panels.items():
        panels.append(_map_panel(name, content) if content.ndim == 2 else (name, _panel(Image.fromarray(content))))
    panels.append(("where it is unlike good parts", _panel(diagnosis.overlay)))
    width = max(sum(panel.width + _MARGIN for _, panel in panels) + _MARGIN, _NARROWEST_SHEET)
    top = _MARGIN + 2 * _LINE + _MARGIN // 2
    scale_top = top + max(panel.height for _, panel in panels) + _LINE + _MARGIN
    out = Image.new("RGB", (width, scale_top + _SCALE_HEIGHT + _LINE + _MARGIN), _PAPER)
    _write(out, (_MARGIN, _MARGIN), title, size=17)
    _write(out, (_MARGIN, _MARGIN + _LINE), describe(diagnosis))
    _lay_out(out, panels, top)
    _draw_scale(out, scale_top)
    return out


def _panel(image: Image.Image) -> Image.Image:
    """Resize an image to the height of the panels, or smaller if it would be too wide."""
    factor = min(_HEIGHT / image.height, _WIDEST / image.width)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)


def _map_panel(name: str, values: NDArray[np.float32]) -> tuple[str, Image.Image]:
    """Return the name of a map with the value of white, and the map as a grey panel."""
    finite = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    top = float(finite.max())
    frame = _panel(Image.new("L", (values.shape[1], values.shape[0]))).size
    grey = np.clip(resize_map(finite, frame) / (top if top > 0 else 1.0), 0, 1) * 255
    return f"{name}, white is {top:.3g}", Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")


def _lay_out(out: Image.Image, panels: Sequence[tuple[str, Image.Image]], top: int) -> None:
    left = _MARGIN
    for name, panel in panels:
        out.paste(panel, (left, top))
        _write(out, (left, top + panel.height + 3), name, size=13, ink=_SOFT, widest=panel.width)
        left += panel.width + _MARGIN


def _draw_scale(out: Image.Image, top: int) -> None:
    """Draw the scale of the heatmap, in multiples of the threshold."""
    scale = legend(2 * _HEIGHT, _SCALE_HEIGHT)
    out.paste(scale, (_MARGIN, top))
    for mark in _MARKS:
        left = _MARGIN + round(mark / SATURATED_FROM * scale.width)
        _write(out, (left, top + _SCALE_HEIGHT + 3), f"{mark:g} ×", size=13, ink=_SOFT, anchor="ma")
    _write(out, (2 * _MARGIN + scale.width, top), "the threshold", size=13, ink=_SOFT)


def _write(
    out: Image.Image,
    position: tuple[int, int],
    text: str,
    *,
    size: int = 14,
    ink: tuple[int, int, int] = _INK,
    anchor: str = "la",
    widest: int | None = None,
) -> None:
    """Write one line. Reduce the font size if it would be wider than `widest` pixels or than the image."""
    text = text.replace("×", "x")  # Pillow's default font does not have the character
    room = widest if widest is not None else out.width - position[0] - _MARGIN // 2
    drawing = ImageDraw.Draw(out)
    font = ImageFont.load_default(size)
    while drawing.textlength(text, font=font) > room and size > 7:
        size -= 1
        font = ImageFont.load_default(size)
    drawing.text(position, text, fill=ink, font=font, anchor=anchor)
