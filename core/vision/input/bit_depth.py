"""Bit depth: which one an image has, and how its grey levels are scaled for the network.

Training and serving use one rule. An image has, as its bit depth,

1. 8, unless it is grey of more than 8 bits per sample; of deeper colour, the upper 8 bits of each channel are used;
2. the depth that the file names (PNG's sBIT, TIFF's BitsPerSample below 16), or the next one of 8, 10, 12, 14 and 16;
   16 if its levels are higher than that, because PNG scales levels of fewer bits to the whole 16;
3. the depth that the detector was trained on, if the levels fit, because 16 bits may hold any depth;
4. otherwise the smallest depth that holds its levels.

An image of another depth than the training images gets the reason `input_depth`. A depth that the file does not name is
only known by its highest level: a dark image of more bits looks like one of fewer bits, and fails other checks.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.intake.deep_grey import DeepGrey
from core.intake.image_decoding import decode_stored
from core.models.bit_depths import BIT_DEPTHS, BitDepth

DEPTH: Final = "input_depth"


def full_level(depth: int) -> int:
    """Return the highest level of a depth: 4095 for 12 bits."""
    return (1 << depth) - 1


def smallest_depth(level: int) -> BitDepth:
    """Return the smallest depth that holds a level of 0 to 65535."""
    return next(depth for depth in BIT_DEPTHS if level <= full_level(depth))


@dataclass(frozen=True)
class DepthEvidence:
    """What is known about the depth of an image.

    Attributes:
        named: by rules 1 and 2; None if the file names none.
        smallest: the smallest depth that holds the levels.
    """

    named: BitDepth | None
    smallest: BitDepth

    def depth(self, trained: BitDepth) -> BitDepth:
        """Return the depth of the image, if the detector was trained on images of the depth `trained`."""
        return self.named or max(self.smallest, trained)


EIGHT_BITS: Final = DepthEvidence(named=8, smallest=8)


Content = Image.Image | DeepGrey | NDArray[np.uint8]
"""See `core.intake.image_decoding.Decoded`."""


def depth_evidence(content: Content) -> DepthEvidence:
    """Return what is known about the depth of an image; see `core.intake.image_decoding.Decoded.content`."""
    if not isinstance(content, DeepGrey):
        return EIGHT_BITS
    smallest = smallest_depth(content.highest)
    if content.named_bits is None:
        return DepthEvidence(None, smallest)
    named = smallest_depth(full_level(content.named_bits))
    return DepthEvidence(named if smallest <= named else 16, smallest)


def scale_levels(levels: NDArray[np.uint16], depth: int) -> NDArray[np.float32]:
    """Return level · 255 / (2 ** depth - 1): float32, 0 to 255, a different value for every level."""
    scaled = levels.astype(np.float32)
    scaled *= 255  # exact: 255 · 65535 < 2 ** 24
    scaled /= full_level(depth)
    return scaled


@dataclass(frozen=True)
class Scaled:
    """An image whose levels are scaled to 0 to 255.

    Attributes:
        image: mode RGB, or, for deep grey of a detector that was trained on more than 8 bits, mode F; or RGB pixels,
            uint8, (height, width, 3).
        fits: whether it has the depth of the training images, or that depth is unknown.
    """

    image: Image.Image | NDArray[np.uint8]
    fits: bool


def scale(content: Content, trained: BitDepth | None) -> Scaled:
    """Scale an image by its own depth, so that one of another depth than trained on is comparable, too.

    Args:
        content: see `core.intake.image_decoding.Decoded`.
        trained: the depth of the training images; None if unknown, and then levels are reduced to 8 bits by the bits
            of the container, as `core.intake.image_decoding.decode` does.
    """
    if trained is None:
        return Scaled(content.to_rgb() if isinstance(content, DeepGrey) else content, fits=True)
    depth = depth_evidence(content).depth(trained)
    if not isinstance(content, DeepGrey):
        return Scaled(content, fits=depth == trained)
    image = content.to_rgb(depth) if trained == 8 else Image.fromarray(scale_levels(content.levels, depth))
    return Scaled(image, fits=depth == trained)


def to_image(pixels: Image.Image | NDArray[np.uint8]) -> Image.Image:
    """Return an image as Pillow's, which pixels are copied to."""
    return pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.ascontiguousarray(pixels))


def decode_visible(
    data: bytes, trained: BitDepth | None, *, max_pixels: int, at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Decode an image for people: 8-bit RGB, with the levels scaled as for the network.

    Args:
        data, max_pixels, at_least: see `core.intake.image_decoding.decode`.
        trained: see `scale`.

    Raises:
        core.intake.image_decoding.Undecodable: the bytes cannot be decoded as an image.
    """
    content = decode_stored(data, max_pixels=max_pixels, at_least=at_least).content
    if not isinstance(content, DeepGrey):
        return to_image(content)
    return content.to_rgb(None if trained is None else depth_evidence(content).depth(trained))
