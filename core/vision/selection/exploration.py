"""Try the detectors of one input size and pose: the features of each image are computed once for all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from core.vision.detectors.backbone import load_pretrained
from core.vision.detectors.combined import Maximum, Mean, Rule, Standard, combine
from core.vision.detectors.feature_autoencoder import FeatureResidual
from core.vision.detectors.feature_gaussian import FeatureGaussian
from core.vision.detectors.feature_model import CrossFit, FeatureModel, FeatureSettings
from core.vision.detectors.features import FeatureExtractor, Layers, training_features
from core.vision.detectors.memory_bank import MemoryBank
from core.vision.detectors.pooling import POOLINGS, pool_maps
from core.vision.evaluation.metrics import auroc, partial_auroc
from core.vision.evaluation.timing import TIMED_IMAGES, milliseconds_per_image
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from core.vision.selection.part_appearance import learn_appearance
from core.vision.selection.synthetic_defects import KINDS, PlannedDefect, draw
from core.vision.selection.trial import Candidate, Trial
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.dataset import ImageDataset
from core.vision.training.fit_interface import FitOptions
from core.vision.training.folds import Folds

_MINIBATCH: Final = 8
_RATES: Final = 0.1
"""The largest false-reject rate of the partial AUROC."""


@dataclass(frozen=True)
class Task:
    """What the trials of one input size and pose share.

    Attributes:
        side: the requested side of the prepared images, pixels.
        preprocessing: of the images.
        good: good parts, prepared.
        folds: of these parts.
        defects: to draw into them.
        test: good and defective images in `test/`, prepared; None without any.
        options: of the training.
        rate: the false-reject rate, 0 to 1.
        device: `cpu` or `cuda`.
    """

    side: int
    preprocessing: Preprocessing
    good: ImageDataset
    folds: Folds
    defects: Sequence[PlannedDefect]
    test: tuple[ImageDataset, ImageDataset] | None
    options: FitOptions
    rate: float
    device: str


@dataclass(frozen=True)
class _Maps:
    """The maps of one member, each (N, rows, columns).

    Attributes:
        good: of the good parts, by the model that was not fitted on them.
        defective: of the synthetic defects, likewise.
        test: of the good and the defective images in `test/`, by the model that was fitted on all parts.
    """

    good: Tensor
    defective: Tensor
    test: tuple[Tensor, Tensor] | None


@dataclass(frozen=True)
class _Variant:
    """A model in the trials: its architecture, and whether it judges all positions alike."""

    architecture: str
    any_position: bool = False


_Fitted = dict[_Variant, CrossFitted[FeatureModel]]
_GAUSSIAN, _BANK = _Variant(FeatureGaussian.name), _Variant(MemoryBank.name)
_COMBINED = {_Variant(model.name): model.rule for model in (Maximum, Mean)}


class Exploration:
    """Fits and scores the models of one input size and pose.

    Attributes:
        milliseconds: to decode an image and compute its features, on one core or on the GPU.
    """

    def __init__(self, task: Task, *, max_pixels: int) -> None:
        self._task = task
        self._backbone = load_pretrained(
            task.options.backbone_name, task.options.backbone_weights, seed=task.options.seed
        )
        self._extractor = FeatureExtractor(self._backbone.network, task.options.backbone_name, task.device)
        self._timed = [path.read_bytes() for path in task.good.paths[:TIMED_IMAGES]]
        self._max_pixels = max_pixels
        self.milliseconds = self._time(self._timed_layers)

    def run(self, models: Sequence[type[FeatureModel]]) -> list[Trial]:
        """Try models with all poolings, and the combination of a Gaussian and a bank if both are among them.

        If the options choose a pooling, only that one is tried.
        """
        fitted = self._fit(models)
        maps = self._maps(fitted)
        layers = self._timed_layers()
        milliseconds = {
            variant: self.milliseconds + self._time(lambda model=model: model.final.maps(layers))  # type: ignore[misc]
            for variant, model in fitted.items()
        }
        combined = _GAUSSIAN in fitted and _BANK in fitted
        if combined:
            both = milliseconds[_GAUSSIAN] + milliseconds[_BANK] - self.milliseconds
            milliseconds |= dict.fromkeys(_COMBINED, both)
        trials = []
        chosen = self._task.options.pooling
        for pooling in POOLINGS if chosen is None else (chosen,):
            if combined:
                members = maps[_GAUSSIAN], maps[_BANK]
                maps |= {variant: _combine(members, pooling, rule) for variant, rule in _COMBINED.items()}
            trials += [self._trial(variant, maps[variant], pooling, milliseconds[variant]) for variant in maps]
        return trials

    def _fit(self, models: Sequence[type[FeatureModel]]) -> _Fitted:
        """Fit the models to the good parts; the autoencoder with both kinds of statistics."""
        task = self._task
        settings = FeatureSettings(task.options.backbone_name, task.preprocessing.width, task.preprocessing.height)
        collectors: list[Any] = [model.collector(settings, task.options.seed, task.device) for model in models]
        for batch in training_features(self._extractor, task.good, task.options.seed, task.preprocessing.alignment):
            for collector in collectors:
                collector.add(batch)
        fitted: _Fitted = {}
        for model, collector in zip(models, collectors, strict=True):
            for any_position in (False, True) if model is FeatureResidual else (False,):
                options = replace(task.options, any_position=any_position)
                fit = CrossFit(task.folds, options, task.device, lambda _: None)
                fitted[_Variant(model.name, any_position)] = collector.fit(fit)
        return fitted

    def _maps(self, fitted: _Fitted) -> dict[_Variant, _Maps]:
        task = self._task
        images = np.concatenate(list(task.good.minibatches(_MINIBATCH)))
        appearance = learn_appearance(list(images))
        good: dict[_Variant, dict[int, Tensor]] = {variant: {} for variant in fitted}
        defective: dict[_Variant, dict[int, Tensor]] = {variant: {} for variant in fitted}
        for fold in range(task.folds.count):
            models = {variant: model.held_out[fold] for variant, model in fitted.items()}
            held_out = task.folds.held_out(fold)
            self._score(models, [images[index] for index in held_out], held_out, good)
            numbers = [number for number, each in enumerate(task.defects) if each.image in set(held_out)]
            drawn = [
                draw(images[each.image], each.defect, appearance, donor=images[each.donor]).pixels
                for each in (task.defects[number] for number in numbers)
            ]
            self._score(models, drawn, numbers, defective)
        tested = None if task.test is None else [self._test_maps(fitted, each) for each in task.test]
        return {
            variant: _Maps(
                _stack(good[variant]),
                _stack(defective[variant]),
                None if tested is None else (tested[0][variant], tested[1][variant]),
            )
            for variant in fitted
        }

    def _test_maps(self, fitted: _Fitted, images: ImageDataset) -> dict[_Variant, Tensor]:
        models = {variant: model.final for variant, model in fitted.items()}
        maps: dict[_Variant, dict[int, Tensor]] = {variant: {} for variant in fitted}
        done = 0
        for minibatch in images.minibatches(_MINIBATCH):
            self._score(models, list(minibatch), list(range(done, done + len(minibatch))), maps)
            done += len(minibatch)
        return {variant: _stack(each) for variant, each in maps.items()}

    def _score(
        self,
        models: Mapping[_Variant, FeatureModel],
        images: Sequence[PreparedImage],
        numbers: Sequence[int],
        maps: Mapping[_Variant, dict[int, Tensor]],
    ) -> None:
        """Add the maps of the images by their numbers."""
        with torch.inference_mode():
            for start in range(0, len(images), _MINIBATCH):
                layers = self._extractor.layers(images[start : start + _MINIBATCH])
                for variant, model in models.items():
                    each = model.maps(layers).cpu()
                    maps[variant].update(zip(numbers[start : start + _MINIBATCH], each, strict=True))

    def _trial(self, variant: _Variant, maps: _Maps, pooling: float, milliseconds: float) -> Trial:
        task = self._task
        good, defective = (pool_maps(each, pooling).numpy() for each in (maps.good, maps.defective))
        kinds = np.array([each.defect.kind for each in task.defects])
        by_kind = [defective[kinds == kind] for kind in KINDS if (kinds == kind).any()]
        test = None
        if maps.test is not None:
            test = auroc(*(pool_maps(each, pooling).numpy() for each in maps.test))
        threshold = float(np.quantile(good, 1 - task.rate, method="higher"))
        return Trial(
            Candidate(
                variant.architecture,
                task.options.backbone_name,
                task.side,
                task.preprocessing,
                pooling,
                variant.any_position,
            ),
            auroc=float(np.mean([auroc(good, of_kind) for of_kind in by_kind])),
            partial_auroc=float(np.mean([partial_auroc(good, of_kind, _RATES) for of_kind in by_kind])),
            caught=float((defective > threshold).mean()),
            test_auroc=test,
            milliseconds=milliseconds,
        )

    def _timed_layers(self) -> Layers:
        prepared = [prepare(each, self._task.preprocessing, max_pixels=self._max_pixels).pixels for each in self._timed]
        return self._extractor.layers(prepared)

    def _time(self, work: Callable[[], object]) -> float:
        return milliseconds_per_image(work, len(self._timed), self._task.device)


def _stack(maps: Mapping[int, Tensor]) -> Tensor:
    """Return the maps in the order of their numbers."""
    return torch.stack([maps[number] for number in sorted(maps)])


def _combine(members: tuple[_Maps, _Maps], pooling: float, rule: Rule) -> _Maps:
    gaussian, bank = members
    standards = [Standard.from_scores(pool_maps(each.good, pooling)) for each in members]

    def together(maps: Sequence[Tensor]) -> Tensor:
        return combine(maps, standards, rule)

    test = None
    if gaussian.test is not None and bank.test is not None:
        test = (together([gaussian.test[0], bank.test[0]]), together([gaussian.test[1], bank.test[1]]))
    return _Maps(together([each.good for each in members]), together([each.defective for each in members]), test)
