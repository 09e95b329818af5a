"""The options of a training."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from core.models.bit_depths import BitDepthChoice
from core.models.training_options import AlignmentChoice, ChooseBy, PoseChoice, check_options
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.detectors.registry import default_architecture
from core.vision.training.fit_interface import FitOptions
from core.vision.training.group_by import GroupBy


class InvalidOptions(ValueError):  # noqa: N818 - describes the fault
    """Options that do not fit the images. The message is one line that explains why."""


@dataclass(frozen=True)
class TrainingOptions(FitOptions):
    """The options of `train`.

    Attributes:
        architecture: a name from `core.vision.detectors.registry.detector_classes`; `auto` to try several of them, of
            several input sizes, poses and poolings; see `core.vision.selection`.
        input_size: the side of the prepared image in pixels; None to let the detector choose it for the images.
        scaled_decode: see `Preprocessing`.
        false_reject_rate: the share of good parts that the threshold may reject; None for 5 %, or for the smallest
            possible share if there are fewer than 19 good parts.
        review_rate: the share of good parts that may be rejected or reviewed; None for no review.
        group_by: which images show the same part or lot (see `core.vision.training.group_by`); None to group images
            that look alike.
        pose, alignment: how images are brought into one pose, see `core.vision.input.preprocessing`; `auto` to do so
            where it helps.
        budget_seconds: of an `auto` architecture: no further choice is tried after this time.
        max_ms: of an `auto` architecture: the largest time to decode and score one image on one core, milliseconds.
        choose_by: whether an `auto` architecture is chosen by synthetic defects or by the images in `test/`. In the
            latter case, the threshold of any architecture is chosen by its defective images, too.
        device: `auto`, `cpu` or `cuda`.
        bit_depth: of the images; `auto` to find it, see `core.vision.training.training_depth`.
        max_pixels: the largest accepted width times height of an image.
    """

    architecture: str = field(default_factory=default_architecture)
    input_size: int | None = None
    scaled_decode: bool = True
    false_reject_rate: float | None = None
    review_rate: float | None = None
    group_by: str | None = None
    pose: PoseChoice = "auto"
    alignment: AlignmentChoice = "auto"
    budget_seconds: float = 600.0
    max_ms: float = 40.0
    choose_by: ChooseBy = "synthetic"
    device: str = "auto"
    bit_depth: BitDepthChoice = "auto"
    max_pixels: int = 64_000_000

    def __post_init__(self) -> None:
        check_options(self)
        if self.batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.group_by is not None:
            GroupBy.parse(self.group_by)
        if self.backbone_weights is not None:
            if self.architecture == AutoencoderDetector.name:
                raise ValueError(f"{self.architecture} has no backbone: the backbone and its weights must be omitted")
            if not self.backbone_weights.is_file():
                raise ValueError(f"the backbone weights must be a file, and {self.backbone_weights} is not")

    def recorded(self) -> dict[str, bool | int | float | str]:
        """Return the options for the manifest: without the device, without options that are None or that the detector
        does not have, and with only the names of files."""
        excluded = {"device", "backbone"} if self.architecture == AutoencoderDetector.name else {"device"}
        options = {**asdict(self), "backbone": self.backbone_name}
        options = {name: value for name, value in options.items() if name not in excluded and value is not None}
        if self.group_by is not None and (by := GroupBy.parse(self.group_by)).table is not None:
            options["group_by"] = f"{by.table.name}:{by.column}"
        return {name: value.name if isinstance(value, Path) else value for name, value in options.items()}
