"""Learn from images of good parts whether images can be aligned, and how."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.vision.input.alignment import Alignment, encode_reference, find_motion, small_grey
from core.vision.input.geometry import Affine, resample
from core.vision.input.preprocessing import PreparedImage
from core.vision.input.template import Grey, Motion, Template, noise_power, resample_grey, standardise

_MAX_IMAGES: Final = 200
_MIN_IMAGES: Final = 8
_SIDE: Final = 64
"""The references have the area of a square of this side, in pixels. With 96, the shift was found a third better on
solar cells, at twice the cost."""
_MIN_SIDE: Final = 16
_ROUNDS: Final = 3
_MAX_KINDS: Final = 3
_SMALLEST_KIND: Final = 0.05
"""Share of the images that a kind of part has at least."""
_BETTER_MATCH: Final = 0.02
"""A further kind must raise the mean match by this."""
_TESTED_IMAGES: Final = 40
_TESTED_SHIFT, _TESTED_TURN = 0.04, 4.0
_LARGEST_ERROR: Final = (0.003, 0.3)
"""Median error of the shift, as a share of the side, and of the turn, in degrees, with which alignment is of use."""
_WITHIN_SHARE: Final = 0.99
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
        templates: one for each kind.
        noise: see `Alignment.noise`.
        of: the kind of each image.
        match: the mean match.
    """

    templates: tuple[Template, ...]
    noise: NDArray[np.float64]
    of: NDArray[np.intp]
    aligned: Grey
    match: float


def learn_alignment(images: Sequence[PreparedImage], image_size: tuple[int, int]) -> AlignmentLearning:
    """Learn how to align images from prepared images of good parts, at most 200 of them.

    The references are means of aligned images, found in rounds. Then known shifts, up to 4 % of each side, and turns,
    up to 4°, of some of the images must be found again: with a median error below 0.3 % and 0.3°, and in 99 % of the
    images within the bounds.

    Args:
        images: prepared without alignment, all of one size.
        image_size: (width, height) of a typical image as sent, or of its cut: its pixels are square.
    """
    step = max(len(images) / _MAX_IMAGES, 1)
    chosen = [images[int(index * step)] for index in range(min(len(images), _MAX_IMAGES))]
    if len(chosen) < _MIN_IMAGES:
        return AlignmentLearning(None, f"{len(chosen)} images are too few to learn how to align them")
    greys = standardise(np.stack([small_grey(image, _reference_size(image_size)) for image in chosen]))
    if float(greys.std(axis=0).max()) < 1e-3 or float(np.abs(greys.mean(axis=0)).max()) < 1e-3:
        return AlignmentLearning(None, "the images show nothing to align them by")
    kinds = _find_kinds(greys)
    motions = [find_motion(image, kinds.templates)[0] for image in chosen]
    smallest = _MATCH_SHARE * max(float(np.quantile([motion.match for motion in motions], 0.01)), 0.0)
    alignment = Alignment(
        references=tuple(encode_reference(template.mean) for template in kinds.templates),
        noise=tuple((kinds.noise / kinds.noise.max()).tolist()),
        largest_shift=_LARGEST_MOTION[0],
        largest_turn=_LARGEST_MOTION[1],
        smallest_match=smallest,
    )
    return _test(chosen, alignment, image_size)


