"""Features of an image from a frozen backbone, on one grid: the input of the feature detectors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor, nn

from core.vision.detectors.backbone import CELL_PIXELS, LITE0, build_backbone
from core.vision.input.preprocessing import PreparedImage
from core.vision.training.augmentation import augment
from core.vision.training.fit_interface import PreparedImages

DEFAULT_SIDE: Final = 256
"""A prepared image has the area of a square with this side, in pixels, unless a side is requested."""
_MAX_ASPECT_RATIO: Final = 8.0
_GRID_CELLS: Final = 7 / 8
"""Cells of the grid per cell of the coarsest layer, along a side. Below 1 the cells overlap, which smooths: on the
development half of elpv poly the AUROC was 0.940 with overlap and 0.934 without, on mono 0.975 and 0.977."""
_SPREAD: Final = {LITE0: 0.35}
"""Standard deviation that images are scaled to, by backbone; torchvision's networks expect about 0.8."""
_MAX_CHANNELS: Final = 4096
_MAX_SAMPLE_BYTES: Final = 512 * 1024**2
_MIN_DEVIATION: Final = 0.02
"""Images are divided by at least this standard deviation, of values from -1 to 1: two or three grey levels."""
_MINIBATCH_SIZE: Final = 64
_CHUNK_SIZE: Final = {"cpu": 1, "cuda": 32}
"""Images in one forward pass, by device. On a CPU the early layers of one image just fit its caches: eight images in
one pass take twice the time."""


def input_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Return the (width, height) of prepared images.

    They keep the aspect ratio of the image, rounded to whole cells, and have the area of a square of `side` pixels.
    """
    aspect = min(max(size[0] / size[1], 1 / _MAX_ASPECT_RATIO), _MAX_ASPECT_RATIO)
    side = DEFAULT_SIDE if side is None else side
    width, height = (
        max(round(length / CELL_PIXELS), 2) * CELL_PIXELS for length in (side * aspect**0.5, side / aspect**0.5)
    )
    return width, height


@dataclass(frozen=True)
class FeatureSettings:
    """The settings of a feature extractor.

    Attributes:
        backbone: one of `core.vision.detectors.backbone.BACKBONES`.
        width, height: of the prepared images, pixels; multiples of 16, 32 to 4096.
    """

    backbone: str
    width: int
    height: int

    def __post_init__(self) -> None:
        sides = (self.width, self.height)
        if not all(
            isinstance(side, int) and 2 * CELL_PIXELS <= side <= 4096 and side % CELL_PIXELS == 0 for side in sides
        ):
            raise ValueError(
                f"the image must be 32 to 4096 pixels, multiples of {CELL_PIXELS}, not {sides[0]} × {sides[1]}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the features."""
        return max(round(self.height / CELL_PIXELS * _GRID_CELLS), 1), max(
            round(self.width / CELL_PIXELS * _GRID_CELLS), 1
        )


