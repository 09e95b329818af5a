"""The data of a training: the good images of a folder, read, checked, grouped and split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from core.vision.calibration.calibration import SampleTooSmall, required_sample_size
from core.vision.detectors.registry import detector_classes
from core.vision.input.preprocessing import Preprocessing
from core.vision.progress import OnProgress, Progress
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
        root: the folder, in MVTec layout.
        layout: the images that were found in it.
        good: the readable images of good parts.
        grouping: the groups of these images. The split keeps each group together.
        parts: the split, as indices into these images.
        preprocessing: of all images.
    """

    root: Path
    layout: Folder
    good: ScannedImages
    grouping: Grouping
    parts: Split
    preprocessing: Preprocessing


def read_training_data(folder: Path, options: TrainingOptions, on_progress: OnProgress) -> TrainingData:
    """Read all good images and split them.

    Raises:
        InvalidDataset, SampleTooSmall, InvalidOptions, InvalidGroups: see `core.vision.train.train`.
    """
    layout = read_mvtec_folder(folder)
    count = len(layout.good)
    for note in layout.notes:
        on_progress(Progress("reading", 0, count, note=note))
    typical = median_image_size(layout.good, max_pixels=options.max_pixels)
    preprocessing = _preprocessing(typical, options)
    good = read_images(
        layout.good, preprocessing, options, on_progress, stage="reading", max_cache_bytes=MAX_CACHE_BYTES
    )
    min_calibration = required_sample_size(options.false_reject_rate)
    if len(good.paths) < min_calibration + 2:
        raise SampleTooSmall(
            f"{len(good.paths)} good parts are too few for a false-reject rate of {options.false_reject_rate:g}: "
            f"{min_calibration} are held out to calibrate it, so at least {min_calibration + 2} are needed; "
            "a few hundred are better"
        )
    if np.ptp(good.thumbnails, axis=0).max() == 0 and np.ptp(good.deviations) == 0:
        raise InvalidDataset(f"all {len(good.paths)} images of good parts are identical: add images of other parts")
    for note in _size_notes(good.sizes, preprocessing):
        on_progress(Progress("reading", count, count, note=note))
    grouping = _grouping(folder, good, options, on_progress)
    parts = split(
        grouping.groups,
        seed=options.seed,
        validation=options.validation_share,
        calibration=options.calibration_share,
        min_calibration=min_calibration,
    )
    return TrainingData(folder, layout, good, grouping, parts, preprocessing)


def _grouping(root: Path, good: ScannedImages, options: TrainingOptions, on_progress: OnProgress) -> Grouping:
    by = GroupBy.parse(options.group_by) if options.group_by is not None else None
    grouping = group_parts(good.paths, root, good.digests, good.thumbnails, by)
    for note in grouping.notes:
        on_progress(Progress("reading", len(good.paths), len(good.paths), note=note))
    return grouping


def _preprocessing(typical: tuple[int, int], options: TrainingOptions) -> Preprocessing:
    """Return the preprocessing with the requested size, or else the one that the detector chooses.

    Args:
        typical: the typical (width, height) of the images, in pixels.
    """
    try:
        width, height = detector_classes()[options.architecture].input_size(typical, options.input_size)
        return Preprocessing(width=width, height=height, scaled_decode=options.scaled_decode)
    except ValueError as error:
        raise InvalidOptions(f"{options.architecture} does not support this image size: {error}") from error


def _size_notes(sizes: list[tuple[int, int]], preprocessing: Preprocessing) -> list[str]:
    distinct = sorted(set(sizes))
    if len(distinct) == 1:
        return []
    (width, height), (other_width, other_height) = distinct[0], distinct[-1]
    note = (
        f"the images have {len(distinct)} different sizes, from {width} × {height} to {other_width} × "
        f"{other_height}: each is resized to {preprocessing.width} × {preprocessing.height}, which distorts some"
    )
    return [note]


def read_images(
    paths: list[Path],
    preprocessing: Preprocessing,
    options: TrainingOptions,
    on_progress: OnProgress,
    *,
    stage: Literal["reading", "evaluating"],
    max_cache_bytes: int,
) -> ScannedImages:
    """Read images. Unreadable images are left out with a note.

    Raises:
        InvalidDataset: more than a tenth of the images are unreadable.
    """

    def on_image(done: int) -> None:
        on_progress(Progress(stage, done, len(paths)))

    images = read(
        paths, preprocessing, max_pixels=options.max_pixels, progress=on_image, max_cache_bytes=max_cache_bytes
    )
    if images.unreadable:
        path, reason = images.unreadable[0]
        note = f"{len(images.unreadable)} of {len(paths)} images cannot be read, the first is {path}: {reason}"
        if len(images.unreadable) > _UNREADABLE_SHARE * len(paths):
            raise InvalidDataset(f"{note}; repair or remove them")
        on_progress(Progress(stage, len(paths), len(paths), note=f"{note}; they are left out"))
    return images
