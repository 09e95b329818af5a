"""The data of a training: the good images of a folder, read, checked and grouped."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from core.intake.image_decoding import Undecodable, decode_stored
from core.models.bit_depths import BitDepth
from core.models.training_options import DEFAULT_RATE, MIN_PARTS
from core.vision.calibration.calibration import SampleTooSmall, required_sample_size
from core.vision.detectors.features import input_size
from core.vision.input.bit_depth import DEPTH, scale, to_image
from core.vision.input.part_mask import SIDE, Channels, shrink
from core.vision.input.part_pose import Poses, learn_poses
from core.vision.input.record import Preprocessing
from core.vision.input.upright import POSE
from core.vision.progress import OnProgress, Progress
from core.vision.training.dataset import (
    MAX_CACHE_BYTES,
    Folder,
    InvalidDataset,
    ScannedImages,
    in_parallel,
    median_image_size,
    read,
    read_mvtec_folder,
)
from core.vision.training.folds import Folds, make_folds
from core.vision.training.group_by import GroupBy, InvalidGroups
from core.vision.training.grouping import Grouping, group_parts
from core.vision.training.training_depth import find_training_depth
from core.vision.training_options import InvalidOptions, TrainingOptions

_MAX_TEST_CACHE_BYTES = MAX_CACHE_BYTES // 4
_FEW_PARTS = 50
_UNREADABLE_SHARE = 0.1
_POSED = 200
"""Images that the poses are learned from."""
_REASONS = {
    DEPTH: "have another bit depth than the training images",
    POSE: "cannot be brought into the pose of good parts",
}


Stage = Literal["reading", "choosing", "evaluating"]
"""A stage of `core.vision.progress` in which images are read."""
TestImages = tuple[ScannedImages, ScannedImages]
"""The good and the defective images in `test/`."""


@dataclass(frozen=True)
class TrainingData:
    """The folder, its images and their groups.

    Attributes:
        root: the folder, in MVTec layout.
        layout: the images that were found in it.
        good: the readable images of good parts, in a size to compare them in.
        typical_size: the median (width, height) of the images, pixels.
        grouping: the groups of the good images.
        rate: the false-reject rate to calibrate for, 0 to 1.
        poses: of the parts; None if they must not or cannot be brought upright.
    """

    root: Path
    layout: Folder
    good: ScannedImages
    typical_size: tuple[int, int]
    grouping: Grouping
    rate: float
    poses: Poses | None

    @property
    def bit_depth(self) -> BitDepth | None:
        """The bit depth of the good images."""
        return self.good.images.preprocessing.bit_depth

    def prepared(
        self, preprocessing: Preprocessing, options: TrainingOptions, on_progress: OnProgress
    ) -> "TrainingData":
        """Return the data with the good images prepared in this way; they are read again unless that has been done.

        Images whose pose is not found are left out: a worker gives them the verdict review, whatever their score, so
        they must not raise the threshold.

        Raises:
            InvalidDataset: a file was deleted or has changed since it was first read, or more than a tenth of the poses
                are not found.
            SampleTooSmall: the other images are too few for the false-reject rate.
        """
        if preprocessing == self.good.images.preprocessing:
            return self
        images = read_images(
            self.good.paths,
            preprocessing,
            options,
            on_progress,
            stage="reading",
            max_cache_bytes=MAX_CACHE_BYTES,
        )
        if images.digests != self.good.digests:
            raise InvalidDataset(f"images in {self.root} have changed: leave the folder alone while it is in use")
        posed = [index for index, reasons in enumerate(images.reasons) if POSE not in reasons]
        if len(posed) < (1 - _UNREADABLE_SHARE) * len(images.paths):
            instead = "--alignment off" if preprocessing.upright is None else "--pose as-is"
            raise InvalidDataset(
                f"only {len(posed)} of {len(images.paths)} good parts can be brought into one pose: "
                f"train with {instead}"
            )
        return replace(
            self,
            good=replace(images.subset(posed), unreadable=self.good.unreadable),
            grouping=self.grouping.subset(posed),
            rate=self.rate if len(posed) == len(images.paths) else _false_reject_rate(len(posed), options),
        )

    def read_test(
        self, preprocessing: Preprocessing, options: TrainingOptions, on_progress: OnProgress, *, stage: Stage
    ) -> TestImages | None:
        """Return the good and the defective images in `test/`; None if it lacks either."""
        layout = self.layout
        if not layout.test_good or not layout.test_defective:
            return None
        good, defective = (
            read_images(paths, preprocessing, options, on_progress, stage=stage, max_cache_bytes=_MAX_TEST_CACHE_BYTES)
            for paths in (layout.test_good, layout.test_defective)
        )
        return good, defective

    def folds(self, count: int, seed: int) -> Folds:
        """Distribute the good images over folds; groups stay together."""
        return make_folds(self.grouping.groups, count, seed)


def read_training_data(folder: Path, options: TrainingOptions, on_progress: OnProgress) -> TrainingData:
    """Read and group all good images.

    Raises:
        InvalidDataset, SampleTooSmall, InvalidOptions, InvalidGroups: see `core.vision.train.train`.
    """
    layout = read_mvtec_folder(folder)
    count = len(layout.good)
    for note in layout.notes:
        on_progress(Progress("reading", 0, count, note=note))
    typical = median_image_size(layout.good, max_pixels=options.max_pixels)
    width, height = input_size(typical, None)
    bit_depth = _find_bit_depth(layout.good, options, on_progress)
    good = read_images(
        layout.good,
        Preprocessing(width=width, height=height, scaled_decode=options.scaled_decode, bit_depth=bit_depth),
        options,
        on_progress,
        stage="reading",
        max_cache_bytes=MAX_CACHE_BYTES,
    )
    if len(good.paths) < MIN_PARTS:
        raise SampleTooSmall(
            f"{len(good.paths)} good parts are too few: at least {MIN_PARTS} are needed; a few hundred are better"
        )
    if np.ptp(good.thumbnails, axis=0).max() == 0 and np.ptp(good.deviations) == 0:
        raise InvalidDataset(f"all {len(good.paths)} images of good parts are identical: add images of other parts")
    rate = _false_reject_rate(len(good.paths), options)
    for note in [*_size_notes(good.sizes, (width, height)), *_number_notes(len(good.paths), rate)]:
        on_progress(Progress("reading", count, count, note=note))
    return TrainingData(
        folder,
        layout,
        good,
        typical,
        _grouping(folder, good, options, on_progress),
        rate,
        _learn_poses(good.paths, bit_depth, options, on_progress),
    )


def _learn_poses(
    paths: Sequence[Path], bit_depth: BitDepth, options: TrainingOptions, on_progress: OnProgress
) -> Poses | None:
    """Learn the poses of the parts from a sample of the images; None if that is not wanted or not possible.

    Raises:
        InvalidDataset: a file was deleted or has changed since it was first read.
        InvalidOptions: it is demanded but not possible.
    """
    if options.pose == "as-is":
        return None
    count = min(len(paths), _POSED)
    sample = [paths[number * len(paths) // count] for number in range(count)]

    def read_small(path: Path) -> Channels:
        try:
            decoded = decode_stored(path.read_bytes(), max_pixels=options.max_pixels, at_least=(2 * SIDE, 2 * SIDE))
        except (Undecodable, OSError) as error:
            raise InvalidDataset(
                f"{path} could be read before but not any more: leave the folder alone while it is in use"
            ) from error
        return shrink(to_image(scale(decoded.content, bit_depth).image))

    poses = learn_poses(list(in_parallel(read_small, sample)))
    if poses is None and options.pose == "upright":
        raise InvalidOptions(
            "the parts cannot be brought upright: each must lie alone on an even background, and all must have about "
            "the same size; train with --pose as-is"
        )
    if poses is not None and poses.vary:
        note = (
            f"the parts lie in different poses: their turns have a standard deviation of {poses.deviation:.0f}°, their "
            f"places one of {poses.shift:.0%} of the side of a part"
        )
        on_progress(Progress("reading", len(paths), len(paths), note=note))
    return poses


def _find_bit_depth(paths: list[Path], options: TrainingOptions, on_progress: OnProgress) -> BitDepth:
    count = len(paths)
    found = find_training_depth(
        paths,
        options.bit_depth,
        max_pixels=options.max_pixels,
        progress=lambda done: on_progress(Progress("reading", done, count)),
    )
    for note in found.notes:
        on_progress(Progress("reading", count, count, note=note))
    return found.depth


def _false_reject_rate(parts: int, options: TrainingOptions) -> float:
    """Return the requested rate, or by default the smallest rate that so many parts allow, at least 5 %."""
    if options.false_reject_rate is None:
        rate = max(DEFAULT_RATE, 1 / (parts + 1))
        if options.review_rate is not None and options.review_rate <= rate:
            raise InvalidOptions(
                f"{parts} good parts allow a false-reject rate of {rate:.1%} at best, so the review rate must be above "
                f"it, not {options.review_rate:g}"
            )
        return rate
    needed = required_sample_size(options.false_reject_rate)
    if parts < needed:
        raise SampleTooSmall(
            f"{parts} good parts are too few for a false-reject rate of {options.false_reject_rate:g}: at least "
            f"{needed} are needed; a few hundred are better. Without --false-reject-rate, the smallest possible rate "
            "is chosen"
        )
    return options.false_reject_rate


def _number_notes(parts: int, rate: float) -> list[str]:
    if parts >= _FEW_PARTS:
        return []
    note = (
        f"{parts} good parts are few: the detector knows little of how good parts vary, and its false-reject rate is "
        f"only known within a wide interval; {_FEW_PARTS} parts or more are better, a few hundred are good"
    )
    if rate > DEFAULT_RATE:
        note += f". They allow a false-reject rate of {rate:.1%} at best, not {DEFAULT_RATE:.0%}"
    return [note]


def _grouping(root: Path, good: ScannedImages, options: TrainingOptions, on_progress: OnProgress) -> Grouping:
    by = GroupBy.parse(options.group_by) if options.group_by is not None else None
    grouping = group_parts(good, root, by)
    for note in grouping.notes:
        on_progress(Progress("reading", len(good.paths), len(good.paths), note=note))
    if grouping.count < 2:
        raise InvalidGroups(
            f"all {len(good.paths)} images of good parts belong to one part or lot, so none of them can be scored by a "
            "detector that was not trained on it: add images of other parts, or correct --group-by"
        )
    return grouping


def _size_notes(sizes: list[tuple[int, int]], prepared: tuple[int, int]) -> list[str]:
    distinct = sorted(set(sizes))
    if len(distinct) == 1:
        return []
    (width, height), (other_width, other_height) = distinct[0], distinct[-1]
    note = (
        f"the images have {len(distinct)} different sizes, from {width} × {height} to {other_width} × "
        f"{other_height}: each is resized to one size, such as {prepared[0]} × {prepared[1]}, which distorts some"
    )
    return [note]


def read_images(
    paths: list[Path],
    preprocessing: Preprocessing,
    options: TrainingOptions,
    on_progress: OnProgress,
    *,
    stage: Stage,
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
    for reason, description in _REASONS.items():
        if failed := [path for path, reasons in zip(images.paths, images.reasons, strict=True) if reason in reasons]:
            note = (
                f"{len(failed)} of {len(paths)} images {description}, the first is {failed[0]}: a worker gives such "
                "images the verdict review"
            )
            if reason == POSE and stage == "reading":
                note += ", so they are left out"
            on_progress(Progress(stage, len(paths), len(paths), note=note))
    return images
