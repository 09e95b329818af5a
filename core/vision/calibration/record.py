"""The record of a calibration in manifests and the database. `core.vision.calibration.calibration` makes it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from core.vision.manifest_part import ManifestPart, Rate, Score


class ReviewBand(ManifestPart):
    """The band of scores below the threshold that a person reviews: a second threshold, from the same sample.

    Attributes:
        threshold: scores from here up to the calibration's threshold are `review`.
        rate: the requested share of good parts that may be `ng` or `review`, 0 to 1.
        expected_rate: the mean share of good parts that will be `ng` or `review`.
        confidence_interval: (low, high) of that share, with the confidence of the calibration.
    """

    threshold: Score
    rate: Rate
    expected_rate: Rate
    confidence_interval: Annotated[tuple[Rate, Rate], Field(strict=False)]


class Calibration(ManifestPart):
    """The origin of a threshold and the false-reject rate to expect from it.

    Attributes:
        threshold: scores at or above it are `ng`.
        percentile: of the calibration scores, 0 to 100, that the threshold corresponds to.
        false_reject_rate: the requested rate, 0 to 1.
        expected_false_reject_rate: the mean share of good parts that will be rejected.
        confidence_interval: (low, high) of that share, given this sample.
        confidence: the probability that the share lies within the interval.
        sample_size: number of good parts that were scored.
        groups: number of distinct parts or lots among them; null if unknown.
        effective_sample_size: how many independent parts the sample is worth, see
            `core.vision.calibration.calibration.effective_sample_size`; null if all parts are independent.
        defective: number of defective parts that chose the threshold, too; null for none.
        review: the band below the threshold that a person reviews; null for none.
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
    defective: Annotated[int, Field(ge=1)] | None = None
    review: ReviewBand | None = None

    @model_validator(mode="after")
    def _review_threshold_is_not_above(self) -> Self:
        if self.review is not None and self.review.threshold > self.threshold:
            raise ValueError("the review threshold is above the threshold")
        return self
