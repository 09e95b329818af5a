"""The interface behind which every detector stands, and how one is loaded from a bundle."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from core.vision.bundle import Architecture, BackboneRecord, InvalidBundle, manifest_of
from core.vision.calibrated import Calibration
from core.vision.calibration import calibrate
from core.vision.preprocessing import Picture, Preprocessing, prepare

GOLDEN_TOLERANCE: Final[Mapping[str, float]] = {"cpu/float32": 1e-5, "cuda/float32": 1e-4}
"""Relative differences of a golden score that other machines may show, by device and dtype.

Other processors and versions of the libraries add in another order, which float32 shows in its sixth or seventh digit.
"""


class Pictures(Protocol):
    """Prepared pictures that may be too many for the memory; see `core.vision.dataset.PictureSet`."""

    def __len__(self) -> int: ...

    def minibatches(self, size: int, order: Sequence[int] | None = None) -> Iterator[NDArray[np.uint8]]:
        """All pictures, or those of `order`, `size` at a time: uint8, (n, height, width, 3)."""


class Checkpoint(Protocol):
    """Where an interrupted `fit` left its state; see `core.vision.checkpoint`."""

    def read(self) -> dict[str, Any] | None:
        """What was written last, or None at the first start."""

    def write(self, state: dict[str, Any]) -> None:
        """Keep tensors, numbers, texts, and lists and dicts of them, in place of what was written before."""


@dataclass(frozen=True)
class Scored:
    """What a detector says of N pictures.

    Attributes:
        scores: float64, (N,); higher is less normal. Not-finite values are passed on.
        maps: float32, (N, rows, columns), 0 and up: where the pictures are unlike good parts. The grid is the
            detector's own; its cells divide the whole picture evenly.
    """

    scores: NDArray[np.float64]
    maps: NDArray[np.float32]


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pictures. Losses are means over it, in the unit of the detector's score."""

    number: int
    training_loss: float
    validation_loss: float


@dataclass(frozen=True)
class FitOptions:
    """How a detector learns; each uses what applies to it.

    Attributes:
        epochs: passes over the training pictures, at most.
        patience: epochs without a better validation loss after which training stops.
        batch_size: pictures a step.
        learning_rate: the highest of the schedule.
        flips: whether parts may also appear mirrored; off, because most parts have a handedness.
        seed: of everything random.
        mixed_precision: whether a GPU may train with half the digits; see `core.vision.precision`.
        score_method: for detectors that have several; None for the detector's own choice.
        backbone: of detectors that stand on a pretrained one, see `core.vision.backbone.BACKBONES`.
        backbone_weights: a file with the weights of a pretrained backbone, for detectors that stand on one.
    """

    epochs: int = 8
    patience: int = 3
    batch_size: int = 4
    learning_rate: float = 2e-3
    flips: bool = False
    seed: int = 0
    mixed_precision: bool = True
    score_method: str | None = None
    backbone: str = "efficientnet-lite0"
    backbone_weights: Path | None = None


