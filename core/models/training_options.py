"""The options of a training that a person chooses, and the rules for them. The api checks them without PyTorch."""

from typing import Final, Literal, Protocol, get_args

from core.models.bit_depths import BitDepthChoice

ArchitectureChoice = Literal[
    "auto",
    "feature-autoencoder",
    "feature-gaussian",
    "memory-bank",
    "combined-maximum",
    "combined-mean",
    "conv-autoencoder",
]
"""A detector, or `auto` to try several of them."""
BackboneChoice = Literal[
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
    "efficientnet_b0",
    "mobilenet_v3_large",
    "resnet18",
    "wide_resnet50_2",
    "dinov2_vits14",
]
"""The pretrained network of a feature detector; the first is the default."""
PoseChoice = Literal["auto", "upright", "as-is"]
AlignmentChoice = Literal["auto", "off"]
ChooseBy = Literal["synthetic", "test"]
ScoreMethod = Literal["mse", "z-map"]

DEFAULT_RATE: Final = 0.05
"""The default false-reject rate."""
MIN_PARTS: Final = 10
"""The fewest good parts that a training needs."""
_WITHOUT_BACKBONE: Final = "conv-autoencoder"


class ChosenOptions(Protocol):
    """The options that `check_options` checks; None means the default. See `core.vision.training_options`."""

    @property
    def architecture(self) -> str | None: ...
    @property
    def epochs(self) -> int | None: ...
    @property
    def pooling(self) -> float | None: ...
    @property
    def budget_seconds(self) -> float | None: ...
    @property
    def max_ms(self) -> float | None: ...
    @property
    def pose(self) -> str | None: ...
    @property
    def alignment(self) -> str | None: ...
    @property
    def choose_by(self) -> str | None: ...
    @property
    def bit_depth(self) -> BitDepthChoice | None: ...
    @property
    def false_reject_rate(self) -> float | None: ...
    @property
    def review_rate(self) -> float | None: ...
    @property
    def backbone(self) -> str | None: ...
    @property
    def score_method(self) -> str | None: ...


def check_options(options: ChosenOptions) -> None:
    """Check each option and how they fit together.

    Raises:
        ValueError: an option is out of range, or it does not apply to the detector. The message is one line.
    """
    _check_choices(options)
    _check_numbers(options)
    _check_rates(options)
    _check_detector_options(options)


def _check_choices(options: ChosenOptions) -> None:
    for name, value, allowed in (
        ("architecture", options.architecture, get_args(ArchitectureChoice)),
        ("pose", options.pose, get_args(PoseChoice)),
        ("alignment", options.alignment, get_args(AlignmentChoice)),
        ("choice", options.choose_by, get_args(ChooseBy)),
        ("bit depth", options.bit_depth, get_args(BitDepthChoice)),
        ("backbone", options.backbone, get_args(BackboneChoice)),
    ):
        if value is not None and value not in allowed:
            raise ValueError(f"the {name} must be one of {', '.join(map(str, allowed))}, not {value!r}")


def _check_numbers(options: ChosenOptions) -> None:
    if options.epochs is not None and options.epochs < 1:
        raise ValueError(f"the epochs must be at least 1, not {options.epochs}")
    if options.pooling is not None and not 0 <= options.pooling <= 1:
        raise ValueError(f"the pooling must be a share from 0 to 1, not {options.pooling:g}")
    for value in (options.budget_seconds, options.max_ms):
        if value is not None and not value > 0:
            raise ValueError("the budget and the milliseconds per image must be more than 0")


def _check_rates(options: ChosenOptions) -> None:
    rate = DEFAULT_RATE if options.false_reject_rate is None else options.false_reject_rate
    if not 0 < rate < 1:
        raise ValueError(f"the false-reject rate must be between 0 and 1, not {rate:g}")
    if options.review_rate is not None and not rate < options.review_rate < 1:
        raise ValueError(
            f"the review rate must be between the false-reject rate, {rate:g}, and 1, not {options.review_rate:g}: it "
            "is the share of good parts that may be rejected or reviewed"
        )


def _check_detector_options(options: ChosenOptions) -> None:
    """Refuse options that the detector does not have. Which one is the default is known only where it is trained."""
    name = options.architecture
    if name == _WITHOUT_BACKBONE:
        if options.backbone is not None:
            raise ValueError(f"{name} has no backbone: the backbone and its weights must be omitted")
        if options.pooling is not None:
            raise ValueError(f"{name} has no pooling: the option must be omitted")
    if options.score_method is None:
        return
    if name not in (None, _WITHOUT_BACKBONE):
        raise ValueError(f"{name} has only one score method: the option must be omitted")
    if options.score_method not in get_args(ScoreMethod):
        raise ValueError(f"the score method must be {' or '.join(get_args(ScoreMethod))}, not {options.score_method!r}")
