"""The part in an image: what differs from an even background around it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

SIDE: Final = 128
"""The longest side, in pixels, of the copy in which the part is found."""
_MIN_SIDE: Final = 8
"""No part is found in a copy that is narrower, of a tiny or very long image."""
_BORDER: Final = 0.03
"""The width of the border that shows the background, as a share of the side."""
_NOISE_FACTOR: Final = 5.0
_MIN_DIFFERENCE: Final = 6.0
"""A pixel of the part differs from the background by at least this many grey levels."""
_SHADOW, _STRONG = 0.35, 0.9
"""Shadows differ by less than this share of what the strongest tenth of the part differs by."""
_MIN_AREA, _MAX_AREA = 0.02, 0.95
_MIN_EVEN: Final = 0.85
"""Share of the border that must show the background: a part may touch the border, a texture covers it."""
_MAX_NOISE_SHARE: Final = 0.5
"""The background may vary by at most this share of the variation within the part,"""
_FLAT_CONTRAST: Final = 20.0
"""unless the part, a silhouette for example, differs from it by this multiple of its noise."""

Channels = NDArray[np.float32]
"""float32, (3, rows, columns), 0 to 255."""


def find_part(small: Channels, *, shadow: bool) -> NDArray[np.bool_] | None:
    """Find what differs from an even background at the border of an image.

    Args:
        small: see `shrink`.
        shadow: whether to leave out what differs little, as the shadow of a part does.

    Returns:
        bool, (rows, columns), true on the part; None if there is no such background, or no part on it.
    """
    if min(small.shape[1:]) < _MIN_SIDE:
        return None
    border = _border(small.shape[1:])
    difference = _difference(small, _fit_plane(small, border))
    # 1.4826 × the median absolute deviation is the standard deviation of a normal distribution.
    noise = 1.4826 * float(np.median(difference[border]))
    smooth = ndimage.uniform_filter(difference, 3)
    mask = _solid(smooth > max(_NOISE_FACTOR * noise, _MIN_DIFFERENCE))
    if shadow and mask.any():
        mask = _solid(smooth > max(_SHADOW * float(np.quantile(smooth[mask], _STRONG)), _MIN_DIFFERENCE))
    if not _MIN_AREA <= mask.mean() <= _MAX_AREA or (~mask[border]).mean() < _MIN_EVEN:
        return None
    flat = float(np.median(difference[mask])) >= _FLAT_CONTRAST * noise
    return mask if flat or noise <= _MAX_NOISE_SHARE * float(small[:, mask].std()) else None


def shrink(image: Image.Image) -> Channels:
    """Reduce an image of mode RGB or F, 0 to 255, so that its longest side has `SIDE` pixels or fewer."""
    scale = min(1.0, SIDE / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = np.asarray(image.resize(size, Image.Resampling.BOX), dtype=np.float32)
    return np.stack([small] * 3) if small.ndim == 2 else np.ascontiguousarray(np.moveaxis(small, 2, 0))


def _solid(differs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the areas without holes and specks."""
    closed = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(differs, 2), iterations=2))[2:-2, 2:-2]
    # The mean of 3 × 3 pixels has made the part one pixel larger.
    return _without_specks(ndimage.binary_erosion(ndimage.binary_opening(closed), border_value=1))


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    width = max(2, round(_BORDER * max(shape)))
    border = np.ones(shape, dtype=np.bool_)
    border[width:-width, width:-width] = False
    return border


def _fit_plane(small: Channels, border: NDArray[np.bool_]) -> Channels:
    """Return the background under the whole image: a plane through the border, because light falls off to one side.

    Fitted twice, the second time without the pixels of a part that touches the border.
    """
    rows, columns = np.indices(border.shape) / max(border.shape)
    terms = np.stack([np.ones_like(rows), rows, columns])  # float64, so that all machines get the same plane
    plane = np.broadcast_to(np.median(small[:, border], axis=1)[:, None, None], small.shape)
    for _ in range(2):
        difference = _difference(small, plane)
        used = border & (difference <= 3 * np.median(difference[border]) + 1)
        weights = np.linalg.lstsq(terms[:, used].T, small[:, used].T.astype(np.float64))[0]
        plane = np.tensordot(weights, terms, (0, 0)).astype(np.float32)
    return plane


def _difference(first: Channels, second: Channels) -> NDArray[np.float32]:
    difference: NDArray[np.float32] = np.abs(first - second).max(axis=0)
    return difference


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask without areas below a fifth of the largest one."""
    labels, count = ndimage.label(mask)
    if count <= 1:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    return np.isin(labels, 1 + np.flatnonzero(sizes >= sizes.max() / 5))
