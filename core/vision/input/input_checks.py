"""Input checks: compare the light, focus, shape and colour of an image with those of good parts.

The checks find images that were taken wrongly, which no detector can score well. One more, of the bit depth, is in
`core.vision.input.bit_depth`. Their ranges are wide, so that neither
a new good part nor a defect fails them: finding defects is the detector's job. An image that fails a check is marked
for review, whatever its score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.vision.input.prepared_image import PreparedImage, SizedImage

SATURATED: Final = "input_saturated"
DARK: Final = "input_dark"
BRIGHT: Final = "input_bright"
BLURRED: Final = "input_blurred"
SIZE: Final = "input_size"
COLOUR: Final = "input_colour"

_TAIL = 0.005
_DEVIATIONS = 5.0
_SHARPNESS_DEVIATIONS = 3.0
_MIN_SHARPNESS = 1e-6  # for the logarithm: flat images have sharpness 0
_SATURATED_FROM, _DARK_BELOW = 254.5, 0.5  # what rounds to 255 and to 0
_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue
_FLAT = 1.0
"""An image whose mean squared difference of neighbours, in grey levels², is below this has no edges to measure."""


@dataclass(frozen=True)
class ImageMeasurements:
    """The measurements of one image that the checks use.

    Attributes:
        aspect: width / height, as displayed.
        enlargement: scale factor from the original to the prepared image, the larger of both sides; below 1 if both
            sides shrink.
        brightness: mean grey (BT.601) of the prepared image, 0 to 255.
        contrast: standard deviation of the grey levels, 0 to 127.5. No check uses it; it shows drift.
        saturated: share of pixels with a channel at 255, rounded, 0 to 1.
        dark: share of pixels with all channels at 0, rounded, 0 to 1.
        sharpness: mean squared Laplacian divided by mean squared gradient, from differences of neighbours in the grey
            image at half size: about 0 for wide edges, 5 for white noise, at most 8, 0 for a flat image. Gain, offset
            and contrast of the light cancel out.
        colourfulness: sum over all pixels of the largest minus the smallest channel, divided by the sum of the largest:
            0 for grey, 1 for pure colours. The gain of the light cancels out.
    """

    aspect: float
    enlargement: float
    brightness: float
    contrast: float
    saturated: float
    dark: float
    sharpness: float
    colourfulness: float


Range = Annotated[tuple[float, float], Field(strict=False)]


class InputRanges(BaseModel):
    """The accepted range of each measurement; see `ImageMeasurements`.

    Attributes:
        aspect, brightness, colourfulness: (lowest, highest) accepted value.
        enlargement, saturated, dark: highest accepted value.
        sharpness: lowest accepted value.
        contrast: (lowest, highest) value of images like those in training, which no check uses; null if it was not
            measured yet when the version was trained.
        sample_size: number of images of good parts that the ranges were learned from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    aspect: Range
    enlargement: float
    brightness: Range
    saturated: float
    dark: float
    sharpness: float
    colourfulness: Range
    contrast: Range | None = None
    sample_size: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> "InputRanges":
        for name, (low, high) in (
            ("aspect", self.aspect),
            ("brightness", self.brightness),
            ("colourfulness", self.colourfulness),
            ("contrast", self.contrast or (0.0, 0.0)),
        ):
            if low > high:
                raise ValueError(f"the range of {name} ends before it begins: {low:g} to {high:g}")
        return self


def measure_image(prepared: SizedImage) -> ImageMeasurements:
    """Measure one image. Safe to call from several threads; about a millisecond for 224 × 224 pixels."""
    pixels = prepared.pixels
    height, width, _ = pixels.shape
    grey = _grey(pixels)
    levels = np.asarray(grey, dtype=np.float32)
    brightness = float(levels.mean(dtype=np.float64))
    red, green, blue = (np.ascontiguousarray(pixels[:, :, channel]) for channel in range(3))
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    bright = float(highest.sum(dtype=np.float64))
    return ImageMeasurements(
        aspect=prepared.width / prepared.height,
        enlargement=max(width / prepared.width, height / prepared.height),
        brightness=brightness,
        contrast=math.sqrt(_mean_square(levels - np.float32(brightness))),
        saturated=float((highest >= _SATURATED_FROM).mean()),
        dark=float((highest < _DARK_BELOW).mean()),
        # At half size the lens matters more than the sensor's noise, which a blurred lens does not reduce.
        sharpness=_sharpness(np.asarray(grey.reduce(2)).astype(np.float32)),
        colourfulness=float((highest - lowest).sum(dtype=np.float64)) / bright if bright else 0.0,
    )


def _grey(pixels: PreparedImage) -> Image.Image:
    """Return the luma (BT.601): of mode L for uint8, of mode F, with fractions, for float32."""
    if pixels.dtype == np.uint8:
        return Image.fromarray(pixels).convert("L")
    return Image.fromarray(pixels @ np.array(_LUMA, dtype=np.float32))


