"""The bit depths of images: the highest grey level is 2 ** depth - 1."""

from typing import Final, Literal, get_args

BitDepth = Literal[8, 10, 12, 14, 16]
BIT_DEPTHS: Final[tuple[BitDepth, ...]] = get_args(BitDepth)

BitDepthChoice = Literal["auto", BitDepth]
"""What a training is asked for: a bit depth, or `auto` to take that of the images."""
