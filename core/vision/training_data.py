"""What a training is made from: the good images of a folder, read, checked and divided."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core.vision.calibration.calibration import SampleTooSmall, required_sample_size
from core.vision.detectors.registry import detector_classes
from core.vision.input.preprocessing import Preprocessing
from core.vision.progress import Progress, Tell
from core.vision.training.dataset import (
    MAX_CACHE_BYTES,
    Folder,
    InvalidDataset,
    ScannedImages,
    median_image_size,
    read,
    read_mvtec_folder,
)
from core.vision.training.grouping import GroupBy, Grouping, group_parts
from core.vision.training.split import Split, split
from core.vision.training_options import InvalidOptions, TrainingOptions

_UNREADABLE_SHARE = 0.1


@dataclass(frozen=True)
class TrainingData:
    """The folder, its images, their groups, and the split.

    Attributes:
        root: the folder in MVTec layout, and its `layout`.
        good: what was read of the good parts.
        grouping: of them; a group lies in one part.
        parts: indices into them.
        preprocessing: of all images.
    """

    root: Path
    layout: Folder
    good: ScannedImages
    grouping: Grouping
    parts: Split
    preprocessing: Preprocessing


def read_training_data(folder: Path, options: TrainingOptions, tell: Tell) -> TrainingData:
    """Read all good images and split them."""
    layout = read_mvtec_folder(folder)
    count = len(layout.good)
    for note in layout.notes:
        tell(Progress("reading", 0, count, note=note))
    typical = median_image_size(layout.good, max_pixels=options.max_pixels)
    preprocessing = _preprocessing(typical, options)
    good = read_images(layout.good, preprocessing, options, tell, stage="reading", max_cache_bytes=MAX_CACHE_BYTES)
    least = required_sample_size(options.false_reject_rate)
    if len(good.paths) < least + 2:
        raise SampleTooSmall(
            f"{len(good.paths)} good parts are too few for a false-reject rate of {options.false_reject_rate:g}: "
            f"{least} are held out to calibrate it, so at least {least + 2} are needed; some hundred are better"
        )
    if np.ptp(good.thumbnails, axis=0).max() == 0 and np.ptp(good.deviations) == 0:
        raise InvalidDataset(f"all {len(good.paths)} images of good parts are the same: add images of other parts")
    for note in _size_notes(good.sizes, preprocessing):
        tell(Progress("reading", count, count, note=note))
    grouping = _grouping(folder, good, options, tell)
    parts = split(
        grouping.groups,
        seed=options.seed,
        validation=options.validation_share,
        calibration=options.calibration_share,
        least_calibration=least,
    )
    return TrainingData(folder, layout, good, grouping, parts, preprocessing)


def _grouping(root: Path, good: ScannedImages, options: TrainingOptions, tell: Tell) -> Grouping:
    by = GroupBy.parse(options.group_by) if options.group_by is not None else None
    grouping = group_parts(good.paths, root, good.digests, good.thumbnails, by)
    for note in grouping.notes:
        tell(Progress("reading", len(good.paths), len(good.paths), note=note))
    return grouping


def _preprocessing(typical: tuple[int, int], options: TrainingOptions) -> Preprocessing:
    """The detector's own choice for images of a typical (width, height), or what was wished for."""
    try:
        width, height = detector_classes()[options.architecture].input_size(typical, options.input_size)
        return Preprocessing(width=width, height=height, scaled_decode=options.scaled_decode)
    except ValueError as error:
        raise InvalidOptions(f"{options.architecture} cannot take images of this size: {error}") from error


def _size_notes(sizes: list[tuple[int, int]], preprocessing: Preprocessing) -> list[str]:
    different = sorted(set(sizes))
    if len(different) == 1:
        return []
    (width, height), (other_width, other_height) = different[0], different[-1]
    note = (
        f"the images have {len(different)} different sizes, from {width} × {height} to {other_width} × "
        f"{other_height}: each is resized to {preprocessing.width} × {preprocessing.height}, whatever its shape"
    )
    return [note]


def read_images(
    paths: list[Path],
    preprocessing: Preprocessing,
    options: TrainingOptions,
    tell: Tell,
    *,
    stage: Literal["reading", "evaluating"],
    max_cache_bytes: int,
) -> ScannedImages:
    """Read images; a few unreadable ones are left out and noted, many are refused."""

    def on_image(done: int) -> None:
        tell(Progress(stage, done, len(paths)))

    found = read(
        paths, preprocessing, max_pixels=options.max_pixels, progress=on_image, max_cache_bytes=max_cache_bytes
    )
    if found.unreadable:
        path, reason = found.unreadable[0]
        note = f"{len(found.unreadable)} of {len(paths)} images cannot be read, the first is {path}: {reason}"
        if len(found.unreadable) > _UNREADABLE_SHARE * len(paths):
            raise InvalidDataset(f"{note}; repair or remove them")
        tell(Progress(stage, len(paths), len(paths), note=f"{note}; they are left out"))
    return found
