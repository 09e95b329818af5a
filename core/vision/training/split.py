"""Split the images of good parts into training, validation and calibration. Groups stay together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.vision.training.dataset import InvalidDataset


@dataclass(frozen=True)
class Split:
    """Indices of good images, disjoint and each in ascending order.

    Attributes:
        training: the detector is fitted to these images.
        validation: they decide when training stops.
        calibration: held out from both; they determine only the threshold.
    """

    training: list[int]
    validation: list[int]
    calibration: list[int]


def split(groups: Sequence[int], *, seed: int, validation: float, calibration: float, min_calibration: int) -> Split:
    """Split good images at random, without dividing a group.

    Whole groups are drawn until there are enough images for calibration, and then for validation. All others are used
    for training. The largest group is always among these, so that one large lot cannot replace the training images. If
    there are only a few lots, calibration gets fewer images, so that one lot remains for validation.

    Args:
        groups: the group of each of the N images; see `core.vision.training.grouping`.
        seed: of the random order.
        validation, calibration: shares of N, 0 to 1. Validation gets at least one image, calibration at least
            `min_calibration`.

    Raises:
        InvalidDataset: there are too few images or groups for all three.
    """
    count = len(groups)
    for_calibration = max(round(count * calibration), min_calibration)
    for_validation = max(round(count * validation), 1)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    all_groups = list(members.values())
    shuffled = [all_groups[index] for index in np.random.default_rng(seed).permutation(len(all_groups))]
    largest = max(range(len(shuffled)), key=lambda index: (len(shuffled[index]), index), default=-1)
    training = list(shuffled.pop(largest)) if shuffled else []
    validation_images: list[int] = []
    calibration_images: list[int] = []
    for remaining, group_of_images in zip(range(len(shuffled), 0, -1), shuffled, strict=True):
        last_to_validate = remaining == 1 and not validation_images and len(calibration_images) >= min_calibration
        if len(calibration_images) < for_calibration and not last_to_validate:
            calibration_images += group_of_images
        elif len(validation_images) < for_validation:
            validation_images += group_of_images
        else:
            training += group_of_images
    if not training or not validation_images or len(calibration_images) < min_calibration:
        raise InvalidDataset(
            f"{count} images of good parts ({len(members)} groups of different ones) are too few: "
            f"{for_calibration} are held out to calibrate and {for_validation} to validate, and groups stay together; "
            "add images of other parts, or use a higher false-reject rate"
        )
    return Split(sorted(training), sorted(validation_images), sorted(calibration_images))
