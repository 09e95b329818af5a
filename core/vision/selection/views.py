"""The views of the images that a detector may be shown: the whole image or the part, upright, each aligned or not."""

from collections.abc import Sequence
from typing import Final

from core.vision.detectors.features import input_size
from core.vision.input.alignment import Alignment, align
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.record import Preprocessing, Upright
from core.vision.progress import OnProgress, Progress
from core.vision.training.alignment_learning import learn_alignment
from core.vision.training.dataset import ImageDataset
from core.vision.training_data import TrainingData
from core.vision.training_options import TrainingOptions

_ALIGNED: Final = 200
"""Good parts that the alignment is learned from."""
_MIN_ALIGNED: Final = 0.97
"""Share of them that must be aligned."""


class Views:
    """What detectors may be shown of the images: the whole image or the part, upright, each aligned if that works."""

    def __init__(self, data: TrainingData, options: TrainingOptions, on_progress: OnProgress) -> None:
        self._data = data
        self._options = options
        self._on_progress = on_progress
        self._alignments: dict[Upright | None, Alignment | None] = {}

    def shown(self, upright: Upright | None) -> tuple[int, int]:
        """Return the (width, height) of what is shown of a typical image, in its pixels."""
        typical = self._data.typical_size
        return typical if upright is None else _rounded(upright.crop(typical))

    def preprocessing(self, size: tuple[int, int], upright: Upright | None, *, aligned: bool) -> Preprocessing:
        """Return the preprocessing for images of (width, height)."""
        preprocessing = Preprocessing(
            width=size[0],
            height=size[1],
            scaled_decode=self._options.scaled_decode,
            bit_depth=self._data.bit_depth,
            upright=upright,
        )
        if not aligned or self._options.alignment == "off":
            return preprocessing
        return preprocessing.model_copy(update={"alignment": self._alignment(upright)})

    def _alignment(self, upright: Upright | None) -> Alignment | None:
        """Return how to align a view, learned from a sample of the good parts; None if that does not work."""
        if upright not in self._alignments:
            paths = self._data.good.paths
            count = min(len(paths), _ALIGNED)
            sample = [paths[number * len(paths) // count] for number in range(count)]
            shown = self.shown(upright)
            size = input_size(shown, None)
            preprocessing = self.preprocessing(size, upright, aligned=False)
            images = ImageDataset(sample, preprocessing, max_pixels=self._options.max_pixels)
            prepared = [each for batch in images.minibatches(32) for each in batch]
            learned = learn_alignment(prepared, shown)
            self._on_progress(Progress("choosing", 0, 1, note=learned.note))
            self._alignments[upright] = self._usable(learned.alignment, prepared)
        return self._alignments[upright]

    def _usable(self, alignment: Alignment | None, images: Sequence[PreparedImage]) -> Alignment | None:
        """Return the alignment, or None if too many good parts cannot be aligned, which would all be reviewed."""
        if alignment is None:
            return None
        aligned = sum(align(image, alignment) is not None for image in images)
        if aligned >= _MIN_ALIGNED * len(images):
            return alignment
        note = f"images are not aligned, because only {aligned} of {len(images)} good parts can be"
        self._on_progress(Progress("choosing", 0, 1, note=note))
        return None


def _rounded(size: tuple[float, float]) -> tuple[int, int]:
    return max(round(size[0]), 1), max(round(size[1]), 1)
