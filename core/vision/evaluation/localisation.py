"""Measure whether anomaly maps locate the defects: pixel AUROC and AUPRO against ground-truth masks.

Pixel scores are counted in bins with equally many map cells, so the memory does not grow with the number of pixels.
Both figures are exact to about 0.0001.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from core.intake.image_decoding import decode

Mask = NDArray[np.bool_]
Maps = Sequence[NDArray[np.float32]] | NDArray[np.float32]

LONGEST_SIDE: Final = 512
"""Masks with a longer side, in pixels, are reduced to this."""

_BINS = 20_000
_MAX_MASK_PIXELS = 256_000_000
_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg", ".webp")
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=int)


def pixel_auroc(maps: Maps, masks: Sequence[Mask | None]) -> float:
    """Return the probability that a defective pixel has a higher value than a sound one, 0 to 1. Ties count one half.

    Args:
        maps: N anomaly maps, float32, (rows, columns), finite; each is enlarged linearly to its mask.
        masks: N masks, (height, width), True where there is a defect; None for an image without any, which
            gets the size of the first mask. Masks with a side above 512 pixels are reduced.

    Raises:
        ValueError: see `aupro`.
    """
    counts = _count(maps, masks)
    defective, sound = _cumulative(counts.defective), _cumulative(counts.sound)
    return float(np.trapezoid(defective, sound))


def aupro(maps: Maps, masks: Sequence[Mask | None], max_false_positive_rate: float = 0.3) -> float:
    """Return the area under the per-region-overlap curve up to a false-positive rate, divided by that rate: 0 to 1.

    At each threshold, the overlap of a region is the share of its pixels at or above it; a region is a connected
    component (8 neighbours) of a mask, and all regions count alike, however small. The false-positive rate is the share
    of all pixels outside of defects at or above the threshold. Bergmann et al., "The MVTec Anomaly Detection Dataset"
    (IJCV 2021), section 4.

    Args:
        maps, masks: see `pixel_auroc`.
        max_false_positive_rate: above 0, up to 1.

    Raises:
        ValueError: the numbers of maps and masks differ, the masks mark no pixel or all pixels as defects, a map is not
            finite, or the rate is out of range.
    """
    if not 0 < max_false_positive_rate <= 1:
        raise ValueError(f"the false-positive rate must be between 0 and 1, not {max_false_positive_rate:g}")
    counts = _count(maps, masks)
    overlap, false = _cumulative(counts.regions), _cumulative(counts.sound)
    end = int(np.searchsorted(false, max_false_positive_rate, side="right"))  # the first point beyond the rate
    at_rate = np.interp(max_false_positive_rate, false[end - 1 : end + 1], overlap[end - 1 : end + 1])
    rates, overlaps = np.append(false[:end], max_false_positive_rate), np.append(overlap[:end], at_rate)
    area = float(np.trapezoid(overlaps, rates) / max_false_positive_rate)
    return min(area, 1.0)  # rounding may push a perfect result just above 1


def ground_truth(folder: Path, path: Path) -> Mask | None:
    """Return the mask of an image in MVTec layout, no side longer than 512 pixels, or None if there is none.

    It is `ground_truth/<type>/<name>_mask.png` or `ground_truth/<type>/<name>.png` (or another image's suffix) for
    `test/<type>/<name>.*`. Pixels brighter than half of the brightest pixel are
    marked.

    Args:
        folder: contains `test/` and `ground_truth/`.
        path: the path of an image below its `test/`.

    Raises:
        core.intake.image_decoding.Undecodable: the mask cannot be decoded.
        ValueError: the image is not below `test/`.
    """
    mask_folder = folder / "ground_truth" / path.relative_to(folder / "test").parent
    for name in (f"{path.stem}_mask", path.stem):
        for suffix in _SUFFIXES:
            file = mask_folder / f"{name}{suffix}"
            if file.is_file():
                grey = np.asarray(decode(file.read_bytes(), max_pixels=_MAX_MASK_PIXELS)).max(axis=2)
                return _reduced(grey > grey.max() / 2)
    return None


@dataclass(frozen=True)
class _Counts:
    """Pixels by bin, the highest values first: float64, (bins,).

    Attributes:
        defective, sound: pixels inside and outside of defects.
        regions: shares of each region's pixels, summed over the regions.
    """

    defective: NDArray[np.float64]
    sound: NDArray[np.float64]
    regions: NDArray[np.float64]


def _count(maps: Maps, masks: Sequence[Mask | None]) -> _Counts:
    edges = _edges(maps, masks)
    first = next((mask for mask in masks if mask is not None), None)
    if first is None:
        raise ValueError("no mask marks a defect: localisation cannot be measured")
    empty = np.zeros_like(_reduced(first))
    defective, sound, regions = (np.zeros(len(edges) + 1) for _ in range(3))
    for anomaly_map, full_mask in zip(maps, masks, strict=True):
        mask = empty if full_mask is None else _reduced(full_mask)
        bins = np.searchsorted(edges, _enlarged(anomaly_map, mask), side="right")
        defective += np.bincount(bins[mask], minlength=len(defective))
        sound += np.bincount(bins[~mask], minlength=len(sound))
        labels, region_count = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
        areas = np.bincount(labels[mask], minlength=region_count + 1)
        regions += np.bincount(bins[mask], weights=1 / areas[labels[mask]], minlength=len(regions))
    if not defective.any() or not sound.any():
        raise ValueError("localisation needs pixels inside and outside of defects: the masks mark all or nothing")
    return _Counts(defective[::-1], sound[::-1], regions[::-1])


def _edges(maps: Maps, masks: Sequence[Mask | None]) -> NDArray[np.float32]:
    """Return the inner edges of the bins: distinct values that divide the cells of the maps evenly."""
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(f"localisation needs a mask for each map: there are {len(maps)} maps and {len(masks)} masks")
    cells = np.concatenate([np.ravel(anomaly_map) for anomaly_map in maps])
    if not np.isfinite(cells).all():
        raise ValueError("an anomaly map has values that are not finite: localisation cannot be measured")
    edges: NDArray[np.float32] = np.unique(np.quantile(cells, np.linspace(0, 1, _BINS + 1)).astype(np.float32))
    return edges


def _cumulative(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the shares at or above each bin, the highest bin first: float64, (bins + 1,), 0 to 1."""
    sums = np.concatenate([[0.0], np.cumsum(counts)])
    shares: NDArray[np.float64] = sums / sums[-1]
    return shares


def _reduced(mask: Mask) -> Mask:
    """Reduce a mask to at most 512 pixels per side. A pixel is marked if any of its area is, so thin defects remain."""
    height, width = mask.shape
    factor = -(-max(height, width) // LONGEST_SIDE)
    if factor == 1:
        return mask.astype(np.bool_)
    rows, columns = -(-height // factor), -(-width // factor)
    padded = np.zeros((rows * factor, columns * factor), dtype=np.bool_)
    padded[:height, :width] = mask
    return np.asarray(padded.reshape(rows, factor, columns, factor).any(axis=(1, 3)))


def _enlarged(anomaly_map: NDArray[np.float32], mask: Mask) -> NDArray[np.float32]:
    height, width = mask.shape
    image = Image.fromarray(np.ascontiguousarray(anomaly_map, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
