"""Cut a part out of an image, upright, in one resampling."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from core.vision.input.geometry import Affine, resample
from core.vision.input.part_mask import shrink
from core.vision.input.part_pose import Pose, find_pose
from core.vision.input.record import Upright

POSE: Final = "input_pose"
"""The reason of an image whose part is not found, or not in a pose or size that good parts have."""


@dataclass(frozen=True)
class UprightImage:
    """A part that was cut out.

    Attributes:
        image: of the mode of the original.
        to_image: maps the pixels of the part to those of the image that it was cut from.
        found: whether the pose was found, and the part has the size of good parts. If not, the image was prepared as
            well as possible.
    """

    image: Image.Image
    to_image: Affine
    found: bool


def cut_out(image: Image.Image, upright: Upright, size: tuple[int, int]) -> UprightImage:
    """Cut the part out of an image.

    Args:
        image: of mode RGB or F, 0 to 255, with square pixels.
        upright: what is known of the part.
        size: (width, height) of the result in pixels.
    """
    pose = find_pose(shrink(image), upright)
    to_image = (pose or _in_the_middle(upright)).to_image(upright, size, image.size)
    found = pose is not None and pose.fits(upright)
    return UprightImage(resample_reduced(image, to_image, size), to_image, found)


def resample_reduced(image: Image.Image, to_image: Affine, size: tuple[int, int]) -> Image.Image:
    """Resample an image as `core.vision.input.geometry.resample`, but reduce it first, so that nothing is aliased."""
    factor = max(math.hypot(to_image.xx, to_image.yx), math.hypot(to_image.xy, to_image.yy))
    if factor > 1:
        reduced = (max(round(image.width / factor), 1), max(round(image.height / factor), 1))
        scaling = Affine.scaling(reduced[0] / image.width, reduced[1] / image.height)
        image, to_image = image.resize(reduced, Image.Resampling.BILINEAR), scaling @ to_image
    resampled = resample(image, to_image, size)
    if resampled.mode != "F":
        return resampled
    return Image.fromarray(np.asarray(resampled).clip(0, 255))  # bicubic interpolation overshoots


def _in_the_middle(upright: Upright) -> Pose:
    """Return a pose in the middle of an image, as it lies."""
    return Pose(
        x=0.5,
        y=0.5,
        degrees=0.0,
        length=upright.length,
        width=upright.width,
        size=upright.size,
        complete=False,
    )
