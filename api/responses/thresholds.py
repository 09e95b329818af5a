"""The JSON documents of thresholds: previews, histograms of scores, and the history."""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from core.documents.documents import Threshold
from core.inspection import score_histogram
from core.inspection.threshold_preview import Preview
from core.models import thresholds
from core.models.verdicts import Verdict
from core.vision.calibration.expected_rate import ExpectedRate
from core.vision.calibration.record import Calibration


class Example(BaseModel):
    """An inspection and its score."""

    id: UUID
    anomaly_score: float


class Flip(BaseModel):
    """Inspections whose verdict another threshold would have changed. `examples` are the newest of them."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    before: str = Field(alias="from", description="the recorded verdict")
    after: str = Field(alias="to", description="the verdict with the other threshold")
    count: int
    examples: list[Example]


class VerdictsAfter(BaseModel):
    """Numbers of inspections by the verdict of a threshold."""

    ok: int
    ng: int
    review: int


class ReviewedVerdicts(BaseModel):
    """Numbers of the reviewed inspections by the verdict of the newest review, and by the verdict of the threshold."""

    ok: VerdictsAfter
    ng: VerdictsAfter

    @classmethod
    def of(cls, counts: Mapping[tuple[Verdict, Verdict], int]) -> Self:
        def of_review(review: Verdict) -> VerdictsAfter:
            ok, ng, undecided = (counts.get((review, verdict), 0) for verdict in ("ok", "ng", "review"))
            return VerdictsAfter(ok=ok, ng=ng, review=undecided)

        return cls(ok=of_review("ok"), ng=of_review("ng"))


class ExpectedFalseRejectRate(BaseModel):
    """The share of good parts that a threshold will reject: its mean and an interval, all 0 to 1.

    Between two scores of the sample, `rate` is an upper bound of the mean. `effective_sample_size` is how many
    independent parts the sample is worth; null if all are independent.
    """

    rate: float
    confidence_interval: tuple[float, float]
    confidence: float
    sample_size: int
    effective_sample_size: float | None

    @classmethod
    def of(cls, rate: ExpectedRate, calibration: Calibration) -> Self:
        return cls(
            rate=rate.rate,
            confidence_interval=rate.interval,
            confidence=calibration.confidence,
            sample_size=calibration.sample_size,
            effective_sample_size=calibration.effective_sample_size,
        )


class ThresholdPreview(BaseModel):
    """What a threshold would have changed.

    `inspections` is the number of inspections compared. `truncated` is true if the period has older inspections that
    were not compared.
    """

    threshold: float
    review_threshold: float | None
    station_id: str | None
    since: dt.datetime
    inspections: int
    truncated: bool
    flips: list[Flip]
    reviewed: ReviewedVerdicts
    agreement: float | None = Field(
        description="share of the reviewed inspections that the threshold judges like the newest review, 0 to 1, "
        "without those that would go to review; null without any"
    )
    expected_false_reject_rate: ExpectedFalseRejectRate | None = Field(
        description="of good parts, by the newest calibration whose scores are stored; null without one"
    )

    @classmethod
    def of(cls, preview: Preview, rate: ExpectedFalseRejectRate | None, **parameters: Any) -> Self:
        flips = [
            Flip(
                before=flip.before,
                after=flip.after,
                count=flip.count,
                examples=[Example(id=id_, anomaly_score=score) for id_, score in flip.examples],
            )
            for flip in preview.flips
        ]
        return cls(
            **parameters,
            inspections=preview.inspections,
            truncated=preview.truncated,
            flips=flips,
            reviewed=ReviewedVerdicts.of(preview.reviewed),
            agreement=preview.agreement,
            expected_false_reject_rate=rate,
        )


class PastThreshold(Threshold):
    """A threshold that is or was in force."""

    in_force: bool


class ThresholdHistory(BaseModel):
    """One page of the thresholds of a version, newest first. `next_cursor` is null on the last page."""

    items: list[PastThreshold]
    next_cursor: str | None

    @classmethod
    def of(cls, page: Sequence[thresholds.Threshold], in_force: Collection[int], following: int | None) -> Self:
        items = [
            PastThreshold(**dict(Threshold.of(threshold)), in_force=threshold.id in in_force) for threshold in page
        ]
        return cls(items=items, next_cursor=None if following is None else str(following))


class ScoreQuantiles(BaseModel):
    """Quantiles of scores: the smallest score that this percentage does not exceed."""

    p1: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    p99: float


class ScoreBin(BaseModel):
    """Numbers of inspections with scores from `low` up to, but not at, `high`.

    `ok`, `ng` and `review` count the machine's verdicts, `reviewed_ok` and `reviewed_ng` the newest reviews.
    """

    low: float
    high: float | None = Field(description="null for the last bin, which has all higher scores")
    ok: int
    ng: int
    review: int
    reviewed_ok: int
    reviewed_ng: int

    @classmethod
    def of(cls, bin_: score_histogram.Bin) -> Self:
        counts = {verdict: bin_.verdicts[verdict] for verdict in ("ok", "ng", "review")}
        return cls(
            low=bin_.low,
            high=bin_.high,
            **counts,
            reviewed_ok=bin_.reviewed["ok"],
            reviewed_ng=bin_.reviewed["ng"],
        )


class ScoreHistogram(BaseModel):
    """The scores of completed inspections of a version.

    `threshold` and `review_threshold` are those in force at the station. `count` is the number of inspections in the
    histogram; `truncated` is true if the period has older ones that are not in it. `bins` have the same width, cover
    the threshold and at least 99.5 % of the scores, and end with one for all higher scores; there are none without
    inspections.
    """

    recipe: str
    version: int
    station_id: str | None
    since: dt.datetime
    until: dt.datetime | None
    threshold: float
    review_threshold: float | None
    count: int
    truncated: bool
    min: float | None
    max: float | None
    quantiles: ScoreQuantiles | None
    bins: list[ScoreBin]

    @classmethod
    def of(cls, histogram: score_histogram.ScoreHistogram, **parameters: Any) -> Self:
        quantiles = {f"p{percent}": score for percent, score in histogram.quantiles.items()}
        return cls(
            **parameters,
            threshold=histogram.threshold.threshold,
            review_threshold=histogram.threshold.review_threshold,
            count=histogram.count,
            truncated=histogram.truncated,
            min=histogram.smallest,
            max=histogram.largest,
            quantiles=ScoreQuantiles(**quantiles) if quantiles else None,
            bins=[ScoreBin.of(bin_) for bin_ in histogram.bins],
        )
