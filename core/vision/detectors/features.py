"""Features of an image from a frozen backbone: the input of what the feature detectors learn."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from core.vision.detectors.backbone import LITE0, describe
from core.vision.detectors.compiled_network import IS_AVAILABLE, CompiledNetwork
from core.vision.detectors.image_tensors import to_device
from core.vision.input.alignment import Alignment
from core.vision.input.prepared_image import PreparedImage
from core.vision.training.augmentation import augment
from core.vision.training.fit_interface import PreparedImages

DEFAULT_SIDE: Final = 256
"""A prepared image has the area of a square with this side, in pixels, unless a side is requested."""
_MAX_ASPECT_RATIO: Final = 8.0
_MIN_DEVIATION: Final = 0.02
"""Images are divided by at least this standard deviation, of values from -1 to 1: two or three grey levels."""
_CHUNK_SIZE: Final = {"cpu": 1, "cuda": 32}
"""Images in one forward pass, by device. On a CPU the early layers of one image just fit its caches: eight images in
one pass take twice the time."""
_READ_SIZE: Final = 8

Layers = list[Tensor]
"""The raw outputs of a backbone for N images: float32, each (N, channels, rows, columns), the finest grid first."""


def input_size(size: tuple[int, int], side: int | None, backbone: str = LITE0) -> tuple[int, int]:
    """Return the (width, height) of prepared images.

    They keep the aspect ratio of the image, rounded to whole cells of the backbone, and have the area of a square of
    `side` pixels.
    """
    aspect = min(max(size[0] / size[1], 1 / _MAX_ASPECT_RATIO), _MAX_ASPECT_RATIO)
    side = DEFAULT_SIDE if side is None else side
    cell = describe(backbone).cell_pixels
    width, height = (max(round(length / cell), 2) * cell for length in (side * aspect**0.5, side / aspect**0.5))
    return width, height


class FeatureExtractor:
    """Computes the layers of a backbone for prepared images.

    Each image is first normalised to mean 0 and a fixed standard deviation, so a gain or an offset of the camera
    changes nothing, apart from the values that it clips.
    """

    def __init__(self, network: nn.Module, backbone: str, device: str) -> None:
        self.network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self._run: Callable[[Tensor], Layers] = self.network
        self._spread = describe(backbone).spread

    def compile(self, size: tuple[int, int]) -> None:
        """Compile the network for images of this (width, height); see `Detector.compile`."""
        if self.device == "cpu" and IS_AVAILABLE:
            self._run = CompiledNetwork(self.network, (3, size[1], size[0]), cores=torch.get_num_threads())

    def layers(self, images: Sequence[PreparedImage]) -> Layers:
        """Compute the layers for N prepared images of one size, at least one; on the device."""
        step = _CHUNK_SIZE[self.device]
        with torch.inference_mode():
            chunks = [self._chunk(images[start : start + step]) for start in range(0, len(images), step)]
        return [torch.cat(parts) for parts in zip(*chunks, strict=True)]

    def _chunk(self, images: Sequence[PreparedImage]) -> Layers:
        levels = to_device(images, self.device).to(torch.float32) / 128
        center = levels.mean((1, 2, 3), keepdim=True)
        spread = levels.std((1, 2, 3), keepdim=True).clamp_min(_MIN_DEVIATION)
        normalised = ((levels - center) / spread * self._spread).contiguous(memory_format=torch.channels_last)
        return self._run(normalised)


@dataclass(frozen=True)
class FeatureBatch:
    """The layers of a few images of good parts.

    Attributes:
        layers: of the images.
        images: the index of each image in its set.
        augmented: whether each is an augmented copy.
    """

    layers: Layers
    images: list[int]
    augmented: list[bool]


def training_features(
    extractor: FeatureExtractor, images: PreparedImages, seed: int, alignment: Alignment | None
) -> Iterator[FeatureBatch]:
    """Compute the layers of all images in random order, each followed by that of an augmented copy of it.

    Args:
        extractor: of the backbone.
        images: prepared images of good parts.
        seed: of the order and of the augmentation; see `core.vision.training.augmentation`.
        alignment: how the images are aligned; None if they are not.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(images)).tolist()
    for number, minibatch in enumerate(images.minibatches(_READ_SIZE, order)):
        indices = order[number * _READ_SIZE : number * _READ_SIZE + len(minibatch)]
        pairs = [each for image in minibatch for each in (image, augment(image, random, alignment))]
        repeated = [index for index in indices for _ in range(2)]
        yield FeatureBatch(extractor.layers(pairs), repeated, [False, True] * len(indices))


class ChannelScale:
    """Standardises channels to mean 0 and variance 1.

    Attributes:
        center, scale: float32, (C,); the scale is positive.
    """

    def __init__(self, center: Tensor, scale: Tensor) -> None:
        if center.ndim != 1 or center.shape != scale.shape or not bool((scale > 0).all()):
            raise ValueError("the center or the scale of the features has a wrong shape, or the scale is not positive")
        self.center, self.scale = center, scale

    @classmethod
    def from_features(cls, features: Sequence[Tensor]) -> "ChannelScale":
        """Compute the mean and the standard deviation of each channel over features (n, C, rows, columns)."""
        total, squares, count = torch.zeros(()), torch.zeros(()), 0
        for each in features:
            values = each.double()
            total = total + values.sum((0, 2, 3))
            squares = squares + values.square().sum((0, 2, 3))
            count += values.shape[0] * values.shape[2] * values.shape[3]
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(1e-4)
        return cls(mean.float(), deviation.float())

    def apply(self, raw: Tensor) -> Tensor:
        """Standardise features (N, C, rows, columns): float32, on the device of the scale."""
        return (raw.to(self.center.device, torch.float32) - self.center[:, None, None]) / self.scale[:, None, None]

    def to(self, device: str) -> "ChannelScale":
        """Return a copy on the device."""
        return ChannelScale(self.center.to(device), self.scale.to(device))


Reduce = Callable[[Layers], Tensor]
"""Brings layers of N images onto one grid: (N, C, rows, columns)."""
