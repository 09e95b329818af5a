"""What images look like: their spectra, and their pixels in a size in which they can be compared in detail."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.vision.input.spectra import Spectra
from core.vision.training.dataset import ScannedImages

Pixels = NDArray[np.float32]
"""The pixels of a grey image: float32, (height, width), 0 to 255."""

_AREA: Final = 384**2
"""The median area of the images when they are compared, in pixels; smaller images keep their size."""
_SIDES: Final = (8, 4096)


@dataclass(frozen=True)
class Looks:
    """What N images look like.

    Attributes:
        spectra: float16, (N, D); see `core.vision.input.spectra.make_spectrum`.
        pixels: yields the pixels of the images with these indices, in this order, all at the same scale.
    """

    spectra: Spectra
    pixels: Callable[[Sequence[int]], Iterator[Pixels]]

    def subset(self, indices: Sequence[int]) -> "Looks":
        """Return the looks of the images with these indices, in this order."""
        return Looks(self.spectra[list(indices)], lambda chosen: self.pixels([indices[index] for index in chosen]))


def looks_of(scanned: ScannedImages) -> Looks:
    """Return the looks of images. Their pixels are read from the files, without the preprocessing of a detector."""
    sizes = _sizes(scanned.sizes)

    def pixels(indices: Sequence[int]) -> Iterator[Pixels]:
        for image in scanned.images.at_sizes(indices, [sizes[index] for index in indices]):
            yield image.mean(axis=2, dtype=np.float32)

    return Looks(scanned.spectra, pixels)


def _sizes(sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Reduce sizes, (width, height), by the same factor, and much larger ones further."""
    areas = np.array([width * height for width, height in sizes], dtype=np.float64)
    common = min(1.0, float(np.sqrt(_AREA / np.median(areas)))) if len(areas) else 1.0
    scales = np.minimum(common, np.sqrt(4 * _AREA / areas))
    reduced = np.rint(np.array(sizes, dtype=np.float64).reshape(-1, 2) * scales[:, None]).clip(*_SIDES).astype(int)
    return [(width, height) for width, height in reduced.tolist()]
