"""Measure detection on the `test/` images of a folder, and compare it with trivial controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.intake.image_decoding import Undecodable
from core.vision.bundle.manifest import Metrics
from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.evaluation.localisation import Mask, aupro, ground_truth, pixel_auroc
from core.vision.evaluation.metrics import Scores, auroc, auroc_interval, controls
from core.vision.input.map_placement import place_map
from core.vision.input.preprocessing import prepare
from core.vision.input.thumbnails import Thumbnails
from core.vision.training.dataset import ImageDataset, ScannedImages

_MINIBATCH = 32
AnomalyMap = NDArray[np.float32]
_LOCALISED = 200
"""The maximum number of images of each kind whose maps are compared with masks."""
_MAP_CELLS = 32_000_000


class ScoreNotFinite(ValueError):  # noqa: N818 - describes the fault
    """A score is not a finite number. The message is one line that names the image."""


@dataclass(frozen=True)
class Control:
    """The AUROC of a trivial score and its 95 % bootstrap interval."""

    auroc: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Evaluation:
    """The evaluation on `test/`.

    Attributes:
        good, defective: the images of each kind.
        good_scores, defective_scores: float64, (N,) and (M,), finite, in the same order.
        controls: the results of trivial scores, by name.
        caught: by type of defect, the number of images at or above the threshold, and the number of all images.
        metrics: as in the manifest.
        notes: lines for people about what could not be measured.
    """

    good: list[Path]
    defective: list[Path]
    good_scores: Scores
    defective_scores: Scores
    controls: dict[str, Control]
    caught: dict[str, tuple[int, int]]
    metrics: Metrics
    notes: list[str]


def score_dataset(detector: Detector, images: ImageDataset, progress: Callable[[int], None]) -> Scores:
    """Return the score of each image: float64, (N,).

    Args:
        progress: called with the number of images scored so far.

    Raises:
        ScoreNotFinite: a score is not finite.
    """
    return _score(detector, images, progress, maps_of=()).scores


def _score(
    detector: Detector, images: ImageDataset, progress: Callable[[int], None], *, maps_of: Sequence[int]
) -> ScoredImages:
    """Score images in minibatches. Keep only the maps of the images with the indices `maps_of`, in ascending order."""
    scores, maps, kept_indices = [np.empty(0)], [], set(maps_of)
    done = 0
    for minibatch in images.minibatches(_MINIBATCH):
        scored = detector.score(list(minibatch))
        scores.append(scored.scores)
        maps.append(scored.maps[[index for index in range(len(minibatch)) if done + index in kept_indices]])
        done += len(minibatch)
        progress(done)
    all_scores = np.concatenate(scores)
    if not np.isfinite(all_scores).all():
        path = images.paths[int(np.argmin(np.isfinite(all_scores)))]
        raise ScoreNotFinite(
            f"the score of {path} is not finite: train again with other options, or without that image"
        )
    return ScoredImages(all_scores, np.concatenate(maps))


def evaluate(
    detector: Detector,
    root: Path,
    good: ScannedImages,
    defective: ScannedImages,
    known: Thumbnails,
    threshold: float,
    progress: Callable[[int], None],
) -> Evaluation:
    """Measure a detector.

    Args:
        root: the folder in MVTec layout.
        good, defective: images of its `test/`, which the detector was not trained on; neither is empty.
        known: thumbnails of the training images.
        threshold: scores at or above it are `ng`.
        progress: called with the number of images scored so far.

    Raises:
        ScoreNotFinite: a score is not finite.
    """
    mapped = _choose_mapped(detector, root, good.paths, defective.paths)
    of_good = _score(detector, good.images, progress, maps_of=mapped.good)
    good_count = len(good.paths)
    of_defective = _score(
        detector, defective.images, lambda done: progress(good_count + done), maps_of=list(mapped.masks)
    )
    located = _localisation(
        detector,
        [*(good.paths[index] for index in mapped.good), *(defective.paths[index] for index in mapped.masks)],
        [*of_good.maps, *of_defective.maps],
        mapped,
    )
    good_scores, defective_scores = of_good.scores, of_defective.scores
    trivial = _controls(good, defective, known)
    return Evaluation(
        good=good.paths,
        defective=defective.paths,
        good_scores=good_scores,
        defective_scores=defective_scores,
        controls=trivial,
        caught=_caught(root, defective.paths, defective_scores >= threshold),
        metrics=Metrics(
            good=len(good.paths),
            defective=len(defective.paths),
            auroc=auroc(good_scores, defective_scores),
            auroc_interval=auroc_interval(good_scores, defective_scores),
            controls={name: control.auroc for name, control in trivial.items()},
            false_reject_rate=float((good_scores >= threshold).mean()),
            recall=float((defective_scores >= threshold).mean()),
            pixel_auroc=located.pixel_auroc,
            aupro=located.aupro,
        ),
        notes=located.notes,
    )


@dataclass(frozen=True)
class _Mapped:
    """The images whose maps are compared with masks: indices of good ones, and masks of defective ones by index."""

    good: list[int]
    masks: dict[int, Mask]
    notes: list[str]


@dataclass(frozen=True)
class _Located:
    pixel_auroc: float | None
    aupro: float | None
    notes: list[str]


def _choose_mapped(detector: Detector, root: Path, good: list[Path], defective: list[Path]) -> _Mapped:
    """Choose images evenly, so few that all maps and masks fit in memory. Choose none if there are no masks."""
    if not (root / "ground_truth").is_dir():
        return _Mapped([], {}, [])
    preprocessing = detector.preprocessing
    width, height = preprocessing.covered((1.0, 1.0))  # shares of an image; maps are put back onto the whole image
    max_maps = int(_MAP_CELLS * width * height) // (preprocessing.width * preprocessing.height)
    count = min(_LOCALISED, max(1, max_maps // 2))
    masks, notes = {}, []
    for index in _evenly(len(defective), count):
        try:
            mask = ground_truth(root, defective[index])
        except Undecodable as error:
            notes.append(f"the mask of {defective[index]} cannot be read and is not used: {error.detail}")
            continue
        if mask is not None:
            masks[index] = mask
    return _Mapped(_evenly(len(good), count) if masks else [], masks, notes)


def _evenly(length: int, count: int) -> list[int]:
    """Return at most `count` indices below `length`, evenly spread, in ascending order."""
    return [index * length // min(length, count) for index in range(min(length, count))]


def _localisation(detector: Detector, paths: list[Path], maps: Sequence[AnomalyMap], mapped: _Mapped) -> _Located:
    """Compare the maps of good images and then those of defective ones with the masks."""
    if not mapped.masks:
        return _Located(None, None, mapped.notes)
    preprocessing = detector.preprocessing
    if preprocessing.upright is not None or preprocessing.alignment is not None:  # masks are of the images as sent
        maps = [
            place_map(each, prepare(path.read_bytes(), preprocessing, max_pixels=detector.max_pixels))
            for each, path in zip(maps, paths, strict=True)
        ]
    masks = [*([None] * len(mapped.good)), *mapped.masks.values()]
    try:
        return _Located(pixel_auroc(maps, masks), aupro(maps, masks), mapped.notes)
    except ValueError as error:
        return _Located(None, None, [*mapped.notes, str(error)])


def _caught(root: Path, paths: list[Path], rejected: NDArray[np.bool_]) -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = {}
    for path, was_rejected in zip(paths, rejected.tolist(), strict=True):
        kind = path.relative_to(root / "test").parts[0]
        caught, total = counts.get(kind, (0, 0))
        counts[kind] = (caught + was_rejected, total + 1)
    return counts


def _controls(good: ScannedImages, defective: ScannedImages, known: Thumbnails) -> dict[str, Control]:
    of_good, of_defective = (controls(images.thumbnails, images.deviations, known) for images in (good, defective))
    return {
        name: Control(auroc(of_good[name], of_defective[name]), auroc_interval(of_good[name], of_defective[name]))
        for name in of_good
    }
