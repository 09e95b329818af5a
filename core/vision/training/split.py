"""The split: good parts are divided into training, validation and calibration, whole groups at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.vision.training.dataset import InvalidDataset


@dataclass(frozen=True)
class Split:
    """Indices of good images, disjoint and each in ascending order.

    Attributes:
        training: what the network sees.
        validation: decides when to stop.
        calibration: held out from both; only the threshold comes from it.
    """

    training: list[int]
    validation: list[int]
    calibration: list[int]


def split(groups: Sequence[int], *, seed: int, validation: float, calibration: float, least_calibration: int) -> Split:
    """Split good images by a seed; a group never lies on two sides.

    Whole groups are drawn by chance until there are enough images to calibrate, then to validate; the others are
    trained on, the largest group always among them, so that one large lot cannot take the training's place. Where
    there are only a few lots, fewer images calibrate, so that one is left to validate.

    Args:
        groups: of the N images, the group of each, see `core.vision.training.grouping`.
        validation, calibration: shares of N, 0 to 1; at least one image to validate and `least_calibration` to
            calibrate are taken.

    Raises:
        InvalidDataset: there are too few images, or too few groups, for all three.
    """
    count = len(groups)
    for_calibration = max(round(count * calibration), least_calibration)
    for_validation = max(round(count * validation), 1)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    whole = list(members.values())
    shuffled = [whole[index] for index in np.random.default_rng(seed).permutation(len(whole))]
    largest = max(range(len(shuffled)), key=lambda place: (len(shuffled[place]), place), default=-1)
    training, validating, calibrating = list(shuffled.pop(largest)) if shuffled else [], list[int](), list[int]()
    for left, group_of_images in zip(range(len(shuffled), 0, -1), shuffled, strict=True):
        last_to_validate = left == 1 and not validating and len(calibrating) >= least_calibration
        if len(calibrating) < for_calibration and not last_to_validate:
            calibrating += group_of_images
        elif len(validating) < for_validation:
            validating += group_of_images
        else:
            training += group_of_images
    if not training or not validating or len(calibrating) < least_calibration:
        raise InvalidDataset(
            f"{count} images of good parts ({len(members)} groups of different ones) are too few: "
            f"{for_calibration} are held out to calibrate and {for_validation} to validate, and a group stays whole; "
            "add images of other parts, or wish for a higher false-reject rate"
        )
    return Split(sorted(training), sorted(validating), sorted(calibrating))
