"""Learn from images of good parts whether images can be aligned, and how."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.vision.input.alignment import ROUNDING, Alignment, encode_reference, find_match, small_grey
from core.vision.input.geometry import Affine, resample
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.template import Grey, Motion, Templates, noise_power, resample_grey, standardise

_MAX_IMAGES: Final = 120
_MIN_IMAGES: Final = 10
_FLAT: Final = 1e-3
_SIDE: Final = 64
"""The references have the area of a square of this side, in pixels. With 96, the shift was found a third better on
solar cells, at twice the cost."""
_MIN_SIDE: Final = 16
_ROUNDS: Final = 3
_MAX_KINDS: Final = 3
_SMALLEST_KIND: Final = 0.05
_SMALLEST_KIND_IMAGES: Final = 8
"""Share and number of the images that a kind of part has at least."""
_BETTER_MATCH: Final = 0.02
"""A further kind must raise the mean match by this."""
_TESTED_IMAGES: Final = 40
_TESTS_PER_IMAGE: Final = 3
_TESTED_SHIFT, _TESTED_TURN = 0.04, 4.0
_LARGEST_ERROR: Final = (0.003, 0.3)
"""Median error of the shift, as a share of the side, and of the turn, in degrees, with which alignment is of use."""
_FOUND_WITHIN: Final = 0.03
"""Largest error of a shift, as a share of the side, with which it counts as found."""
_MISSED_SHARE: Final = 0.05
_SMALLEST_MOTION: Final = (0.01, 0.75)
"""Shift and turn. Training images are augmented by a little more. When images were resampled for smaller ones, too, the
AUROC on the development half of elpv poly was 0.005 lower."""
_LARGEST_MOTION: Final = (0.05, 5.0)
_MATCH_SHARE: Final = 0.5
"""Images must match at least half as well as the worst hundredth of good parts. Defects match less than good parts."""


@dataclass(frozen=True)
class AlignmentLearning:
    """What was learned about aligning good parts.

    Attributes:
        alignment: how to align images; None if that does not work.
        note: one line for people: how well it works.
    """

    alignment: Alignment | None
    note: str


@dataclass(frozen=True)
class _Kinds:
    """Good parts in kinds that look alike.

    Attributes:
        templates: of all kinds.
        noise: see `Alignment.noise`.
        of: the kind of each image: (N,).
        aligned: the images, aligned: (N, rows, columns).
        correlation: of the images with their template, the mean of all.
    """

    templates: Templates
    noise: NDArray[np.float64]
    of: NDArray[np.intp]
    aligned: Grey
    correlation: float

    @property
    def sizes(self) -> NDArray[np.intp]:
        """The number of images of each kind."""
        return np.bincount(self.of, minlength=len(self.templates.means))


def learn_alignment(images: Sequence[PreparedImage], image_size: tuple[int, int]) -> AlignmentLearning:
    """Learn how to align images from prepared images of good parts, at most 120 of them.

    The references are means of aligned images, found in rounds. First they are learned from every other image, and
    known shifts, up to 4 % of each side, and turns, up to 4°, of the remaining images must be found again: 95 % of
    them, and with a median error of at most 0.3 % and 0.3°. Then they are learned from all images.

    Args:
        images: prepared without alignment, all of one size.
        image_size: (width, height) of a typical image as sent, or of its cut: its pixels are square.
    """
    step = max(len(images) / _MAX_IMAGES, 1)
    chosen = [images[int(index * step)] for index in range(min(len(images), _MAX_IMAGES))]
    if len(chosen) < _MIN_IMAGES:
        return AlignmentLearning(None, f"{len(chosen)} images are too few to learn how to align them")
    greys = standardise(np.stack([small_grey(image, _reference_size(image_size)) for image in chosen]))
    if float(np.abs(greys.mean(axis=0)).max()) < _FLAT:
        return AlignmentLearning(None, "the images show nothing to align them by")
    templates = _find_kinds(greys[::2]).templates
    correlations = [templates.find(grey).correlation for grey in greys[1::2]]
    smallest = _MATCH_SHARE * max(float(np.quantile(correlations, 0.01)), 0.0)
    test = _test(chosen[1::2], templates, smallest, image_size)
    if not test.passed:
        return AlignmentLearning(None, f"{test.note}: images are not aligned")
    kinds = _find_kinds(greys)
    alignment = Alignment(
        references=tuple(encode_reference(mean) for mean in kinds.templates.means),
        noise=tuple((kinds.noise / kinds.noise.max()).tolist()),
        smallest_shift=_SMALLEST_MOTION[0],
        smallest_turn=_SMALLEST_MOTION[1],
        largest_shift=_LARGEST_MOTION[0],
        largest_turn=_LARGEST_MOTION[1],
        smallest_match=smallest,
    )
    return AlignmentLearning(alignment, test.note)


def _reference_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (columns, rows) of the references."""
    aspect = image_size[0] / image_size[1]
    columns, rows = _SIDE * math.sqrt(aspect), _SIDE / math.sqrt(aspect)
    return max(round(columns), _MIN_SIDE), max(round(rows), _MIN_SIDE)


def _find_kinds(greys: Grey) -> _Kinds:
    """Divide images into kinds as long as that makes them match their references better."""
    kinds = _align_kinds(greys, np.zeros(len(greys), dtype=np.intp))
    while len(kinds.sizes) < _MAX_KINDS:
        divided = _align_kinds(greys, _divide(kinds))
        if divided.sizes.min() < max(_SMALLEST_KIND * len(greys), _SMALLEST_KIND_IMAGES):
            break
        if divided.correlation < kinds.correlation + _BETTER_MATCH:
            break
        kinds = divided
    return kinds