def _sharpness(grey: NDArray[np.float32]) -> float:
    """See `ImageMeasurements.sharpness`.

    In terms of the frequencies u and v, it is the mean of 4 - 2 cos u - 2 cos v, weighted by the energy of the
    gradient. So it measures at which frequencies the energy lies, not how much there is.
    """
    down, right = grey[1:] - grey[:-1], grey[:, 1:] - grey[:, :-1]
    gradient = _mean_square(down) + _mean_square(right)
    if gradient < _FLAT:
        return 0.0
    laplacian = (down[1:] - down[:-1])[:, 1:-1] + (right[:, 1:] - right[:, :-1])[1:-1]
    return _mean_square(laplacian) / gradient


def _mean_square(values: NDArray[np.float32]) -> float:
    flat = values.ravel()
    return float(np.dot(flat, flat)) / flat.size


def learn_input_ranges(measurements: Sequence[ImageMeasurements]) -> InputRanges:
    """Learn the accepted ranges from the good training images.

    Each range is the middle 99 % of the images, widened by five robust standard deviations (three for sharpness), but
    by at least an amount that every detector should tolerate: a quarter of the light, a third of the sharpness, and a
    twentieth of the pixels, the chroma or the aspect ratio. So twenty images are enough, and a single outlier among
    hundreds has little effect. An image is too small if it is enlarged more than the training images, and at all.

    Raises:
        ValueError: there are no images.
    """
    if not measurements:
        raise ValueError("input ranges need at least one image of a good part")

    def values(name: str) -> NDArray[np.float64]:
        return np.array([getattr(each, name) for each in measurements], dtype=np.float64)

    aspect = _widen(np.log(values("aspect")), math.log(1.05), deviations=0)
    sharpness = _widen(
        np.log(np.maximum(values("sharpness"), _MIN_SHARPNESS)), math.log(1.5), deviations=_SHARPNESS_DEVIATIONS
    )
    light = values("brightness")
    brightness = _widen(light, 0.25 * float(np.median(light)))
    contrast = _widen(values("contrast"), 0.25 * float(np.median(values("contrast"))))
    # If good parts differ so much that the range would include black, the limit is a fifth of the darkest.
    darkest = max(brightness[0], float(np.quantile(light, _TAIL)) / 5)
    colourfulness = _widen(values("colourfulness"), 0.05)
    return InputRanges(
        aspect=(math.exp(aspect[0]), math.exp(aspect[1])),
        enlargement=max(1.0, 1.05 * float(values("enlargement").max())),
        brightness=(darkest, min(brightness[1], 255.0)),
        saturated=min(_widen(values("saturated"), 0.05)[1], 1.0),
        dark=min(_widen(values("dark"), 0.05)[1], 1.0),
        sharpness=math.exp(sharpness[0]) if sharpness[0] > math.log(_MIN_SHARPNESS) else 0.0,
        colourfulness=(max(colourfulness[0], 0.0), min(colourfulness[1], 1.0)),
        contrast=(max(contrast[0], 0.0), contrast[1]),
        sample_size=len(measurements),
    )


def _widen(values: NDArray[np.float64], min_margin: float, *, deviations: float = _DEVIATIONS) -> tuple[float, float]:
    """Return the range of the values without tails, widened by robust deviations and at least by `min_margin`."""
    low, lower, middle, upper, high = np.quantile(values, [_TAIL, 0.25, 0.5, 0.75, 1 - _TAIL]).tolist()
    # Both estimate the standard deviation of a normal distribution. For other shapes one of them may be far too small.
    deviation = max(1.4826 * float(np.median(np.abs(values - middle))), (upper - lower) / 1.349)
    margin = max(deviations * deviation, min_margin)
    return low - margin, high + margin


def failed_checks(measured: ImageMeasurements, accepted: InputRanges) -> list[str]:
    """Return the codes of the checks that an image fails, in a fixed order; empty if it passes all of them.

    Focus and colour are not checked if the light is wrong, because they cannot be measured then.
    """
    light = [
        code
        for code, failed in (
            (SATURATED, measured.saturated > accepted.saturated),
            (DARK, measured.dark > accepted.dark or measured.brightness < accepted.brightness[0]),
            (BRIGHT, measured.brightness > accepted.brightness[1]),
        )
        if failed
    ]
    others = [
        code
        for code, failed in (
            (BLURRED, measured.sharpness < accepted.sharpness and not light),
            (SIZE, not _within(measured.aspect, accepted.aspect) or measured.enlargement > accepted.enlargement),
            (COLOUR, not _within(measured.colourfulness, accepted.colourfulness) and not light),
        )
        if failed
    ]
    return light + others


def _within(value: float, accepted: tuple[float, float]) -> bool:
    return accepted[0] <= value <= accepted[1]