def _reference_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return (columns, rows) of the references."""
    aspect = image_size[0] / image_size[1]
    columns, rows = _SIDE * math.sqrt(aspect), _SIDE / math.sqrt(aspect)
    return max(round(columns), _MIN_SIDE), max(round(rows), _MIN_SIDE)


def _find_kinds(greys: Grey) -> _Kinds:
    """Divide images into kinds as long as that makes them match their references better."""
    kinds = _align_kinds(greys, np.zeros(len(greys), dtype=np.intp))
    while len(kinds.templates) < _MAX_KINDS:
        divided = _align_kinds(greys, _divide(kinds))
        smallest = int(np.bincount(divided.of, minlength=len(divided.templates)).min())
        if smallest < max(_SMALLEST_KIND * len(greys), _MIN_IMAGES) or divided.match < kinds.match + _BETTER_MATCH:
            break
        kinds = divided
    return kinds


def _divide(kinds: _Kinds) -> NDArray[np.intp]:
    """Return the kinds with the most different one divided in two, by the main direction of the differences."""
    differences = kinds.aligned - np.stack([template.mean for template in kinds.templates])[kinds.of]
    power = [float((differences[kinds.of == kind] ** 2).sum()) for kind in range(len(kinds.templates))]
    members = np.flatnonzero(kinds.of == int(np.argmax(power)))
    flat = differences[members].reshape(len(members), -1)
    main = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[0][:, 0]
    divided = kinds.of.copy()
    divided[members[main > np.median(main)]] = len(kinds.templates)
    return divided


def _align_kinds(greys: Grey, of: NDArray[np.intp]) -> _Kinds:
    """Align the images of each kind with their mean, and assign them to the kind that they match best, in rounds."""
    count = int(of.max()) + 1
    aligned, match = greys, 0.0
    for _ in range(_ROUNDS + 1):
        means = np.stack([aligned[of == kind].mean(axis=0) if (of == kind).any() else greys[0] for kind in range(count)])
        noise = np.maximum(noise_power(aligned - means[of], _noise_bins(greys)), 1e-9)
        templates = tuple(Template(mean, noise) for mean in means)
        motions = [[template.find(grey) for template in templates] for grey in greys]
        of = np.array([np.argmax([motion.match for motion in each]) for each in motions])
        best = [each[kind] for each, kind in zip(motions, of.tolist(), strict=True)]
        match = float(np.mean([motion.match for motion in best]))
        aligned = _aligned(greys, _centred(best, of))
    return _Kinds(templates, noise, of, aligned, match)


def _noise_bins(greys: Grey) -> int:
    return math.ceil(max(greys.shape[1:]) / math.sqrt(2))


def _centred(motions: Sequence[Motion], of: NDArray[np.intp]) -> list[Motion]:
    """Return the motions less the mean one of their kind, so that a reference stays where the parts are."""
    values = np.array([(motion.right, motion.down, motion.degrees) for motion in motions])
    for kind in np.unique(of):
        values[of == kind] -= values[of == kind].mean(axis=0)
    return [Motion(right, down, degrees, 0.0) for right, down, degrees in values.tolist()]


def _aligned(greys: Grey, motions: Sequence[Motion]) -> Grey:
    rows, columns = greys.shape[1:]
    aligned = [
        resample_grey(grey, motion.affine(columns, rows)) for grey, motion in zip(greys, motions, strict=True)
    ]
    return standardise(np.stack(aligned))


def _test(images: Sequence[PreparedImage], alignment: Alignment, image_size: tuple[int, int]) -> AlignmentLearning:
    """Test whether known motions of good parts are found again."""
    random = np.random.default_rng(0)
    tested = images[:: max(len(images) // _TESTED_IMAGES, 1)][:_TESTED_IMAGES]
    templates = alignment.templates()
    errors, within = [], 0
    for image in tested:
        start, _ = find_motion(image, templates)
        right, down = random.uniform(-_TESTED_SHIFT, _TESTED_SHIFT, 2).tolist()
        known = Motion(right, down, float(random.uniform(-_TESTED_TURN, _TESTED_TURN)), 1.0)
        found, _ = find_motion(_moved(image, known, image_size), templates)
        error = _error(start, known, found, image_size)
        errors.append(error)
        within += error[0] <= alignment.largest_shift and found.match >= alignment.smallest_match
    shift, turn = np.median(errors, axis=0).tolist()
    share = within / len(tested)
    note = f"known shifts and turns were found with a median error of {shift:.2%} of the side and {turn:.2f}°"
    if shift > _LARGEST_ERROR[0] or turn > _LARGEST_ERROR[1] or share < _WITHIN_SHARE:
        return AlignmentLearning(None, f"{note}, and {1 - share:.0%} were not found: images are not aligned")
    return AlignmentLearning(alignment, note)


def _moved(image: PreparedImage, motion: Motion, image_size: tuple[int, int]) -> PreparedImage:
    """Return the image as it would be if the part had moved. The edge is repeated."""
    height, width, _ = image.shape
    channels = [
        np.asarray(resample(Image.fromarray(channel), _scaled(motion, (width, height), image_size).inverse(), (width, height)))
        for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, axis=2)


def _scaled(motion: Motion, size: tuple[int, int], image_size: tuple[int, int]) -> Affine:
    """Return the map of a motion in a prepared image of this size, whose pixels may not be square."""
    to_prepared = Affine.scaling(size[0] / image_size[0], size[1] / image_size[1])
    return to_prepared @ motion.affine(*image_size) @ to_prepared.inverse()


def _error(start: Motion, known: Motion, found: Motion, image_size: tuple[int, int]) -> tuple[float, float]:
    """Return how far a motion is from the known one after the start: the shift of the centre as a share of the side,
    and the turn in degrees."""
    width, height = image_size
    expected = known.affine(width, height) @ start.affine(width, height)
    middle = np.array([width / 2, height / 2])
    shift = np.abs(found.affine(width, height).apply(middle) - expected.apply(middle)) / (width, height)
    return float(shift.max()), abs(found.degrees - known.degrees - start.degrees)
