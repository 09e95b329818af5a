"""Heatmaps: an anomaly map drawn over its image, on a colour scale that is fixed by the threshold.

The unit of heat is the threshold. If the score is below the threshold, the heat is below 1 everywhere, so a good part
never gets hot colours; otherwise it is 1 or more somewhere. Heatmaps with the same threshold can be compared.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LONGEST_SIDE: Final = 4096
"""The longest side of an overlay in pixels. Larger images are reduced to it, to limit the memory."""

SHOWN_FROM: Final = 0.5
SATURATED_FROM: Final = 3.0

_PEAK_SHARE = 0.02
_STEPS = 300  # per unit of heat; the step at the threshold is exact because it falls between two of them
_BAND = 256  # rows blended at once
_COOL = (64, 140, 255)
_COOL_OPACITIES = ((SHOWN_FROM, 0.8, 1.0), (0.0, 0.1, 0.3))  # rises slowly, so that normal variation is hardly visible
_HOT_OPACITY = (0.55, 0.8)
# Above the threshold, lightness rises evenly (CIE L* 35, 52, 68, 83, 98), so that the scale works without hues, too.
_HOT = (
    (1.0, (160, 20, 90)),
    (1.5, (224, 66, 66)),
    (2.0, (248, 136, 36)),
    (2.5, (252, 200, 60)),
    (3.0, (255, 250, 205)),
)
_CONTOUR = ((0, 0, 0), (255, 255, 255))  # outside and inside: one of them is visible on any background

Heat = NDArray[np.float32]


def scale_to_threshold(anomaly_map: NDArray[np.floating], score: float, threshold: float) -> Heat:
    """Scale an anomaly map to units of the threshold, so that its peak corresponds to the score.

    The peak, the mean of the highest 2 % of the cells above 0, becomes score / threshold. Higher values are clipped to
    it, so that no single cell exceeds the score. Cells of 0 do not count, because a map that was put back onto a larger
    image is 0 around the part. NaN counts as 0, and infinity as the peak. If all cells are 0, the map has no location,
    so every cell gets the value of the score. If the threshold is 0 or less, there is no ratio: the peak
    becomes 1 if the score reaches the threshold, and 0 otherwise.

    Args:
        anomaly_map: (rows, columns), 0 and up; at least one cell.
        score: of the same image; finite.
        threshold: scores at or above it are `ng`; finite.

    Returns:
        float32, (rows, columns), 0 and up. The highest value is 1 or more if and only if score ≥ threshold.

    Raises:
        ValueError: the map is empty or not of two dimensions, or the score or the threshold is not finite.
    """
    if anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise ValueError(f"an anomaly map has rows and columns, not the shape {anomaly_map.shape}")
    if not (math.isfinite(score) and math.isfinite(threshold)):
        raise ValueError(f"heat needs a finite score and threshold, not {score} and {threshold}")
    top = np.float32(_ratio(score, threshold))
    highest = float(np.finfo(np.float32).max)
    cells = np.nan_to_num(anomaly_map.astype(np.float64), nan=0.0, posinf=highest, neginf=0.0).clip(0, highest)
    count = max(math.ceil(_PEAK_SHARE * np.count_nonzero(cells)), 1)
    peak = min(float(np.partition(cells, cells.size - count, axis=None)[-count:].mean()), float(cells.max()))
    if peak == 0:
        return np.full(cells.shape, top)
    scaled = np.minimum(cells / peak * float(top), float(top)).astype(np.float32)
    scaled[cells >= peak] = top  # regardless of rounding
    return scaled


def _ratio(score: float, threshold: float) -> float:
    """Return score / threshold, at least 0, and on the same side of 1 as the verdict, in float32, too."""
    above = score >= threshold
    if threshold <= 0:
        return 1.0 if above else 0.0
    ratio = min(max(score / threshold, 0.0), 1e30)
    return max(ratio, 1.0) if above else min(ratio, float(np.nextafter(np.float32(1), np.float32(0))))


def overlay(image: Image.Image, heat: Heat) -> Image.Image:
    """Draw heat over its image.

    Below half the threshold, nothing is drawn. From there to the threshold, a cool tint grows. At the threshold there
    is a step with a contour. Above, colours run from dark red through orange to near-white at 3 times the threshold.

    Args:
        image: RGB, upright, of any size. If a side is longer than 4096 pixels, the image is reduced.
        heat: float32, (rows, columns), see `scale_to_threshold`. Its cells divide the image evenly. It is interpolated
            linearly between their centres, and its highest value is kept.

    Returns:
        A new RGB image, of the same size unless it was reduced.
    """
    image = _bounded(image)
    values = resize_map(heat, image.size)
    colours, opacities = _scale()
    out = np.asarray(image).copy()
    for start in range(0, len(out), _BAND):
        band = out[start : start + _BAND]
        steps = _steps(values[start : start + _BAND])
        opacity = opacities[steps][:, :, None]
        band[:] = (band * (1 - opacity) + colours[steps] * opacity).round().astype(np.uint8)
    _draw_contour(out, values >= 1)
    return Image.fromarray(out)


def resize_map(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a grid linearly to (width, height) in pixels, with cells and pixels centred on their areas.

    The highest value is kept, even if no pixel is centred on its cell.
    """
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    resized = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    top, resized_top = float(values.max()), float(resized.max())
    if resized_top <= 0:
        return np.full(resized.shape, top, dtype=np.float32)
    rescaled = np.minimum(resized * (top / resized_top), np.float32(top))
    rescaled[resized == resized.max()] = top
    return rescaled


