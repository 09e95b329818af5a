"""Robustness: how a change of the light, the optics or the fixture affects a detector that was not trained on it."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from core.intake.image_decoding import decode
from core.vision.detectors.detector import Detector
from core.vision.evaluation.metrics import Scores, auroc
from core.vision.input.input_checks import InputRanges, failed_checks, measure_image
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.preprocessing import prepare

Levels = NDArray[np.float32]


def _change_levels(change: Callable[[Levels], Levels]) -> Callable[[Image.Image], Image.Image]:
    """Return a function that applies the change to the float32 levels of an image, 0 to 255."""

    def changed(image: Image.Image) -> Image.Image:
        values = change(np.asarray(image, dtype=np.float32))
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))

    return changed


def _apply_gamma(gamma: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that raises the levels of an image, as shares of 255, to a power."""
    return _change_levels(lambda levels: np.float32(255) * (levels / np.float32(255)) ** np.float32(gamma))


def _shift(share: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that shifts an image right and down by a share of each side, repeating the edge."""

    def shifted(image: Image.Image) -> Image.Image:
        right, down = round(image.width * share), round(image.height * share)
        padded = np.pad(np.asarray(image), ((down, 0), (right, 0), (0, 0)), mode="edge")
        return Image.fromarray(padded[: image.height, : image.width])

    return shifted


def _rotate(degrees: float) -> Callable[[Image.Image], Image.Image]:
    """Return a function that rotates an image about its centre, repeating the edge."""

    def rotated(image: Image.Image) -> Image.Image:
        margin = round(0.1 * max(image.size))
        padded = Image.fromarray(np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="edge"))
        result = padded.rotate(degrees, Image.Resampling.BICUBIC)
        return result.crop((margin, margin, margin + image.width, margin + image.height))

    return rotated


def _add_noise(image: Image.Image) -> Image.Image:
    random = np.random.default_rng(image.width)
    return _change_levels(lambda levels: levels + random.normal(0, 5, levels.shape).astype(np.float32))(image)


def _compress(quality: int) -> Callable[[Image.Image], Image.Image]:
    """Return a function that compresses an image as JPEG."""

    def compressed(image: Image.Image) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return Image.open(out).convert("RGB")

    return compressed


CHANGES: Final[Mapping[str, Callable[[Image.Image], Image.Image]]] = {
    "as it is": lambda image: image,
    "gain × 0.8": _change_levels(lambda levels: levels * 0.8),
    "gain × 0.9": _change_levels(lambda levels: levels * 0.9),
    "gain × 1.1": _change_levels(lambda levels: levels * 1.1),
    "gain × 1.2": _change_levels(lambda levels: levels * 1.2),
    "gamma 0.8": _apply_gamma(0.8),
    "gamma 1.25": _apply_gamma(1.25),
    "offset - 10 levels": _change_levels(lambda levels: levels - 10),
    "offset + 10 levels": _change_levels(lambda levels: levels + 10),
    "blur, σ 1 pixel": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "blur, σ 2 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "JPEG, quality 90": _compress(90),
    "JPEG, quality 70": _compress(70),
    "JPEG, quality 50": _compress(50),
    "shift by 2 %": _shift(0.02),
    "shift by 3 %": _shift(0.03),
    "rotation by 1°": _rotate(1),
    "rotation by 3°": _rotate(3),
    "noise, σ 5 levels": _add_noise,
}


@dataclass(frozen=True)
class Robustness:
    """The results of one change. Rates are 0 to 1; `marked` is the share of good images that fail an input check,
    including those that are found while an image is prepared."""

    change: str
    auroc: float
    false_reject_rate: float
    recall: float
    marked: float


def measure_robustness(
    detector: Detector, inputs: InputRanges | None, threshold: float, good: Sequence[Path], defective: Sequence[Path]
) -> list[Robustness]:
    """Apply every change to the same images, in their stored size, and score them."""
    results = []
    for name, change in CHANGES.items():
        of_good, marked = _score_changed(detector, inputs, good, change)
        of_defective, _ = _score_changed(detector, inputs, defective, change)
        results.append(
            Robustness(
                name,
                auroc(of_good, of_defective),
                float((of_good >= threshold).mean()),
                float((of_defective >= threshold).mean()),
                marked,
            )
        )
    return results


def _score_changed(
    detector: Detector, inputs: InputRanges | None, paths: Sequence[Path], change: Callable[[Image.Image], Image.Image]
) -> tuple[Scores, float]:
    """Return the scores of the changed images, and the share of images that fail an input check."""
    images: list[PreparedImage] = []
    marked = 0
    for path in paths:
        out = io.BytesIO()
        change(decode(path.read_bytes(), max_pixels=detector.max_pixels)).save(out, "BMP")
        prepared = prepare(out.getvalue(), detector.preprocessing, max_pixels=detector.max_pixels)
        failed = failed_checks(measure_image(prepared), inputs) if inputs else []
        marked += bool(prepared.reasons or failed)
        images.append(prepared.pixels)
    scores = [detector.score(images[start : start + 16]).scores for start in range(0, len(images), 16)]
    return np.concatenate(scores), marked / len(paths)