class FeatureExtractor:
    """Extracts standardised features from prepared images.

    Each image is first normalised to mean 0 and a fixed standard deviation, so a gain or an offset of the camera
    changes nothing, apart from the values that it clips.
    """

    def __init__(self, network: nn.Module, settings: FeatureSettings, device: str) -> None:
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._settings = settings
        self._device = device
        self._spread = _SPREAD.get(settings.backbone, 0.8)
        self._center: Tensor | None = None
        self._scale: Tensor | None = None

    def fit_scale(self, sample: Tensor) -> None:
        """Set the mean and standard deviation of each channel from a sample of raw features."""
        channels = sample.shape[1]
        total, squares, count = torch.zeros(channels), torch.zeros(channels), 0
        for start in range(0, len(sample), _MINIBATCH_SIZE):
            values = sample[start : start + _MINIBATCH_SIZE].double()
            total = total + values.sum((0, 2, 3))
            squares = squares + values.square().sum((0, 2, 3))
            count += values.shape[0] * values.shape[2] * values.shape[3]
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-4)
        self._center = mean.float()[None, :, None, None].to(self._device)
        self._scale = deviation.float()[None, :, None, None].to(self._device)

    def sample(self, images: PreparedImages, seed: int, *, augmented: bool) -> Tensor:
        """Extract raw features of a random sample of images, at most half a gigabyte: float16, (N, C, rows, columns).

        At the default size that is about 5,000 images. Statistics of a few hundred features get no better with
        more images.

        Args:
            images: prepared images.
            seed: of the sample and of the augmentation.
            augmented: whether to add an augmented copy of each image; see `core.vision.training.augmentation`.
        """
        rows, columns = self._settings.grid
        random = np.random.default_rng(seed)
        order = random.permutation(len(images)).tolist()
        sample: list[Tensor] = []
        max_images = 2 * len(order)
        for minibatch in images.minibatches(8, order):
            chosen = [
                each for image in minibatch for each in ([image, augment(image, random)] if augmented else [image])
            ]
            features = self._extract_raw(chosen).to("cpu", torch.float16)
            max_images = min(max_images, max(_MAX_SAMPLE_BYTES // (2 * features.shape[1] * rows * columns), 2))
            sample.extend(features.unbind())
            if len(sample) >= max_images:
                break
        return torch.stack(sample[:max_images])

    def standardise(self, raw: Tensor) -> Tensor:
        """Scale raw features so that each channel has mean 0 and variance 1: float32, on the device."""
        if self._center is None or self._scale is None:
            raise RuntimeError("fit_scale has not been called")
        return (raw.to(self._device, torch.float32) - self._center) / self._scale

    def standardise_all(self, sample: Tensor) -> Iterator[Tensor]:
        """Yield the standardised features of a sample, in minibatches."""
        for start in range(0, len(sample), _MINIBATCH_SIZE):
            yield self.standardise(sample[start : start + _MINIBATCH_SIZE])

    def extract(self, images: Sequence[PreparedImage]) -> Tensor:
        """Extract standardised features of N prepared images: float32, (N, C, rows, columns), on the device."""
        return self.standardise(self._extract_raw(images))

    def _extract_raw(self, images: Sequence[PreparedImage]) -> Tensor:
        step = _CHUNK_SIZE[self._device]
        with torch.inference_mode():
            chunks = [self._extract_chunk(images[start : start + step]) for start in range(0, len(images), step)]
        return torch.cat(chunks)

    def _extract_chunk(self, images: Sequence[PreparedImage]) -> Tensor:
        levels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2).to(torch.float32) / 128
        center = levels.mean((1, 2, 3), keepdim=True)
        spread = levels.std((1, 2, 3), keepdim=True).clamp_min(_MIN_DEVIATION)
        layers = self._network(
            ((levels - center) / spread * self._spread).contiguous(memory_format=torch.channels_last)
        )
        return torch.cat([nn.functional.adaptive_avg_pool2d(layer, self._settings.grid) for layer in layers], dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the backbone's weights as `backbone.*`, and `center` and `scale` of the channels, (C,)."""
        if self._center is None or self._scale is None:
            raise RuntimeError("fit_scale has not been called")
        weights = {f"backbone.{name}": value.cpu().contiguous() for name, value in self._network.state_dict().items()}
        return {**weights, "center": self._center.flatten().cpu(), "scale": self._scale.flatten().cpu()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], settings: FeatureSettings, device: str) -> Self:
        """Restore an extractor from the result of `state_dict`.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a tensor does not fit.
        """
        prefix = "backbone."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        center, scale = state["center"], state["scale"]
        if center.ndim != 1 or center.shape != scale.shape or not bool((scale > 0).all()):
            raise ValueError("the center or the scale of the features has a wrong shape, or the scale is not positive")
        if len(center) > _MAX_CHANNELS:  # networks are built for this number, so it is checked first
            raise ValueError(f"the features have {len(center)} channels, more than {_MAX_CHANNELS}")
        extractor = cls(build_backbone(settings.backbone, weights), settings, device)
        extractor._center = center[None, :, None, None].to(device)
        extractor._scale = scale[None, :, None, None].to(device)
        return extractor


def pool_maps(maps: Tensor) -> Tensor:
    """Return the score of each map (N, rows, columns): the mean of its highest 2 % of cells; float64, (N,).

    The maximum would follow single outliers, and the mean of the whole map would dilute small defects.
    """
    cells = maps.flatten(1)
    count = max(math.floor(0.02 * cells.shape[1] + 0.5), 1)
    return cells.topk(count, dim=1).values.mean(dim=1, dtype=torch.float64)
