"""The images that every contender gets: synthetic, because only their decoding counts, and each one distinct."""

import io
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from PIL import Image

_SCENES: Final = 8
_NOISE: Final = 5.0  # grey levels; a JPEG of 900 × 900 then has about 92 kB, like those of a camera
_QUALITY: Final = 75


@dataclass(frozen=True)
class Kind:
    """A kind of image.

    Attributes:
        name: for the tables.
        format: `JPEG` or `PNG`.
        width, height: pixels.
    """

    name: str
    format: Literal["JPEG", "PNG"]
    width: int
    height: int

    @property
    def media_type(self) -> str:
        return f"image/{self.format.lower()}"


JPEG: Final = Kind("JPEG 900²", "JPEG", 900, 900)
PNG: Final = Kind("PNG 900²", "PNG", 900, 900)
LARGE_JPEG: Final = Kind("JPEG 5 MP", "JPEG", 2448, 2048)


def make_scenes(kind: Kind) -> list[bytes]:
    """Return a few encoded images. A number after the end of the image, where no decoder reads, makes more of them."""
    return [_encode(kind, seed) for seed in range(_SCENES)]


def distinct_images(kind: Kind, number: int) -> list[bytes]:
    """Return this many images that differ in their bytes."""
    scenes = make_scenes(kind)
    return [scenes[index % len(scenes)] + suffix(index) for index in range(number)]


def suffix(number: int) -> bytes:
    """Return what is appended to a scene to make it distinct: 8 bytes."""
    return number.to_bytes(8, "big")


def _encode(kind: Kind, seed: int) -> bytes:
    rows, columns = np.mgrid[0 : kind.height, 0 : kind.width]
    scene = 80 + 40 * np.sin(columns / 17) + 30 * np.cos(rows / 23)
    grey = scene + np.random.default_rng(seed).normal(0, _NOISE, scene.shape)
    levels = grey.clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).convert("RGB").save(file, kind.format, quality=_QUALITY)
    return file.getvalue()
