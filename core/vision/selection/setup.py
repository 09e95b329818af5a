"""The setup of a training: detector and preprocessing, chosen for the images where the options leave them open."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from core.vision.detectors.backbone import packaged_weights
from core.vision.detectors.feature_autoencoder import FeatureResidual
from core.vision.detectors.feature_gaussian import FeatureGaussian
from core.vision.detectors.features import input_size
from core.vision.detectors.memory_bank import MemoryBank
from core.vision.detectors.registry import AUTO, detector_classes
from core.vision.input.record import Preprocessing, Upright
from core.vision.progress import OnProgress, Progress
from core.vision.selection.exploration import Exploration, Task
from core.vision.selection.part_appearance import learn_appearance
from core.vision.selection.synthetic_defects import KINDS, PlannedDefect, plan_defects
from core.vision.selection.trial import Trial, by_quality, choose
from core.vision.selection.views import Views
from core.vision.training.dataset import ImageDataset
from core.vision.training.folds import make_folds
from core.vision.training_data import TrainingData
from core.vision.training_options import InvalidOptions, TrainingOptions

SIDES: Final = (256, 384, 512)
_ENLARGEMENT: Final = 1.5
"""An image is not tried at more than this multiple of its own size; the smallest size is always tried."""
_SAMPLE: Final = 300
"""Good parts that are used to choose by."""
_DEFECTS_PER_KIND: Final = 24
_FOLDS: Final = 4
_MAX_TEST_IMAGES: Final = 200
_CHOOSING_SHARE: Final = 0.6
"""Share of the budget for choosing; the rest is for the training itself."""
_STRONGER: Final = "efficientnet-lite2"
"""A backbone that is tried, too, if it is installed."""
_AUTOENCODER_SHARE: Final = 0.2
"""Autoencoders are tried if no more than this share of the budget is spent by then."""


@dataclass(frozen=True)
class Setup:
    """What is trained.

    Attributes:
        options: without anything that is still to choose.
        preprocessing: of the images.
        trials: what was tried, the chosen one first; empty if there was nothing to choose.
    """

    options: TrainingOptions
    preprocessing: Preprocessing
    trials: Sequence[Trial] = ()


def choose_setup(data: TrainingData, options: TrainingOptions, device: str, on_progress: OnProgress) -> Setup:
    """Choose what the options leave open.

    Raises:
        InvalidOptions: the options do not fit the images.
    """
    if options.architecture != AUTO:
        return Setup(options, _only_preprocessing(data, options, on_progress))
    if options.choose_by == "test" and not (data.layout.test_good and data.layout.test_defective):
        raise InvalidOptions("there are no images to choose by: add test/good and test/<type>, or choose by synthetic")
    chooser = _Chooser(data, options, device, on_progress)
    trials = by_quality(chooser.run(), by_test=options.choose_by == "test", max_ms=options.max_ms)
    candidate = trials[0].candidate
    chosen = replace(
        options,
        architecture=candidate.architecture,
        backbone=candidate.backbone,
        input_size=candidate.side,
        pooling=candidate.pooling,
        any_position=candidate.any_position,
    )
    note = f"of {len(trials)} candidates, {candidate.description} was chosen"
    on_progress(Progress("choosing", 1, 1, note=note))
    return Setup(chosen, candidate.preprocessing, trials)


def _only_preprocessing(data: TrainingData, options: TrainingOptions, on_progress: OnProgress) -> Preprocessing:
    """Return the preprocessing with the requested size, or else the one that the detector chooses."""
    try:
        poses = data.poses
        wanted = poses is not None and (options.pose == "upright" or poses.vary)
        upright = poses.upright if poses is not None and wanted else None
        views, detector = Views(data, options, on_progress), detector_classes()[options.architecture]
        size = detector.input_size(views.shown(upright), options.input_size, options.backbone_name)
        return views.preprocessing(size, upright, aligned=detector.aligned)
    except ValueError as error:
        raise InvalidOptions(f"{options.architecture} does not support this image size: {error}") from error


class _Chooser:
    """Tries detectors, poolings, input sizes and poses on a sample of the good parts."""

    def __init__(self, data: TrainingData, options: TrainingOptions, device: str, on_progress: OnProgress) -> None:
        self._data = data
        self._options = options
        self._device = device
        self._on_progress = on_progress
        self._views = Views(data, options, on_progress)
        self._started = time.monotonic()
        self._sample = _sample(data, options.seed)
        groups = [data.grouping.groups[index] for index in self._sample]
        self._folds = make_folds(groups, _FOLDS, options.seed)
        self._defects = self._plan()
        tested = data.read_test(data.good.images.preprocessing, options, on_progress, stage="choosing")
        self._test = None if tested is None else tuple(_evenly(images.paths) for images in tested)

    def _plan(self) -> list[PlannedDefect]:
        images = self._data.good.images.subset(self._sample)
        appearance = learn_appearance(list(np.concatenate(list(images.minibatches(32)))))
        return plan_defects(appearance, len(self._sample), _DEFECTS_PER_KIND * len(KINDS), self._options.seed)

    def run(self) -> list[Trial]:
        """Return the trials; at least those of the smallest input size."""
        tasks = [(side, preprocessing) for side in self._sides() for preprocessing in self._preprocessings(side)]
        trials: list[Trial] = []
        last_seconds, last_pixels = 0.0, 1
        for number, (side, preprocessing) in enumerate(tasks):
            self._on_progress(Progress("choosing", number, len(tasks)))
            pixels = preprocessing.width * preprocessing.height
            if trials and self._spent(last_seconds * pixels / last_pixels) > _CHOOSING_SHARE:
                self._note(number, len(tasks), f"there was no time left to try {side} pixels: allow more with --budget")
                continue
            started = time.monotonic()
            exploration = self._explore(side, preprocessing)
            if trials and exploration.milliseconds > self._options.max_ms:
                note = f"{side} pixels were not tried, because one image takes {exploration.milliseconds:.0f} ms"
                self._note(number, len(tasks), note)
                continue
            trials += exploration.run([FeatureGaussian, MemoryBank])
            last_seconds, last_pixels = time.monotonic() - started, pixels
        trials += self._refine(trials, last_seconds)
        self._on_progress(Progress("choosing", len(tasks), len(tasks)))
        return trials

    def _refine(self, trials: Sequence[Trial], expected: float) -> list[Trial]:
        """Try a stronger backbone and autoencoders with the best input size and pose, if there is time."""
        options = self._options
        best = choose(trials, by_test=options.choose_by == "test", max_ms=options.max_ms).candidate
        refined: list[Trial] = []
        open_backbone = options.backbone is None and options.backbone_weights is None
        if open_backbone and packaged_weights(_STRONGER) and self._spent(2 * expected) <= _CHOOSING_SHARE:
            stronger = self._explore(best.side, best.preprocessing, replace(options, backbone=_STRONGER))
            if stronger.milliseconds <= options.max_ms:
                refined += stronger.run([FeatureGaussian, MemoryBank])
        if self._spent(expected) <= _AUTOENCODER_SHARE:
            refined += self._explore(best.side, best.preprocessing).run([FeatureResidual])
        return refined

    def _spent(self, expected: float = 0.0) -> float:
        """Return the share of the budget that is spent, with the expected seconds of what comes next."""
        return (time.monotonic() - self._started + expected) / self._options.budget_seconds

    def _note(self, number: int, total: int, note: str) -> None:
        self._on_progress(Progress("choosing", number, total, note=note))

    def _sides(self) -> list[int]:
        if self._options.input_size is not None:
            return [self._options.input_size]
        width, height = self._data.typical_size
        largest = _ENLARGEMENT * (width * height) ** 0.5
        return [side for side in SIDES if side == SIDES[0] or side <= largest]

    def _preprocessings(self, side: int) -> Iterator[Preprocessing]:
        data, options = self._data, self._options
        uprights: list[Upright | None] = [] if options.pose == "upright" else [None]
        if data.poses is not None and (options.pose == "upright" or data.poses.vary):
            uprights.append(data.poses.upright)
        for upright in uprights:
            size = input_size(self._views.shown(upright), side, options.backbone_name)
            yield self._views.preprocessing(size, upright, aligned=True)

    def _explore(self, side: int, preprocessing: Preprocessing, options: TrainingOptions | None = None) -> Exploration:
        options = options or self._options

        def dataset(paths: Sequence[Path]) -> ImageDataset:
            return ImageDataset(paths, preprocessing, max_pixels=options.max_pixels)

        test = None
        if self._test is not None:
            test = dataset(self._test[0]), dataset(self._test[1])
        task = Task(
            side=side,
            preprocessing=preprocessing,
            good=dataset([self._data.good.paths[index] for index in self._sample]),
            folds=self._folds,
            defects=self._defects,
            test=test,
            options=options,
            rate=self._data.rate,
            device=self._device,
        )
        return Exploration(task, max_pixels=options.max_pixels)


def _sample(data: TrainingData, seed: int) -> list[int]:
    """Return the indices of good parts to choose by, ascending: whole groups, at random, of at least two groups."""
    order = np.random.default_rng(seed).permutation(data.grouping.count).tolist()
    members: dict[int, list[int]] = {}
    for index, group in enumerate(data.grouping.groups):
        members.setdefault(group, []).append(index)
    chosen: list[int] = []
    for number, group in enumerate(order):
        if number < 2 or len(chosen) + len(members[group]) <= _SAMPLE:
            chosen += members[group]
    return sorted(chosen)


def _evenly(paths: Sequence[Path]) -> list[Path]:
    """Return at most `_MAX_TEST_IMAGES` of the paths, evenly spread."""
    count = min(len(paths), _MAX_TEST_IMAGES)
    return [paths[number * len(paths) // count] for number in range(count)]