class Detector(ABC):
    """Tells how unlike good parts a picture is. One per process and model version.

    A detector's file holds its network, its settings, its fit and this class, and reads from top to bottom.

    Attributes:
        architecture: its name and settings, as in the manifest.
        score_method: how its anomaly map becomes a score.
        preprocessing: what `prepare` does.
        max_pixels: the largest picture that `prepare` decodes.
        backbone: the pretrained network that it was fitted on; None for none, and for one that was loaded.
    """

    architecture: Architecture
    score_method: str
    preprocessing: Preprocessing
    max_pixels: int
    device: str
    backbone: BackboneRecord | None = None

    def prepare(self, data: bytes) -> Picture:
        """Decode and resize one encoded picture: uint8, (height, width, 3). Thread-safe; Pillow frees the interpreter.

        Raises:
            core.pictures.Undecodable: this picture cannot be decoded.
        """
        return prepare(data, self.preprocessing, max_pixels=self.max_pixels).pixels

    def calibrate(self, pictures: Sequence[Picture], false_reject_rate: float) -> Calibration:
        """A threshold from prepared pictures of good parts that `fit` has not seen.

        Raises:
            core.vision.calibration.SampleTooSmall: there are too few.
        """
        return calibrate(self.score(pictures).scores, false_reject_rate)

    @classmethod
    @abstractmethod
    def input_size(cls, size: tuple[int, int], side: int | None) -> tuple[int, int]:
        """(width, height) of the prepared pictures.

        Args:
            size: (width, height) of a typical picture, as displayed.
            side: what was wished for, pixels; None for the detector's own choice.

        Raises:
            ValueError: the detector cannot take pictures of that size.
        """

    @classmethod
    @abstractmethod
    def fit(
        cls,
        training: Pictures,
        validation: Pictures,
        preprocessing: Preprocessing,
        options: FitOptions,
        *,
        device: str,
        max_pixels: int,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Learn what is normal from prepared pictures of good parts.

        The validation pictures tell when to stop; the weights are those of the best epoch. On a CPU the same
        pictures, options and number of threads give the same weights, interrupted or not: a fit that finds a state in
        its checkpoint tells `on_epoch` of the epochs behind it and goes on with the next.
        """

    @abstractmethod
    def score(self, pictures: Sequence[Picture]) -> Scored:
        """Score N prepared pictures and say where they are unlike good parts. Thread-safe on processors.

        A picture's score does not depend on its neighbours beyond 1e-5, relative.
        """

    def diagnosis(self, picture: Picture) -> dict[str, NDArray[Any]]:
        """What people look at to understand a score: panels by name, in the order in which they are shown.

        Returns:
            Pictures, uint8, (height, width, 3), RGB, and maps, float32, (rows, columns), 0 and up; each covers the
            whole prepared picture. `anomaly map` is always there.
        """
        return {"anomaly map": self.score([picture]).maps[0]}

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


def resolve_device(device: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`.

    Raises:
        ValueError: there is no such device here.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"the device must be auto, cpu or cuda, not {device!r}")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("there is no CUDA device here: set LINEWATCH_DEVICE or --device to auto or cpu")
    return "cuda" if device != "cpu" and available else "cpu"


def full_precision(device: str) -> None:
    """Let a GPU multiply with all digits of float32: TF32 keeps ten bits, and golden scores would not be reproduced."""
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def architectures() -> Mapping[str, type[Detector]]:
    """Every detector there is, by the name of its architecture."""
    from core.vision.autoencoder import AutoencoderDetector  # they implement the interface above
    from core.vision.feature_autoencoder import FeatureAutoencoderDetector
    from core.vision.feature_gaussian import FeatureGaussianDetector

    kinds: tuple[type[Any], ...] = (FeatureAutoencoderDetector, FeatureGaussianDetector, AutoencoderDetector)
    return {kind.name: kind for kind in kinds}


def default_architecture(backbone_weights: Path | None = None) -> str:
    """`feature-autoencoder` where a backbone's weights are at hand, else what is trained from scratch."""
    from core.vision.backbone import packaged

    return "feature-autoencoder" if backbone_weights or packaged() else "conv-autoencoder"


def load(files: Mapping[str, bytes], *, device: str, max_pixels: int) -> Detector:
    """The detector of a bundle, ready to score.

    Args:
        files: all files of the bundle by name, as `bundle.unpack` and `bundle.read_folder` return them.
        device: `auto`, `cpu` or `cuda`.
        max_pixels: the largest picture that it decodes.

    Raises:
        InvalidBundle: the bundle is damaged, of an unknown architecture, or its weights do not fit.
        ValueError: there is no such device here (InvalidBundle is one too).
    """
    manifest = manifest_of(files)
    known, name = architectures(), manifest.architecture.name
    if name not in known:
        raise InvalidBundle(f"the architecture {name!r} is not one of {', '.join(known)}: upgrade Linewatch")
    return known[name].load(
        files, manifest.architecture, manifest.preprocessing, device=resolve_device(device), max_pixels=max_pixels
    )


def check_golden(detector: Detector, files: Mapping[str, bytes]) -> None:
    """Prove that this machine reproduces the golden scores of a bundle, from the encoded pictures on.

    Raises:
        InvalidBundle: a score differs by more than the manifest's tolerance for this device, or is not finite.
        core.pictures.Undecodable: a golden picture cannot be decoded here.
    """
    manifest = manifest_of(files)
    kind = f"{detector.device}/float32"
    tolerance = manifest.golden_tolerance.get(kind, GOLDEN_TOLERANCE[kind])
    scores = detector.score([detector.prepare(files[golden.file]) for golden in manifest.golden]).scores
    for golden, score in zip(manifest.golden, scores.tolist(), strict=True):
        difference = abs(score - golden.score) / max(abs(golden.score), np.finfo(np.float32).tiny)
        if not difference <= tolerance:
            raise InvalidBundle(
                f"the golden score of {golden.file} is not reproduced: {golden.score:.9g} expected, {score:.9g} found, "
                f"a relative difference of {difference:.2g} where {tolerance:g} is allowed on {kind}"
            )
