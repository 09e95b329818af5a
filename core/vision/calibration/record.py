"""What a calibration has found, as manifests and the database keep it; `core.vision.calibration` makes it."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rate = Annotated[float, Field(ge=0, le=1)]
Score = float


class ManifestPart(BaseModel):
    """A part of a manifest: immutable, nothing unknown in it, every number finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ReviewBand(ManifestPart):
    """From where on a person looks at a part, and what that means: a second threshold from the same sample.

    Attributes:
        threshold: scores from it up to the calibration's threshold are `review`.
        rate: the share of good parts that may be `ng` or `review`: what was wished for, 0 to 1.
        expected_rate: the mean share of good parts that will be `ng` or `review`.
        confidence_interval: (low, high) of that share, with the confidence of the calibration.
    """

    threshold: Score
    rate: Rate
    expected_rate: Rate
    confidence_interval: Annotated[tuple[Rate, Rate], Field(strict=False)]


class Calibration(ManifestPart):
    """Where a threshold comes from, and what it means. See `core.vision.calibration.calibration`.

    Attributes:
        threshold: scores at or above it are `ng`.
        percentile: of the calibration scores, 0 to 100, that the threshold stands for.
        false_reject_rate: what was wished for, 0 to 1.
        expected_false_reject_rate: the mean share of good parts that will be rejected.
        confidence_interval: (low, high) of that share, given this sample.
        confidence: the probability that the share lies within the interval.
        sample_size: good parts that were scored.
        groups: distinct parts or lots among them; null where it is not known.
        effective_sample_size: how many independent parts they are worth, see
            `core.vision.training.grouping.effective_size`; null where each is independent.
        review: the band below the threshold that a person looks at; null for none.
    """

    threshold: Score
    percentile: Annotated[float, Field(ge=0, le=100)]
    false_reject_rate: Rate
    expected_false_reject_rate: Rate
    confidence_interval: Annotated[tuple[Rate, Rate], Field(strict=False)]
    confidence: Rate
    sample_size: Annotated[int, Field(ge=1)]
    groups: Annotated[int, Field(ge=1)] | None = None
    effective_sample_size: Annotated[float, Field(ge=1)] | None = None
    review: ReviewBand | None = None

    @model_validator(mode="after")
    def _review_comes_before(self) -> Self:
        if self.review is not None and self.review.threshold > self.threshold:
            raise ValueError("the review threshold is above the threshold")
        return self
