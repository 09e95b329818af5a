"""The detector `memory-bank`: the distance of each cell's features to the nearest ones among those of good parts.

Position does not matter, so it finds defects on parts that lie in any pose, where `feature-gaussian` fails; on
textures it is weaker. The bank is a few thousand vectors that cover those of all good parts, chosen greedily: each next
vector is the one farthest from those chosen before. After Roth et al., "PatchCore" (CVPR 2022). It trains no network.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

import torch
from torch import Tensor, nn

from core.vision.detectors.feature_detector import FeatureDetector
from core.vision.detectors.feature_model import CrossFit, FeatureModel, FeatureSettings
from core.vision.detectors.features import FeatureBatch, Layers
from core.vision.training.cross_fitted import CrossFitted

DIMENSIONS: Final = 64
"""Principal components of the features that are kept."""
MAX_VECTORS: Final = 4000
_MAX_PRODUCTS: Final = 10**9
"""Multiplications of the search for one image: about 15 ms on one core. It bounds the bank of large images."""
_WARM_UP: Final = 32
"""Images that the principal components are computed from."""
_FROM_IMAGE: Final = 128
"""Vectors chosen from one image, before the bank is chosen from those of all images."""
_MAX_CANDIDATES: Final = 60_000
_BLOCK: Final = 1024
"""Cells that are compared with the bank at a time."""
_NEAREST: Final = 4
"""Candidates of the half-precision search on a GPU that are compared again in full precision."""


def local_features(layers: Layers) -> Tensor:
    """Bring all layers onto the finest grid, and average each cell with its 8 neighbours: (N, C, rows, columns)."""
    grid = layers[0].shape[2:]
    resized = [
        layer
        if layer.shape[2:] == grid
        else nn.functional.interpolate(layer, size=grid, mode="bilinear", align_corners=False)
        for layer in layers
    ]
    return nn.functional.avg_pool2d(torch.cat(resized, dim=1), 3, stride=1, padding=1, count_include_pad=False)


class MemoryBank(FeatureModel):
    """The features of good parts.

    Attributes:
        vectors: float32, (V, D): the bank.
    """

    name: ClassVar[str] = "memory-bank"
    measure: ClassVar[str] = "nearest"
    default_pooling: ClassVar[float] = 0.005

    def __init__(self, center: Tensor, projection: Tensor, vectors: Tensor) -> None:
        if vectors.ndim != 2 or projection.shape != (len(center), vectors.shape[1]) or len(vectors) == 0:
            raise ValueError("the bank, the projection and the center have shapes that do not fit together")
        self._center, self._projection, self.vectors = center, projection, vectors
        self._half_squares = vectors.square().sum(1) / 2
        count, dimensions = vectors.shape
        self.facts = {"Memory bank": f"{count} vectors of {dimensions} values, {vectors.nbytes / 1e6:.1f} MB in memory"}

    @classmethod
    def collector(cls, settings: FeatureSettings, seed: int, device: str) -> "_BankCollector":
        """See `FeatureModel.collector`."""
        return _BankCollector(device)

    def maps(self, layers: Layers) -> Tensor:
        """See `FeatureModel.maps`: the distance of each cell to its nearest vector, per dimension."""
        features = project(local_features(layers), self._center, self._projection)
        count, rows, columns, dimensions = features.shape
        cells = features.reshape(-1, dimensions)
        distances = [self._distance(cells[start : start + _BLOCK]) for start in range(0, len(cells), _BLOCK)]
        maps: Tensor = (torch.cat(distances) / dimensions**0.5).reshape(count, rows, columns)
        return maps

    def _distance(self, cells: Tensor) -> Tensor:
        """Return the distance of each cell (n, D) to its nearest vector: float32, (n,).

        The search compares |b|² / 2 - x · b, which loses digits where vectors are close; so the distance to the vector
        that it finds is computed again.
        """
        if cells.device.type == "cpu":
            nearest = torch.addmm(self._half_squares, cells, self.vectors.T, alpha=-1).argmin(1)
            found: Tensor = (cells - self.vectors[nearest]).square().sum(1).sqrt()
            return found
        closeness = (cells.half() @ self.vectors.half().T).float() - self._half_squares
        candidates = closeness.topk(min(_NEAREST, len(self.vectors)), dim=1).indices
        squares: Tensor = (cells[:, None] - self.vectors[candidates]).square().sum(2)
        return squares.min(1).values.sqrt()

    def to(self, device: str) -> Self:
        """See `FeatureModel.to`."""
        return type(self)(self._center.to(device), self._projection.to(device), self.vectors.to(device))

    def state_dict(self) -> dict[str, Tensor]:
        """See `FeatureModel.state_dict`: `center`, `projection` and `vectors`, whose values are those of float16."""
        return {
            "center": self._center.cpu(),
            "projection": self._projection.cpu().contiguous(),
            "vectors": self.vectors.to("cpu", torch.float16).contiguous(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], settings: FeatureSettings) -> Self:
        """See `FeatureModel.from_state_dict`."""
        return cls(state["center"].float(), state["projection"].float(), state["vectors"].float())


def project(features: Tensor, center: Tensor, projection: Tensor) -> Tensor:
    """Project features (N, C, rows, columns) to D dimensions: (N, rows, columns, D)."""
    return (features.permute(0, 2, 3, 1) - center) @ projection


class _BankCollector:
    """Keeps, of each image, the vectors that differ most from each other."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._waiting: list[tuple[Tensor, list[int]]] = []
        self._waiting_images = 0
        self._projection: tuple[Tensor, Tensor] | None = None
        self._candidates: list[Tensor] = []
        self._images: list[int] = []
        self._cells = 0

    def add(self, batch: FeatureBatch) -> None:
        if self._projection is not None:
            self._keep(local_features(batch.layers), batch.images, *self._projection)
            return
        self._waiting.append((local_features(batch.layers), batch.images))
        self._waiting_images += len(batch.images)
        if self._waiting_images >= _WARM_UP:
            self._start()

    def _start(self) -> None:
        """Compute the principal components from the first images, and take these images."""
        features = torch.cat([each for each, _ in self._waiting]).permute(0, 2, 3, 1).flatten(0, 2)
        self._projection = principal_components(features)
        for each, images in self._waiting:
            self._keep(each, images, *self._projection)
        self._waiting.clear()

    def _keep(self, features: Tensor, images: Sequence[int], center: Tensor, projection: Tensor) -> None:
        projected = project(features, center, projection).flatten(1, 2)
        self._cells = projected.shape[1]
        for cells, image in zip(projected, images, strict=True):
            self._candidates.append(cells[farthest_points(cells, _FROM_IMAGE)].to("cpu", torch.float16))
            self._images.append(image)

    def fit(self, fit: CrossFit) -> CrossFitted[MemoryBank]:
        """Choose vectors within each fold, and from these the bank of all folds and of all but one.

        All folds but one contribute twice as many vectors as the bank has, so that the second choice has one.
        """
        if self._projection is None:
            self._start()
        assert self._projection is not None  # noqa: S101 - `_start` has set it
        center, projection = self._projection
        size = max(min(MAX_VECTORS, _MAX_PRODUCTS // (self._cells * projection.shape[1])), 1)
        share = -(-2 * size // (fit.folds.count - 1))
        chosen = [self._of_fold(fit.folds.held_out(fold), share, fit.folds.count) for fold in range(fit.folds.count)]

        def model(folds: Sequence[Tensor]) -> MemoryBank:
            vectors = torch.cat(list(folds))
            return MemoryBank(center, projection, vectors[farthest_points(vectors, size)])

        held_out = [model(chosen[:fold] + chosen[fold + 1 :]) for fold in range(fit.folds.count)]
        return CrossFitted(model(chosen), held_out)

    def _of_fold(self, images: Sequence[int], size: int, folds: int) -> Tensor:
        """Choose vectors from those of a fold's images: float32, (V, D)."""
        members = set(images)
        candidates = [each for each, image in zip(self._candidates, self._images, strict=True) if image in members]
        limit = max(_MAX_CANDIDATES // folds // len(candidates), 1)
        vectors = torch.cat([each[:limit] for each in candidates]).to(self._device, torch.float32)
        return vectors[farthest_points(vectors, size)]


def principal_components(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the center (C,) and the projection (C, D) onto the first components of standardised features (n, C)."""
    values = features.double()
    center = values.mean(0)
    scale = values.std(0).clamp_min(1e-4)
    standardised = (values - center) / scale
    covariance = standardised.T @ standardised / len(values)
    _, axes = torch.linalg.eigh(covariance)
    axes = axes.flip(1)[:, :DIMENSIONS]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    projection = axes * largest.sign() / scale[:, None]  # the sign of an axis is arbitrary: make it the same everywhere
    return center.float(), projection.float()


def farthest_points(vectors: Tensor, count: int) -> Tensor:
    """Choose vectors that cover all others, greedily: each next one is the farthest from those chosen before.

    This is the 2-approximation of the k-center problem of Gonzalez, Theoretical Computer Science 38 (1985), 293-306.

    Args:
        vectors: (n, D), n at least 1.
        count: how many to choose; all if there are fewer.

    Returns:
        Their indices, in the order in which they were chosen, starting with the vector nearest to the mean.
    """
    count = min(count, len(vectors))
    half_squares = vectors.square().sum(1) / 2
    index = int((half_squares - vectors @ vectors.mean(0)).argmin())
    chosen = [index]
    farness = torch.full((len(vectors),), torch.inf, device=vectors.device)
    for _ in range(count - 1):
        distances = torch.addmv(half_squares, vectors, vectors[index], alpha=-1).add_(half_squares[index])
        torch.minimum(farness, distances, out=farness)
        index = int(farness.argmax())
        chosen.append(index)
    return torch.tensor(chosen, device=vectors.device)


class MemoryBankDetector(FeatureDetector):
    """Scores images by the distance of their features to the nearest features of good parts."""

    name: ClassVar[str] = MemoryBank.name
    model_class = MemoryBank
