"""Where the part is in an image, and how much its own grey levels vary: what a synthetic defect is fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from core.vision.input.part_mask import find_part, shrink
from core.vision.input.prepared_image import PreparedImage

_SAMPLE = 48
"""Images that the appearance is learned from, evenly chosen."""
_MIN_SHARE_OF_IMAGES = 0.8
_WINDOW = 1 / 16
"""The side of the window of a local deviation, as a share of the side of the part."""
_MIN_DEVIATION = 1.0


@dataclass(frozen=True)
class Foreground:
    """The place of the part in one image.

    Attributes:
        mask: bool, (height, width); true on the part. All true if there is no even background.
        background: float32, (3,), the colour around the part, 0 to 255; None without an even background.
    """

    mask: NDArray[np.bool_]
    background: NDArray[np.float32] | None


@dataclass(frozen=True)
class PartAppearance:
    """What the images of good parts have in common.

    Attributes:
        has_background: whether the part lies on an even background. If not, the whole image is the part.
        area: the share of the image that the part covers, above 0 and up to 1.
        deviation: how much the part varies around a place, grey levels, at least 1: the median over the part of the
            standard deviation within a sixteenth of its side.
    """

    has_background: bool
    area: float
    deviation: float

    def foreground(self, image: PreparedImage) -> Foreground:
        """Return where the part is in an image. If it cannot be found there, it is the whole image."""
        found = _find_foreground(image) if self.has_background else None
        return found or Foreground(np.ones(image.shape[:2], dtype=np.bool_), None)

    def side(self, width: float, height: float) -> float:
        """Return the side of the part, the square root of its area, in an image of this size; in the same unit."""
        return float(np.sqrt(self.area * width * height))


def learn_appearance(images: Sequence[PreparedImage]) -> PartAppearance:
    """Learn the appearance of a part from prepared images of good parts.

    Args:
        images: at least one; uint8 or float32, (height, width, 3), 0 to 255.
    """
    sample = [images[index * len(images) // min(len(images), _SAMPLE)] for index in range(min(len(images), _SAMPLE))]
    found = [_find_foreground(image) for image in sample]
    areas = [float(each.mask.mean()) for each in found if each is not None]
    has_background = len(areas) >= _MIN_SHARE_OF_IMAGES * len(sample)
    area = float(np.median(areas)) if has_background else 1.0
    masks = [each.mask if has_background and each is not None else None for each in found]
    deviations = [_local_deviation(image, mask, area) for image, mask in zip(sample, masks, strict=True)]
    return PartAppearance(has_background, area, max(float(np.median(deviations)), _MIN_DEVIATION))


def _local_deviation(image: PreparedImage, mask: NDArray[np.bool_] | None, area: float) -> float:
    grey = image.mean(axis=2, dtype=np.float32)
    window = max(3, round(_WINDOW * float(np.sqrt(area * grey.size))))
    mean, square = ndimage.uniform_filter(grey, window), ndimage.uniform_filter(grey**2, window)
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return float(np.median(deviation if mask is None else deviation[mask]))


def _find_foreground(image: PreparedImage) -> Foreground | None:
    """Return the part and the colour around it, or None if it does not lie on an even background."""
    height, width = image.shape[:2]
    # Images of more than 8 bits are grey.
    small = shrink(Image.fromarray(image if image.dtype == np.uint8 else image.mean(axis=2, dtype=np.float32)))
    part = find_part(small, shadow=False)
    if part is None:
        return None
    mask = Image.fromarray(part).resize((width, height), Image.Resampling.NEAREST)
    return Foreground(np.asarray(mask, dtype=np.bool_), np.median(small[:, ~part], axis=1))
