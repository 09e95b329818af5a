"""The interface of every detector: fit, calibrate, score a minibatch, save and load."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from core.vision.calibration.calibration import calibrate
from core.vision.calibration.record import Calibration
from core.vision.detectors.architecture import Architecture, BackboneRecord
from core.vision.input.preprocessing import PreparedImage, Preprocessing, prepare
from core.vision.training.options import Checkpoint, Epoch, FitOptions, PreparedImages


@dataclass(frozen=True)
class ScoredImages:
    """What a detector says of N images.

    Attributes:
        scores: float64, (N,); higher is less normal. Not-finite values are passed on.
        maps: float32, (N, rows, columns), 0 and up: where the images are unlike good parts. The grid is the
            detector's own; its cells divide the whole image evenly.
    """

    scores: NDArray[np.float64]
    maps: NDArray[np.float32]


class Detector(ABC):
    """Tells how unlike good parts an image is. One per process and model version.

    A detector's file holds its network, its settings, its fit and this class, and reads from top to bottom.

    Attributes:
        architecture: its name and settings, as in the manifest.
        score_method: how its anomaly map becomes a score.
        preprocessing: what `prepare` does.
        max_pixels: the largest image that `prepare` decodes.
        backbone: the pretrained network that it was fitted on; None for none, and for one that was loaded.
    """

    architecture: Architecture
    score_method: str
    preprocessing: Preprocessing
    max_pixels: int
    device: str
    backbone: BackboneRecord | None = None

    def prepare(self, data: bytes) -> PreparedImage:
        """Decode and resize one encoded image: uint8, (height, width, 3). Thread-safe; Pillow frees the interpreter.

        Raises:
            core.intake.image_decoding.Undecodable: this image cannot be decoded.
        """
        return prepare(data, self.preprocessing, max_pixels=self.max_pixels).pixels

    def calibrate(self, images: Sequence[PreparedImage], false_reject_rate: float) -> Calibration:
        """A threshold from prepared images of good parts that `fit` has not seen.

        Raises:
            core.vision.calibration.calibration.SampleTooSmall: there are too few.
        """
        return calibrate(self.score(images).scores, false_reject_rate)

    @classmethod
    @abstractmethod
    def input_size(cls, size: tuple[int, int], side: int | None) -> tuple[int, int]:
        """(width, height) of the prepared images.

        Args:
            size: (width, height) of a typical image, as displayed.
            side: what was wished for, pixels; None for the detector's own choice.

        Raises:
            ValueError: the detector cannot take images of that size.
        """

    @classmethod
    @abstractmethod
    def fit(
        cls,
        training: PreparedImages,
        validation: PreparedImages,
        preprocessing: Preprocessing,
        options: FitOptions,
        *,
        device: str,
        max_pixels: int,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Learn what is normal from prepared images of good parts.

        The validation images decide when to stop; the weights are those of the best epoch. On a CPU the same
        images, options and number of threads give the same weights, interrupted or not: a fit that finds a state in
        its checkpoint reports the finished epochs to `on_epoch` and continues with the next.
        """

    @abstractmethod
    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """Score N prepared images and say where they are unlike good parts. Thread-safe on processors.

        An image's score does not depend on its neighbours beyond 1e-5, relative.
        """

    def diagnosis(self, image: PreparedImage) -> dict[str, NDArray[Any]]:
        """What people look at to understand a score: panels by name, in the order in which they are shown.

        Returns:
            Images, uint8, (height, width, 3), RGB, and maps, float32, (rows, columns), 0 and up; each covers the
            whole prepared image. `anomaly map` is always there.
        """
        return {"anomaly map": self.score([image]).maps[0]}

    @abstractmethod
    def save(self) -> dict[str, bytes]:
        """The files that `load` needs, by name; `weights.safetensors` among them."""

    @classmethod
    @abstractmethod
    def load(
        cls,
        files: Mapping[str, bytes],
        architecture: Architecture,
        preprocessing: Preprocessing,
        *,
        device: str,
        max_pixels: int,
    ) -> Self:
        """The detector of verified files, on `cpu` or `cuda`.

        Raises:
            InvalidBundle: the settings or the weights are not those of this detector.
        """
