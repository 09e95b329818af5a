"""The record of a preprocessing in a manifest: everything that prepares an image the same way again.

Reading a manifest imports neither torch nor scipy.
"""

import hashlib
import math
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from core.models.bit_depths import BitDepth
from core.vision.input.alignment import Alignment

PILLOW: Final = "bilinear-antialias"
"""Pillow's resize."""
MARGIN: Final = 0.08
"""Background around the part, as a share of its length and width, on each side."""
_DECODE_MARGIN: Final = 2

Share = Annotated[float, Field(gt=0)]
ResizeMethod = Literal["bilinear-antialias", "bilinear-antialias-torch"]
Axis = Literal["none", "area", "sides", "lines"]


class Upright(BaseModel):
    """What the parts have in common. Lengths are shares of the square root of the area of the image.

    Attributes:
        length, width: of the part, along and across its axis.
        size: the square root of its area.
        axis: what is turned to the horizontal, see `core.vision.input.part_pose`; none of a round part.
        lopsided: whether one end has more area, and is brought to the right; if not, the brighter end is.
        inside: whether it is away from the border of the image.
        shadow: whether it has a shadow, which is then left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    length: Share
    width: Share
    size: Share
    axis: Axis
    lopsided: bool
    inside: bool
    shadow: bool

    def crop(self, image_size: tuple[float, float]) -> tuple[float, float]:
        """Return the (width, height) of what is cut out of an image of this size, in its pixels."""
        unit = math.sqrt(image_size[0] * image_size[1])
        return self.length * unit * (1 + 2 * MARGIN), self.width * unit * (1 + 2 * MARGIN)


class Preprocessing(BaseModel):
    """How an image is resized for the network. `core.intake.image_decoding.decode` handles its colours.

    Attributes:
        width, height: of the prepared image, pixels; the aspect ratio is not kept.
        resize: a bilinear filter that widens when an image shrinks. `bilinear-antialias-torch` is torch's
            `interpolate` of 8-bit levels. `bilinear-antialias` is Pillow's BILINEAR, which bundles from before the
            other one have. They differ by at most a level. Deep grey and turned parts are always resized by Pillow.
        scaled_decode: whether a JPEG is decoded at a reduced scale, never below twice the prepared size. That is
            faster and changes scores slightly, so training and scoring must use the same value.
        bit_depth: of the training images, see `core.vision.input.bit_depth`. Old bundles do not have it: None reduces
            every image to 8 bits, and checks no depth.
        upright: how the part is found, turned upright and cut out; None to resize the whole image. See
            `core.vision.input.part_pose`.
        alignment: how small shifts and turns are undone; None to leave them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    width: Annotated[int, Field(ge=8, le=4096)]
    height: Annotated[int, Field(ge=8, le=4096)]
    resize: ResizeMethod = "bilinear-antialias-torch"
    scaled_decode: bool
    bit_depth: BitDepth | None = None
    upright: Upright | None = None
    alignment: Alignment | None = None

    @property
    def pose(self) -> Literal["as-is", "upright"]:
        """Whether the part is turned upright."""
        return "as-is" if self.upright is None else "upright"

    def covered(self, image_size: tuple[float, float]) -> tuple[float, float]:
        """Return the (width, height) of what a prepared image shows of an image of this size, in its pixels."""
        return image_size if self.upright is None else self.upright.crop(image_size)

    @property
    def decoded_size(self) -> tuple[int, int] | None:
        """The smallest (width, height) that a JPEG may be decoded at; None to decode it in full size."""
        if not self.scaled_decode:
            return None
        width, height = _DECODE_MARGIN * self.width, _DECODE_MARGIN * self.height
        if self.upright is None:
            return width, height
        shown = self.upright.crop((1.0, 1.0))
        side = math.ceil(max(width / shown[0], height / shown[1]))
        return side, side

    @property
    def digest(self) -> str:
        """The SHA-256, in hexadecimal, of all fields and values; fields that are None do not count."""
        fields = self.model_dump(exclude_none=True)
        canonical = ",".join(f"{name}={value}" for name, value in sorted(fields.items()))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.float32]:
        """The type of the values of a prepared image."""
        return np.dtype(np.uint8) if self.bit_depth in (None, 8) else np.dtype(np.float32)