def _divide(kinds: _Kinds) -> NDArray[np.intp]:
    """Divide the kind whose images differ most from their mean, by the main direction in which they differ."""
    differences = kinds.aligned - kinds.templates.means[kinds.of]
    power = [float((differences[kinds.of == kind] ** 2).sum()) for kind in range(len(kinds.sizes))]
    members = np.flatnonzero(kinds.of == int(np.argmax(power)))
    flat = differences[members].reshape(len(members), -1)
    main = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[0][:, 0]
    divided = kinds.of.copy()
    divided[members[main > np.median(main)]] = len(kinds.sizes)
    return divided


def _align_kinds(greys: Grey, of: NDArray[np.intp]) -> _Kinds:
    """Align the images of each kind with their mean, and assign them to the kind that they match best, in rounds."""
    count = int(of.max()) + 1
    aligned = greys
    for _ in range(_ROUNDS):
        # A kind that has lost all its images starts again with the first one.
        members = [aligned[of == kind] if (of == kind).any() else greys[:1] for kind in range(count)]
        means = np.stack([each.mean(axis=0) for each in members])
        noise = np.maximum(noise_power(aligned - means[of], _noise_bins(greys)), ROUNDING**2 * means[0].size)
        templates = Templates(means, noise)
        matches = [templates.find(grey) for grey in greys]
        of = np.array([match.kind for match in matches])
        correlation = float(np.mean([match.correlation for match in matches]))
        aligned = _aligned(greys, _centred([match.motion for match in matches], of))
    return _Kinds(templates, noise, of, aligned, correlation)


def _noise_bins(greys: Grey) -> int:
    longest: int = max(greys.shape[1:])
    return math.ceil(longest / math.sqrt(2))


def _centred(motions: Sequence[Motion], of: NDArray[np.intp]) -> list[Motion]:
    """Return the motions less the mean one of their kind, so that a reference stays where the parts are."""
    values = np.array([(motion.right, motion.down, motion.degrees) for motion in motions])
    for kind in np.unique(of):
        values[of == kind] -= values[of == kind].mean(axis=0)
    return [Motion(right, down, degrees) for right, down, degrees in values.tolist()]


def _aligned(greys: Grey, motions: Sequence[Motion]) -> Grey:
    rows, columns = greys.shape[1:]
    aligned = [resample_grey(grey, motion.affine(columns, rows)) for grey, motion in zip(greys, motions, strict=True)]
    return standardise(np.stack(aligned))


@dataclass(frozen=True)
class _Test:
    """The result of a test, and a line about it for people."""

    passed: bool
    note: str


def _test(
    images: Sequence[PreparedImage], templates: Templates, smallest_match: float, image_size: tuple[int, int]
) -> _Test:
    """Test whether known motions of good parts, which the templates were not learned from, are found again."""
    random = np.random.default_rng(0)
    errors, found = [], 0
    for image in images[:: max(len(images) // _TESTED_IMAGES, 1)][:_TESTED_IMAGES]:
        start = find_match(image, templates).motion
        for _ in range(_TESTS_PER_IMAGE):
            right, down = random.uniform(-_TESTED_SHIFT, _TESTED_SHIFT, 2).tolist()
            known = Motion(right, down, float(random.uniform(-_TESTED_TURN, _TESTED_TURN)))
            match = find_match(_moved(image, known, image_size), templates)
            error = _error(start, known, match.motion, image_size)
            errors.append(error)
            found += max(error[:2]) <= _FOUND_WITHIN and match.correlation >= smallest_match
    shift, turn = float(np.median([error[:2] for error in errors])), float(np.median([error[2] for error in errors]))
    missed = 1 - found / len(errors)
    note = (
        f"known shifts and turns of good parts were found with a median error of {shift:.2%} of the side and "
        f"{turn:.2f}°, {missed:.0%} were not found"
    )
    return _Test(shift <= _LARGEST_ERROR[0] and turn <= _LARGEST_ERROR[1] and missed <= _MISSED_SHARE, note)


def _moved(image: PreparedImage, motion: Motion, image_size: tuple[int, int]) -> PreparedImage:
    """Return the image as it would be if the part had moved. The edge is repeated."""
    height, width, _ = image.shape
    channels = [
        np.asarray(
            resample(Image.fromarray(channel), _scaled(motion, (width, height), image_size).inverse(), (width, height))
        )
        for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, axis=2)


def _scaled(motion: Motion, size: tuple[int, int], image_size: tuple[int, int]) -> Affine:
    """Return the map of a motion in a prepared image of this size, whose pixels may not be square."""
    to_prepared = Affine.scaling(size[0] / image_size[0], size[1] / image_size[1])
    return to_prepared @ motion.affine(*image_size) @ to_prepared.inverse()


def _error(start: Motion, known: Motion, found: Motion, image_size: tuple[int, int]) -> tuple[float, float, float]:
    """Return how far a motion is from the known one after the start: the shift of the centre right and down, as a share
    of the side, and the turn in degrees."""
    width, height = image_size
    expected = known.affine(width, height) @ start.affine(width, height)
    middle = np.array([width / 2, height / 2])
    right, down = np.abs(found.affine(width, height).apply(middle) - expected.apply(middle)) / (width, height)
    return float(right), float(down), abs(found.degrees - known.degrees - start.degrees)
