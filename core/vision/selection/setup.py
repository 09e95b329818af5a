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
from core.vision.detectors.feature_model import FeatureModel
from core.vision.detectors.features import input_size
from core.vision.detectors.memory_bank import MemoryBank
from core.vision.detectors.registry import AUTO, detector_classes
from core.vision.input.record import Preprocessing, Upright
from core.vision.input.upright import POSE
from core.vision.progress import OnProgress, Progress
from core.vision.selection.exploration import Exploration, Task
from core.vision.selection.part_appearance import learn_appearance
from core.vision.selection.synthetic_defects import KINDS, PlannedDefect, plan_defects
from core.vision.selection.trial import Trial, by_quality, choose
from core.vision.selection.trial_log import Finished, TrialLog
from core.vision.selection.views import Views
from core.vision.training.checkpoint import fingerprint
from core.vision.training.dataset import ImageDataset, read
from core.vision.training.fit_interface import Checkpoint
from core.vision.training.folds import make_folds
from core.vision.training_data import TrainingData
from core.vision.training_options import InvalidOptions, TrainingOptions

SIDES: Final = (256, 384, 512)
_ENLARGEMENT: Final = 1.5
"""What is shown of an image is not tried at more than this multiple of its own size; the smallest size always is."""
_SAMPLE: Final = 300
"""Good parts that are used to choose by."""
_DEFECTS_PER_KIND: Final = 48
_FOLDS: Final = 4
_MAX_TEST_IMAGES: Final = 200
_CHOOSING_SHARE: Final = 0.6
"""Share of the budget for choosing; the rest is for the training itself."""
_MODELS: Final = (FeatureGaussian, MemoryBank)
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


def choose_setup(
    data: TrainingData,
    options: TrainingOptions,
    device: str,
    on_progress: OnProgress,
    checkpoint: Checkpoint | None = None,
) -> Setup:
    """Choose what the options leave open.

    Args:
        checkpoint: keeps the trials of an interrupted choice, which are not made again.

    Raises:
        InvalidOptions: the options do not fit the images.
    """
    if options.choose_by == "test" and not (data.layout.test_good and data.layout.test_defective):
        raise InvalidOptions("there are no images to choose by: add test/good and test/<type>, or choose by synthetic")
    if options.architecture != AUTO:
        return Setup(options, _only_preprocessing(data, options, on_progress))
    chooser = _Chooser(data, options, device, on_progress, TrialLog(checkpoint))
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

    def __init__(
        self, data: TrainingData, options: TrainingOptions, device: str, on_progress: OnProgress, log: TrialLog
    ) -> None:
        self._log = log
        self._data = data
        self._options = options
        self._device = device
        self._on_progress = on_progress
        self._views = Views(data, options, on_progress)
        self._started = time.monotonic()
        self._uprights = _uprights(data, options)
        self._sample = _posed(data, _sample(data, options.seed), self._uprights[-1], options)
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
        tasks = [(side, self._preprocessing(side, upright)) for side, upright in self._views_to_try()]
        trials: list[Trial] = []
        last_seconds, last_pixels = 0.0, 1
        for number, (side, preprocessing) in enumerate(tasks):
            self._on_progress(Progress("choosing", number, len(tasks)))
            pixels = preprocessing.width * preprocessing.height
            if trials and self._spent(last_seconds * pixels / last_pixels) > _CHOOSING_SHARE:
                self._note(number, len(tasks), f"there was no time left to try {side} pixels: allow more with --budget")
                continue
            tried = self._try(side, preprocessing, self._options, _MODELS, required=not trials)
            if not tried.trials:
                note = f"{side} pixels were not tried, because one image takes more than {self._options.max_ms:g} ms"
                self._note(number, len(tasks), note)
                continue
            trials += tried.trials
            last_seconds, last_pixels = tried.seconds, pixels
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
            stronger = replace(options, backbone=_STRONGER)
            refined += self._try(best.side, best.preprocessing, stronger, _MODELS).trials
        if self._spent(expected) <= _AUTOENCODER_SHARE:
            refined += self._try(best.side, best.preprocessing, options, (FeatureResidual,), required=True).trials
        return refined

    def _try(
        self,
        side: int,
        preprocessing: Preprocessing,
        options: TrainingOptions,
        models: Sequence[type[FeatureModel]],
        *,
        required: bool = False,
    ) -> Finished:
        """Try models, unless that is known already. Unless it is required, none is tried that takes too long."""
        names = [model.name for model in models]
        key = fingerprint([side, preprocessing.digest, options.backbone_name, names])
        if (known := self._log.get(key)) is not None:
            self._started -= known.seconds
            return known
        started = time.monotonic()
        exploration = self._explore(side, preprocessing, options)
        if not required and exploration.milliseconds > options.max_ms:
            return Finished([], 0.0)
        tried = Finished(exploration.run(models), time.monotonic() - started)
        self._log.add(key, tried)
        return tried

    def _spent(self, expected: float = 0.0) -> float:
        """Return the share of the budget that is spent, with the expected seconds of what comes next."""
        return (time.monotonic() - self._started + expected) / self._options.budget_seconds

    def _note(self, number: int, total: int, note: str) -> None:
        self._on_progress(Progress("choosing", number, total, note=note))

    def _views_to_try(self) -> Iterator[tuple[int, Upright | None]]:
        """Yield each side with the poses to try it in, small sides first."""
        only = self._options.input_size
        for side in SIDES if only is None else (only,):
            for upright in self._uprights:
                width, height = self._views.shown(upright)
                if side in (only, SIDES[0]) or side <= _ENLARGEMENT * (width * height) ** 0.5:
                    yield side, upright

    def _preprocessing(self, side: int, upright: Upright | None) -> Preprocessing:
        size = input_size(self._views.shown(upright), side, self._options.backbone_name)
        return self._views.preprocessing(size, upright, aligned=True)

    def _explore(self, side: int, preprocessing: Preprocessing, options: TrainingOptions) -> Exploration:
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


def _uprights(data: TrainingData, options: TrainingOptions) -> list[Upright | None]:
    """Return the poses to try: as in the image, which is None, or upright, or both."""
    if data.poses is None or not (options.pose == "upright" or data.poses.vary):
        return [None]
    return [data.poses.upright] if options.pose == "upright" else [None, data.poses.upright]


def _posed(
    data: TrainingData, sample: Sequence[int], upright: Upright | None, options: TrainingOptions
) -> Sequence[int]:
    """Return the indices of the sample whose images can be brought upright; all of them if none is to be."""
    if upright is None:
        return sample
    preprocessing = data.good.images.preprocessing.model_copy(update={"upright": upright})
    paths = [data.good.paths[index] for index in sample]
    images = read(paths, preprocessing, max_pixels=options.max_pixels, progress=lambda _: None, max_cache_bytes=0)
    unposed = {path for path, reasons in zip(images.paths, images.reasons, strict=True) if POSE in reasons}
    return [index for index in sample if data.good.paths[index] not in unposed]


def _evenly(paths: Sequence[Path]) -> list[Path]:
    """Return at most `_MAX_TEST_IMAGES` of the paths, evenly spread."""
    count = min(len(paths), _MAX_TEST_IMAGES)
    return [paths[number * len(paths) // count] for number in range(count)]
