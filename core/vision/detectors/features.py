"""What a frozen backbone says of an image, on one grid: the input of the detectors that stand on features."""

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
from core.vision.training.options import PreparedImages

DEFAULT_SIDE: Final = 256
"""Side, in pixels, of the square whose area a prepared image has unless wished otherwise."""
_ASPECT: Final = 8.0
"""The most by which one side of a prepared image exceeds the other."""
_GRID: Final = 7 / 8
"""Cells of the grid for each cell of the coarsest layer, along a side. The overlap smooths: on the development half of
elpv poly the AUROC was 0.940 with it and 0.934 without, on mono 0.975 and 0.977."""
_SPREAD: Final = {LITE0: 0.35}
"""Standard deviation that an image is brought to; torchvision's networks expect about 0.8."""
_KEPT_BYTES: Final = 512 * 1024**2
_DARKEST: Final = 0.02
"""The least standard deviation, of values from -1 to 1, by which an image is divided: two or three grey levels."""
_STEP: Final = 64
_CHUNK: Final = {"cpu": 1, "cuda": 32}
"""Images at once: on a CPU the early layers of one image just fit its caches; eight at once take twice the time."""


def input_size(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """(width, height) of the prepared images: the image's own shape, with the area of a square of `side` pixels."""
    aspect = min(max(size[0] / size[1], 1 / _ASPECT), _ASPECT)
    area = DEFAULT_SIDE if side is None else side
    width, height = (
        max(round(length / CELL_PIXELS), 2) * CELL_PIXELS for length in (area * aspect**0.5, area / aspect**0.5)
    )
    return width, height


@dataclass(frozen=True)
class FeatureSettings:
    """What features are made of. Sides are pixels and multiples of 16."""

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
        """(rows, columns)."""
        return max(round(self.height / CELL_PIXELS * _GRID), 1), max(round(self.width / CELL_PIXELS * _GRID), 1)


class FeatureExtractor:
    """Prepared images to standardised features.

    The light is taken out first: an image's mean becomes 0 and its spread a fixed one, so that a gain or an offset of
    the camera changes nothing but what it clips.
    """

    def __init__(self, network: nn.Module, settings: FeatureSettings, device: str) -> None:
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._settings = settings
        self._device = device
        self._spread = _SPREAD.get(settings.backbone, 0.8)
        self._center: Tensor | None = None
        self._scale: Tensor | None = None

    def learn_scale(self, gathered: Tensor) -> None:
        """Take the mean and the standard deviation of each channel from gathered features."""
        channels = gathered.shape[1]
        total, squares, count = torch.zeros(channels), torch.zeros(channels), 0
        for start in range(0, len(gathered), _STEP):
            values = gathered[start : start + _STEP].double()
            total = total + values.sum((0, 2, 3))
            squares = squares + values.square().sum((0, 2, 3))
            count += values.shape[0] * values.shape[2] * values.shape[3]
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-4)
        self._center = mean.float()[None, :, None, None].to(self._device)
        self._scale = deviation.float()[None, :, None, None].to(self._device)

    def gather(self, images: PreparedImages, seed: int, *, vary: bool) -> Tensor:
        """Raw features of the images, or of a random sample that fits into half a gigabyte: float16, (N, C, r, c).

        At the usual size these are some 5,000 images; statistics of a few hundred numbers get no better with more.

        Args:
            images: prepared ones.
            seed: of the sample and of the variants.
            vary: whether each is followed by a variant of itself; see `core.vision.training.augmentation`.
        """
        rows, columns = self._settings.grid
        random = np.random.default_rng(seed)
        order = random.permutation(len(images)).tolist()
        kept: list[Tensor] = []
        most = 2 * len(order)
        for some in images.minibatches(8, order):
            shown = [each for image in some for each in ([image, augment(image, random)] if vary else [image])]
            features = self._raw(shown).to("cpu", torch.float16)
            most = min(most, max(_KEPT_BYTES // (2 * features.shape[1] * rows * columns), 2))
            kept.extend(features.unbind())
            if len(kept) >= most:
                break
        return torch.stack(kept[:most])

    def standardised(self, raw: Tensor) -> Tensor:
        """Raw features in float32 on the device, each channel with mean 0 and variance 1."""
        if self._center is None or self._scale is None:
            raise RuntimeError("the features' scale has not been learned")
        return (raw.to(self._device, torch.float32) - self._center) / self._scale

    def minibatches(self, gathered: Tensor) -> Iterator[Tensor]:
        """Gathered features, standardised, some at a time."""
        for start in range(0, len(gathered), _STEP):
            yield self.standardised(gathered[start : start + _STEP])

    def of(self, images: Sequence[PreparedImage]) -> Tensor:
        """Standardised features of N prepared images: float32, (N, C, rows, columns), on the device."""
        return self.standardised(self._raw(images))

    def _raw(self, images: Sequence[PreparedImage]) -> Tensor:
        step = _CHUNK[self._device]
        with torch.inference_mode():
            chunks = [self._read(images[start : start + step]) for start in range(0, len(images), step)]
        return torch.cat(chunks)

    def _read(self, images: Sequence[PreparedImage]) -> Tensor:
        levels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2).to(torch.float32) / 128
        center = levels.mean((1, 2, 3), keepdim=True)
        spread = levels.std((1, 2, 3), keepdim=True).clamp_min(_DARKEST)
        layers = self._network(
            ((levels - center) / spread * self._spread).contiguous(memory_format=torch.channels_last)
        )
        return torch.cat([nn.functional.adaptive_avg_pool2d(layer, self._settings.grid) for layer in layers], dim=1)

    def state_dict(self) -> dict[str, Tensor]:
        """The backbone's weights as `backbone.*`, and the channels' `center` and `scale`, (C,)."""
        if self._center is None or self._scale is None:
            raise RuntimeError("the features' scale has not been learned")
        weights = {f"backbone.{name}": value.cpu().contiguous() for name, value in self._network.state_dict().items()}
        return {**weights, "center": self._center.flatten().cpu(), "scale": self._scale.flatten().cpu()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], settings: FeatureSettings, device: str) -> Self:
        """What `state_dict` gave.

        Raises:
            KeyError, ValueError: it did not.
        """
        prefix = "backbone."
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        features = cls(build_backbone(settings.backbone, own), settings, device)
        center, scale = state["center"], state["scale"]
        if center.ndim != 1 or center.shape != scale.shape or not bool((scale > 0).all()):
            raise ValueError("the features' scale has an odd shape")
        features._center = center[None, :, None, None].to(device)
        features._scale = scale[None, :, None, None].to(device)
        return features


def pool_maps(maps: Tensor) -> Tensor:
    """The score of each map (N, rows, columns): the mean of its top 2 % of cells, at least one; float64, (N,).

    The maximum follows single odd cells; the mean of the whole dilutes small defects.
    """
    cells = maps.flatten(1)
    count = max(math.floor(0.02 * cells.shape[1] + 0.5), 1)
    return cells.topk(count, dim=1).values.mean(dim=1, dtype=torch.float64)
