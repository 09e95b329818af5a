"""The detectors `combined-maximum` and `combined-mean`: the maps of `feature-gaussian` and `memory-bank` together.

The Gaussian knows which features belong to a position, the bank which ones occur anywhere; each finds defects that the
other misses. Both use the same features of the backbone, so the second one costs little. Each map is standardised by
the scores of good parts that its model was not fitted on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self

import torch
from torch import Tensor, nn

from core.vision.detectors.feature_detector import FeatureDetector
from core.vision.detectors.feature_gaussian import FeatureGaussian
from core.vision.detectors.feature_model import CrossFit, FeatureModel, FeatureSettings, with_prefix
from core.vision.detectors.features import FeatureBatch, Layers
from core.vision.detectors.memory_bank import MemoryBank
from core.vision.detectors.pooling import pool_maps
from core.vision.training.cross_fitted import CrossFitted

MEMBERS: Final[tuple[type[FeatureModel], ...]] = (FeatureGaussian, MemoryBank)
_HIGH: Final = 0.9
_MIN_SPREAD: Final = 1e-6
_MAX_KEPT_BYTES: Final = 256 * 1024**2


@dataclass(frozen=True)
class Standard:
    """Standardises the map of a member: 0 where it is as high as the score of a typical good part.

    Attributes:
        center: the median score of good parts.
        spread: from there to the score that a tenth of the good parts exceed, above 0.
    """

    center: float
    spread: float

    @classmethod
    def from_scores(cls, scores: Tensor) -> "Standard":
        """Compute the standard from the scores of good parts, (N,)."""
        center, high = (float(scores.quantile(share)) for share in (0.5, _HIGH))
        return cls(center, max(high - center, _MIN_SPREAD * max(abs(center), 1.0)))

    def apply(self, values: Tensor) -> Tensor:
        """Standardise maps or scores."""
        return (values - self.center) / self.spread


Rule = Literal["maximum", "mean"]


def combine(maps: Sequence[Tensor], standards: Sequence[Standard], rule: Rule) -> Tensor:
    """Combine the maps of the members for N images: the higher one or the mean of each cell, once standardised.

    Args:
        maps: of each member, (N, rows, columns), each with its own grid.
        standards: of each member.
        rule: how the cells are combined.

    Returns:
        (N, rows, columns), 0 and up, on the finest grid; 1 is the score of a typical good part.
    """
    grid = max((each.shape[1:] for each in maps), key=lambda shape: shape[0] * shape[1])
    standardised = torch.stack(
        [_resize(standard.apply(each), grid) for each, standard in zip(maps, standards, strict=True)]
    )
    combined = standardised.amax(0) if rule == "maximum" else standardised.mean(0)
    return (1 + combined / 4).clamp_min(0)


def _resize(maps: Tensor, grid: torch.Size) -> Tensor:
    if maps.shape[1:] == grid:
        return maps
    return nn.functional.interpolate(maps[:, None], grid, mode="bilinear")[:, 0]


class Combination(FeatureModel):
    """The members and their standards.

    Attributes:
        rule: how their maps are combined.
    """

    rule: ClassVar[Rule]
    default_pooling: ClassVar[float] = 0.005

    def __init__(self, members: Sequence[FeatureModel], standards: Sequence[Standard]) -> None:
        self._members = list(members)
        self._standards = list(standards)
        self.facts = {name: fact for member in members for name, fact in member.facts.items()}

    @classmethod
    def collector(cls, settings: FeatureSettings, seed: int, device: str) -> "_CombinationCollector":
        """See `FeatureModel.collector`."""
        return _CombinationCollector(cls, settings, seed, device)

    def maps(self, layers: Layers) -> Tensor:
        """See `FeatureModel.maps` and `combine`."""
        return combine([member.maps(layers) for member in self._members], self._standards, self.rule)

    def to(self, device: str) -> Self:
        """See `FeatureModel.to`."""
        return type(self)([member.to(device) for member in self._members], self._standards)

    def state_dict(self) -> dict[str, Tensor]:
        """See `FeatureModel.state_dict`: the tensors of each member, with its name, and the standards, (members, 2)."""
        state = {
            f"{member.name}.{name}": value for member in self._members for name, value in member.state_dict().items()
        }
        standards = [[standard.center, standard.spread] for standard in self._standards]
        return {**state, "standards": torch.tensor(standards, dtype=torch.float64)}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], settings: FeatureSettings) -> Self:
        """See `FeatureModel.from_state_dict`."""
        standards = [Standard(*values) for values in state["standards"].tolist()]
        if len(standards) != len(MEMBERS) or not all(standard.spread > 0 for standard in standards):
            raise ValueError("the standards do not fit the members")
        members = [each.from_state_dict(with_prefix(state, f"{each.name}."), settings) for each in MEMBERS]
        return cls(members, standards)


class _CombinationCollector:
    """Collects for each member, and keeps the layers of some images to standardise the maps with."""

    def __init__(self, combination: type[Combination], settings: FeatureSettings, seed: int, device: str) -> None:
        self._combination = combination
        self._collectors: list[Any] = [member.collector(settings, seed, device) for member in MEMBERS]
        self._pooling = settings.pooling
        self._device = device
        self._kept: list[Layers] = []
        self._images: list[int] = []

    def add(self, batch: FeatureBatch) -> None:
        for collector in self._collectors:
            collector.add(batch)
        image_bytes = 2 * sum(layer[0].numel() for layer in batch.layers)
        for index, image in enumerate(batch.images):
            if not batch.augmented[index] and len(self._kept) * image_bytes < _MAX_KEPT_BYTES:
                self._kept.append([layer[index : index + 1].to("cpu", torch.float16) for layer in batch.layers])
                self._images.append(image)

    def fit(self, fit: CrossFit) -> CrossFitted[Combination]:
        """Fit the members, and standardise each by the scores of images in the folds that are held out."""
        fitted: list[CrossFitted[FeatureModel]] = [collector.fit(fit) for collector in self._collectors]
        standards = [Standard.from_scores(self._held_out_scores(member, fit)) for member in fitted]

        def combination(members: Sequence[FeatureModel]) -> Combination:
            return self._combination(members, standards)

        held_out = [combination([member.held_out[fold] for member in fitted]) for fold in range(fit.folds.count)]
        return CrossFitted(combination([member.final for member in fitted]), held_out)

    def _held_out_scores(self, member: CrossFitted[FeatureModel], fit: CrossFit) -> Tensor:
        scores = []
        with torch.inference_mode():
            for layers, image in zip(self._kept, self._images, strict=True):
                model = member.held_out[fit.folds.labels[image]]
                maps = model.maps([layer.to(self._device, torch.float32) for layer in layers])
                scores.append(pool_maps(maps, self._pooling).cpu())
        return torch.cat(scores)


class Maximum(Combination):
    """The higher of both maps, which finds what either member finds."""

    name: ClassVar[str] = "combined-maximum"
    measure: ClassVar[str] = "higher-of-mahalanobis-and-nearest"
    rule: ClassVar[Rule] = "maximum"


class Mean(Combination):
    """The mean of both maps, which is less disturbed by outliers of one member."""

    name: ClassVar[str] = "combined-mean"
    measure: ClassVar[str] = "mean-of-mahalanobis-and-nearest"
    rule: ClassVar[Rule] = "mean"


class CombinedMaximumDetector(FeatureDetector):
    """Scores images by the higher of two maps; about 1 is normal."""

    name: ClassVar[str] = Maximum.name
    model_class = Maximum


class CombinedMeanDetector(FeatureDetector):
    """Scores images by the mean of two maps; about 1 is normal."""

    name: ClassVar[str] = Mean.name
    model_class = Mean
