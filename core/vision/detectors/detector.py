"""The interface of every detector: fit, score a minibatch, save and load."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from core.vision.detectors.architecture import Architecture, BackboneRecord
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.fit_interface import Checkpoint, Epoch, FitOptions, PreparedImages
from core.vision.training.folds import Folds


@dataclass(frozen=True)
class ScoredImages:
    """The scores and anomaly maps of N images.

    Attributes:
        scores: float64, (N,); higher is less normal. Values that are not finite are passed on.
        maps: float32, (N, rows, columns), 0 and up; higher where the image differs more from good parts. Each
            detector has its own grid; its cells divide the whole image evenly.
    """

    scores: NDArray[np.float64]
    maps: NDArray[np.float32]


class Detector(ABC):
    """Scores how much an image differs from good parts. A process has one for each model version.

    Each detector is one file with its network, settings and subclass of this class; it reads from top to bottom.

    Attributes:
        architecture: its name and settings, as in the manifest.
        score_method: how its anomaly map becomes a score.
        preprocessing: the size and decoding that `prepare` uses.
        max_pixels: the largest image that `prepare` decodes.
        device: `cpu` or `cuda`.
        aligned: whether it learns from images that are aligned, and so tolerates what they do not show.
        facts: what else people should know of it, by name.
        backbone: the pretrained network that it was fitted on; None without one, and for a detector that was loaded
            from a bundle.
    """

    name: ClassVar[str]
    architecture: Architecture
    score_method: str
    preprocessing: Preprocessing
    max_pixels: int
    device: str
    aligned: ClassVar[bool] = False
    facts: Mapping[str, str] = MappingProxyType({})
    backbone: BackboneRecord | None = None

    def prepare(self, data: bytes) -> PreparedImage:
        """Decode and resize one encoded image, see `PreparedImage`. Thread-safe; Pillow releases the GIL.

        Raises:
            core.intake.image_decoding.Undecodable: the image cannot be decoded.
        """
        return prepare(data, self.preprocessing, max_pixels=self.max_pixels).pixels

    @classmethod
    @abstractmethod
    def input_size(cls, size: tuple[int, int], side: int | None, backbone: str) -> tuple[int, int]:
        """Return the (width, height) of the prepared images.

        Args:
            size: (width, height) of a typical image, as displayed.
            side: the requested side, pixels; None for the detector's default.
            backbone: the name of its backbone, if it uses one.

        Raises:
            ValueError: the detector does not accept images of that size.
        """

    @classmethod
    @abstractmethod
    def folds(cls) -> int:
        """Return the number of folds that are worth their time for this detector, at least 2."""

    @classmethod
    @abstractmethod
    def cross_fit(
        cls,
        images: PreparedImages,
        folds: Folds,
        preprocessing: Preprocessing,
        options: FitOptions,
        *,
        device: str,
        max_pixels: int,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None = None,
    ) -> CrossFitted[Self]:
        """Learn what is normal from prepared images of good parts: once from all, and once without each fold.

        On a CPU, the same images, options and number of threads give the same weights, even after an interruption: a
        fit that finds a state in its checkpoint reports the finished epochs to `on_epoch` and continues with the next
        one.
        """

    @abstractmethod
    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """Score N prepared images and map where they differ from good parts. Thread-safe on a CPU.

        Other images in the call change a score by at most 1e-5, relative.
        """

    @abstractmethod
    def compile(self) -> None:
        """Compile the network for the cores of this machine, which takes about a second.

        On a GPU, and without OpenVINO, nothing happens.

        Scores then differ by about 1e-6, relative. The number of cores is torch's number of threads.

        Raises:
            core.vision.detectors.compiled_network.NotCompiled: it cannot be compiled; it scores without that.
        """

    def diagnosis(self, image: PreparedImage) -> dict[str, NDArray[Any]]:
        """Return the panels that explain the score of an image, by name, in display order.

        Returns:
            Images, uint8, (height, width, 3), RGB, and maps, float32, (rows, columns), 0 and up; each covers the
            whole prepared image. `anomaly map` is always included.
        """
        return {"anomaly map": self.score([image]).maps[0]}

    @abstractmethod
    def save(self) -> dict[str, bytes]:
        """Return the files that `load` needs, by name, including `weights.safetensors`."""

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
        """Load a detector from verified files.

        Args:
            device: `cpu` or `cuda`.

        Raises:
            InvalidBundle: the settings or the weights do not belong to this detector.
        """
