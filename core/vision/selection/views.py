"""The views of the images that a detector may be shown: the whole image or the part, upright, each aligned or not."""

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

_LEARNED_FROM: Final = 200
_CHECKED: Final = 60
"""Good parts that the alignment is learned from, and those that must then be aligned in each size."""
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
        alignment = self._alignment(upright)
        if alignment is None or not self._is_usable(alignment, preprocessing):
            return preprocessing
        return preprocessing.model_copy(update={"alignment": alignment})

    def _alignment(self, upright: Upright | None) -> Alignment | None:
        """Return how to align a view, learned from a sample of the good parts; None if that does not work."""
        if upright not in self._alignments:
            shown = self.shown(upright)
            preprocessing = self.preprocessing(input_size(shown, None), upright, aligned=False)
            learned = learn_alignment(self._sample(preprocessing, _LEARNED_FROM), shown)
            self._on_progress(Progress("choosing", 0, 1, note=learned.note))
            self._alignments[upright] = learned.alignment
        return self._alignments[upright]

    def _sample(self, preprocessing: Preprocessing, largest: int) -> list[PreparedImage]:
        """Return some of the good parts, evenly chosen, prepared in this way."""
        paths = self._data.good.paths
        count = min(len(paths), largest)
        sample = [paths[number * len(paths) // count] for number in range(count)]
        images = ImageDataset(sample, preprocessing, max_pixels=self._options.max_pixels)
        return [each for batch in images.minibatches(32) for each in batch]

    def _is_usable(self, alignment: Alignment, preprocessing: Preprocessing) -> bool:
        """Whether nearly all good parts can be aligned in this size; images that cannot be are reviewed."""
        images = self._sample(preprocessing, _CHECKED)
        aligned = sum(align(image, alignment) is not None for image in images)
        if aligned >= _MIN_ALIGNED * len(images):
            return True
        size = f"{preprocessing.width} × {preprocessing.height} pixels"
        note = f"images of {size} are not aligned, because only {aligned} of {len(images)} good parts can be"
        self._on_progress(Progress("choosing", 0, 1, note=note))
        return False


def _rounded(size: tuple[float, float]) -> tuple[int, int]:
    return max(round(size[0]), 1), max(round(size[1]), 1)
