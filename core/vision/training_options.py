"""The options of a training."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from core.vision.detectors.autoencoder import MSE, Z_MAP, AutoencoderDetector
from core.vision.detectors.backbone import BACKBONES
from core.vision.detectors.registry import default_architecture, detector_classes
from core.vision.training.fit_interface import FitOptions
from core.vision.training.grouping import GroupBy


class InvalidOptions(ValueError):  # noqa: N818 - describes the fault
    """Options that do not fit the images. The message is one line that explains why."""


@dataclass(frozen=True)
class TrainingOptions(FitOptions):
    """The options of `train`.

    Attributes:
        architecture: a name from `core.vision.detectors.registry.detector_classes`.
        input_size: the side of the prepared image in pixels; None to let the detector choose it for the images.
        scaled_decode: see `Preprocessing`.
        false_reject_rate: the share of good parts that the threshold may reject.
        review_rate: the share of good parts that may be rejected or reviewed; None for no review.
        group_by: which images show the same part or lot (see `core.vision.training.grouping`); None to group images
            that look alike.
        validation_share, calibration_share: shares of the good images. Calibration gets at least as many images as
            the false-reject rate requires.
        device: `auto`, `cpu` or `cuda`.
        max_pixels: the largest accepted width times height of an image.
    """

    architecture: str = field(default_factory=default_architecture)
    input_size: int | None = None
    scaled_decode: bool = True
    false_reject_rate: float = 0.05
    review_rate: float | None = None
    group_by: str | None = None
    validation_share: float = 0.1
    calibration_share: float = 0.25
    device: str = "auto"
    max_pixels: int = 64_000_000

    def __post_init__(self) -> None:
        if self.architecture not in detector_classes():
            raise ValueError(
                f"the architecture must be one of {', '.join(detector_classes())}, not {self.architecture!r}"
            )
        if self.epochs < 1 or self.patience < 1 or self.batch_size < 1:
            raise ValueError("epochs, patience and the batch size must be at least 1")
        if not 0 < self.false_reject_rate < 1:
            raise ValueError(f"the false-reject rate must be between 0 and 1, not {self.false_reject_rate:g}")
        if self.review_rate is not None and not self.false_reject_rate < self.review_rate < 1:
            raise ValueError(
                f"the review rate must be between the false-reject rate, {self.false_reject_rate:g}, and 1, "
                f"not {self.review_rate:g}: it is the share of good parts that may be rejected or reviewed"
            )
        if not 0 < self.validation_share + self.calibration_share < 1:
            raise ValueError("the shares of validation and calibration must leave something to train on")
        if self.group_by is not None:
            GroupBy.parse(self.group_by)
        self._check_detector_options()

    def _check_detector_options(self) -> None:
        """Refuse options that the detector does not have."""
        is_autoencoder = self.architecture == AutoencoderDetector.name
        if self.backbone not in BACKBONES:
            raise ValueError(f"the backbone must be one of {', '.join(BACKBONES)}, not {self.backbone!r}")
        if self.backbone_weights is not None and is_autoencoder:
            raise ValueError(f"{self.architecture} has no backbone: the backbone weights must be omitted")
        if self.backbone_weights is not None and not self.backbone_weights.is_file():
            raise ValueError(f"the backbone weights must be a file, and {self.backbone_weights} is not")
        if self.score_method is not None and not is_autoencoder:
            raise ValueError(f"{self.architecture} has only one score method: the option must be omitted")
        if self.score_method not in (None, MSE, Z_MAP):
            raise ValueError(f"the score method must be {MSE} or {Z_MAP}, not {self.score_method!r}")

    def recorded(self) -> dict[str, bool | int | float | str]:
        """Return the options for the manifest: without the device, without options that are None or that the detector
        does not have, and with only the names of files."""
        excluded = {"device", "backbone"} if self.architecture == AutoencoderDetector.name else {"device"}
        options = {name: value for name, value in asdict(self).items() if name not in excluded and value is not None}
        return {name: value.name if isinstance(value, Path) else value for name, value in options.items()}