def legend(width: int, height: int) -> Image.Image:
    """Draw the colour scale on grey, from 0 at the left to 3 times the threshold at the right."""
    values = np.broadcast_to(np.linspace(0, SATURATED_FROM, width, dtype=np.float32), (height, width))
    colours, opacities = _scale()
    steps = _steps(values)
    opacity = opacities[steps][:, :, None]
    return Image.fromarray((128 * (1 - opacity) + colours[steps] * opacity).round().astype(np.uint8))


def _bounded(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    if longest <= LONGEST_SIDE:
        return image
    width, height = (max(1, round(side * LONGEST_SIDE / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)


def _steps(values: NDArray[np.float32]) -> NDArray[np.intp]:
    return (np.minimum(values, np.float32(SATURATED_FROM)) * _STEPS).astype(np.intp)


def _scale() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the colour, (steps, 3), 0 to 255, and the opacity, (steps,), 0 to 1, of each step of heat."""
    units = np.arange(round(SATURATED_FROM * _STEPS) + 1) / _STEPS
    anchors = np.array([position for position, _ in _HOT])
    hot = np.stack([np.interp(units, anchors, [colour[channel] for _, colour in _HOT]) for channel in range(3)], axis=1)
    colours = np.where(units[:, None] < 1, _COOL, hot)
    cool = np.interp(units, *_COOL_OPACITIES)
    opacities = np.where(units < 1, cool, np.interp(units, [1, SATURATED_FROM], _HOT_OPACITY))
    return colours.astype(np.float32), opacities.astype(np.float32)


def _draw_contour(pixels: NDArray[np.uint8], inside: NDArray[np.bool_]) -> None:
    """Draw the border of an area: a light line within it and a dark one around it, wider on large images."""
    if not inside.any():
        return
    width = max(1, round(max(inside.shape) / 640))
    outside, within = _CONTOUR
    pixels[_grown(inside, width) & ~inside] = outside
    pixels[inside & _grown(~inside, width)] = within


def _grown(area: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Return an area with all pixels within a square of `by` pixels around it. Image borders do not grow inwards."""
    for axis in (0, 1):
        grown = area.copy()
        for shift in range(1, min(by, area.shape[axis] - 1) + 1):
            low, high = [slice(None)] * 2, [slice(None)] * 2
            low[axis], high[axis] = slice(None, -shift), slice(shift, None)
            grown[tuple(high)] |= area[tuple(low)]
            grown[tuple(low)] |= area[tuple(high)]
        area = grown
    return area
