"""The foreground: the one part in an image, on an even background."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Mask = NDArray[np.bool_]

_SIDE: Final = 160
"""The longest side of the small copy in pixels."""
_GAP: Final = 2
"""Pixels by which the foreground grows and shrinks to close its gaps."""
_RING_SHARE: Final = 0.03
_FITS: Final = 3
_EVEN_SHARE: Final = 0.9
"""Share of the pixels along the edge of an image that must be background."""
_NOISE_DEVIATIONS: Final = 6.0
_MIN_NOISE: Final = 0.7
"""Standard deviation in grey levels that every background may have: rounding and a little shading."""
CONTRASTS: Final = (0.5, 0.35, 0.25, 0.15)
"""Shares of the contrast of a part from which a pixel may count as foreground. A higher one leaves out the shadow of the
part; a lower one keeps a part together that is partly as bright as the background."""
_SMALLEST: Final = 0.002
"""Share of the image that a part covers at least."""
_OTHERS: Final = 0.15
"""All other foreground together covers at most this share of the part."""


@dataclass(frozen=True)
class Foreground:
    """The part in a small copy of an image.

    Attributes:
        mask: (rows, columns): where the part is, its holes included.
        grey: float32, (rows, columns): the levels of the small copy.
        step: pixels of the image for each pixel of the small copy.
        certain: whether the background is even, and the part is the only one and within the image.
    """

    mask: Mask
    grey: NDArray[np.float32]
    step: int
    certain: bool


def find_foreground(image: Image.Image, contrast: float) -> Foreground | None:
    """Find the part in an image, whatever its levels are; None if nothing differs from the background.

    The background is a plane of levels through the pixels along the edges of the image. The part is the largest
    connected area that differs from it, with its holes filled.

    Args:
        image: of mode RGB or F.
        contrast: the share of the highest difference from the background from which a pixel is foreground, 0 to 1.
    """
    step = math.ceil(max(image.size) / _SIDE)
    small = np.asarray(image.reduce(step), dtype=np.float32)
    levels = small.reshape(*small.shape[:2], -1)
    distance, even = _distance_from_background(levels, contrast)
    areas = label(_close_gaps(distance >= 1))
    sizes = np.bincount(areas.ravel())
    sizes[0] = 0
    largest = int(sizes.argmax())
    if sizes[largest] < max(_SMALLEST * areas.size, 9):
        return None
    mask = fill_holes(areas == largest)
    others = int(sizes[np.unique(areas[~mask])].sum())
    touches = bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
    certain = even and not touches and others <= _OTHERS * int(mask.sum())
    return Foreground(mask, levels.mean(axis=2), step, certain)


def _close_gaps(distinct: Mask) -> Mask:
    """Remove single pixels, then fill gaps of up to four pixels: where the part is as bright as the background.

    That keeps an outline closed of which a piece cannot be told from the background.
    """
    image = Image.fromarray(np.pad(distinct, _GAP).astype(np.uint8) * 255).filter(ImageFilter.MedianFilter(3))
    width = 2 * _GAP + 1
    grown = fill_holes(np.asarray(image.filter(ImageFilter.MaxFilter(width))) > 0)
    closed = np.asarray(Image.fromarray(grown.astype(np.uint8) * 255).filter(ImageFilter.MinFilter(width))) > 0
    return closed[_GAP:-_GAP, _GAP:-_GAP]


def _distance_from_background(levels: NDArray[np.float32], contrast: float) -> tuple[NDArray[np.float32], bool]:
    """Return how much each pixel differs from the background, 1 and up for the foreground, and whether it is even."""
    rows, columns, _ = levels.shape
    width = max(round(_RING_SHARE * min(rows, columns)), 2)
    ring = np.ones((rows, columns), dtype=np.bool_)
    ring[width:-width, width:-width] = False
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    terms = np.stack([np.ones_like(x), x / columns, y / rows], axis=-1)
    edge_terms, edge_levels = terms[ring], levels[ring]
    near = np.ones(len(edge_levels), dtype=np.bool_)
    plane = np.zeros((3, levels.shape[2]), dtype=np.float32)
    plane[0] = np.median(edge_levels, axis=0)
    noise = math.inf
    for _ in range(_FITS):
        residuals = np.linalg.norm(edge_levels - edge_terms @ plane, axis=1)
        noise = max(float(np.median(residuals)), _MIN_NOISE)
        near = residuals <= 3 * noise
        plane = np.linalg.lstsq(edge_terms[near], edge_levels[near], rcond=None)[0]
    distance = np.linalg.norm(levels - terms @ plane, axis=2)
    threshold = max(_NOISE_DEVIATIONS * noise, contrast * float(np.quantile(distance, 0.99)))
    relative: NDArray[np.float32] = (distance / threshold).astype(np.float32)
    return relative, float((relative[ring] < 1).mean()) >= _EVEN_SHARE


def label(mask: Mask) -> NDArray[np.intp]:
    """Number the connected areas of a mask, by their sides: (rows, columns), 0 outside, counted from 1.

    Horizontal runs of pixels are joined with those that they touch in the row below.
    """
    rows, columns = mask.shape
    padded = np.zeros((rows, columns + 1), dtype=np.int8)
    padded[:, :columns] = mask
    # The last column separates the rows, so that runs lie one after another in the flat image.
    changes = np.diff(padded.ravel(), prepend=0)
    starts, ends = np.flatnonzero(changes == 1), np.flatnonzero(changes == -1)
    first = np.searchsorted(ends, starts + columns + 1, side="right")
    last = np.searchsorted(starts, ends + columns + 1, side="left")
    parents = list(range(len(starts)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    for run, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for below in range(begin, end):
            parents[root(below)] = root(run)
    _, numbers = np.unique([root(run) for run in range(len(starts))], return_inverse=True)
    labels = np.zeros(padded.size, dtype=np.intp)
    labels[np.flatnonzero(padded.ravel())] = np.repeat(numbers + 1, ends - starts)
    return labels.reshape(padded.shape)[:, :columns]


def fill_holes(mask: Mask) -> Mask:
    """Return the mask with all areas that are not connected with the edge of the image filled."""
    outside = label(~np.pad(mask, 1))
    filled: Mask = (outside != outside[0, 0])[1:-1, 1:-1]
    return filled
