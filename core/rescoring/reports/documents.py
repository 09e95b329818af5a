"""The JSON documents of re-scoring results: the result of an image, and the report of a run."""

import datetime as dt
import hashlib
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field

from core.documents.documents import Error, Model
from core.rescoring.documents import RescoreRun
from core.rescoring.reports.agreement import Agreement
from core.rescoring.reports.history import Rescore
from core.rescoring.reports.results import RunResult

BINS = 60
HISTOGRAM_END = 3.0
"""Histograms range from 0 to this many thresholds; scores beyond either end are in the bin at that end."""


class RecordedResult(BaseModel):
    """What was recorded for an inspection when the run scored it."""

    anomaly_score: float | None
    threshold: float | None
    verdict: str
    model_version: int | None

    @classmethod
    def from_result(cls, result: RunResult) -> Self | None:
        if result.before_verdict is None:
            return None
        return cls(
            anomaly_score=result.before_score,
            threshold=result.before_threshold,
            verdict=result.before_verdict,
            model_version=result.before_model_version,
        )


class RescoreResult(BaseModel):
    """The result of one image of a run.

    `number` is its position in the source, from 1. `before` is null if the image was never inspected or has no
    recorded verdict. `reviewed_verdict` is what reviews had decided at the time of the request. `flip` is
    `<before>_to_<after>` if the two verdicts differ.
    """

    number: int
    inspection_id: UUID | None
    path: str | None
    external_id: str | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    captured_at: dt.datetime | None
    metadata: dict[str, Any] | None
    image_sha256: str | None
    before: RecordedResult | None
    anomaly_score: float | None
    threshold: float | None
    review_threshold: float | None
    verdict: str | None
    reviewed_verdict: str | None
    flip: str | None
    reasons: list[str]
    error: Error | None
    scored_at: dt.datetime

    @classmethod
    def from_result(cls, result: RunResult) -> Self:
        fields = {name: getattr(result, name) for name in cls.model_fields if hasattr(result, name)}
        fields |= {
            "image_sha256": result.image_sha256 and result.image_sha256.hex(),
            "before": RecordedResult.from_result(result),
            "reviewed_verdict": result.review and result.review.verdict,
            "error": _error(result),
        }
        return cls(**fields)


class InspectionRescore(BaseModel):
    """The result that a re-scoring run or a challenger has for an inspection.

    `run_status` is that of the run now, `kind` is `archive` or `challenger`. `number` is the position in the source of
    the run: `/v1/rescore-runs/{run_id}/results/{number}/heatmap` draws the result. `before` is what was recorded for
    the inspection when the run scored it; null if it had no verdict. `flip` is `<before>_to_<after>` if the two
    verdicts differ.
    """

    run_id: UUID
    kind: str
    run_status: str
    model: Model
    number: int
    anomaly_score: float | None
    threshold: float | None
    review_threshold: float | None
    verdict: str | None
    before: RecordedResult | None
    flip: str | None
    reasons: list[str]
    error: Error | None
    scored_at: dt.datetime

    @classmethod
    def from_rescore(cls, rescore: Rescore) -> Self:
        run, result = rescore.run, rescore.result
        fields = {name: getattr(result, name) for name in cls.model_fields if hasattr(result, name)}
        fields |= {
            "run_id": run.id,
            "kind": run.kind,
            "run_status": run.state,
            "model": Model(version=run.model_version, sha256=run.model_sha256.hex()),
            "before": RecordedResult.from_result(result),
            "error": _error(result),
        }
        return cls(**fields)


def _error(result: RunResult) -> Error | None:
    return Error(code=result.error_code, detail=result.error_detail) if result.error_code else None


class FlipCount(BaseModel):
    """Number of images with one kind of flip; `share` of the images that have a verdict before and after."""

    flip: str
    count: int
    share: float | None


class ScoreDistribution(BaseModel):
    """The scores before or after, in units of their thresholds.

    `bins` are counts; the first and the last bin include the scores beyond the range. `without_unit` counts scores
    whose threshold is not above 0; no other figure includes them.
    """

    count: int
    without_unit: int
    p05: float | None
    median: float | None
    p95: float | None
    bins: list[int]


class ScoreShift(BaseModel):
    """How the scores of the same images moved, in units of their thresholds.

    `median` of the differences, after minus before; `distance` of the two distributions (Kolmogorov-Smirnov, from the
    bins: 0 identical, 1 disjoint); `correlation` (Pearson), null if the scores before or after are all equal.
    """

    count: int
    median: float
    distance: float
    correlation: float | None


class ScoreComparison(BaseModel):
    """Both distributions, from 0 to 3 thresholds in 60 bins, and the shift; null if there are no scores."""

    bin_width: float = HISTOGRAM_END / BINS
    before: ScoreDistribution | None
    after: ScoreDistribution | None
    shift: ScoreShift | None


class StationChanges(BaseModel):
    """What changed at one station of a line. Mean scores are in thresholds; each score is clipped to 0 to 3."""

    line_id: str | None
    station_id: str | None
    images: int
    failed: int
    compared: int
    ng_before: int
    ng_after: int
    review_before: int
    review_after: int
    ok_to_ng: int
    ng_to_ok: int
    mean_before: float | None
    mean_after: float | None


class ReviewedImages(BaseModel):
    """The images that people have decided by reviews: their verdict against the verdicts before and after.

    A false reject was reviewed ok and is ng; a miss was reviewed ng and is ok.
    """

    reviewed: int
    before: dict[str, dict[str, int]]
    after: dict[str, dict[str, int]]
    new_false_rejects: int
    false_rejects_gone: int
    new_misses: int
    misses_gone: int

    @classmethod
    def from_agreement(cls, agreement: Agreement) -> Self:
        fields = {name: getattr(agreement, name) for name in cls.model_fields if hasattr(agreement, name)}
        return cls(**fields, reviewed=agreement.count())


class FailedExample(BaseModel):
    """An image that could not be scored."""

    number: int
    inspection_id: UUID | None
    path: str | None
    detail: str | None


class FailureGroup(BaseModel):
    """Images that could not be scored for the same reason, with the first of them as an example."""

    code: str
    count: int
    example: FailedExample


class Timings(BaseModel):
    """Start and end of the run, its duration including pauses, and images per second over that time."""

    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    seconds: float | None
    images_per_second: float | None


class RescoreReport(BaseModel):
    """What would change: the results of a run beside what was recorded, at the time of the report.

    `transitions` counts images by their recorded verdict (`none` if there is none), then by the verdict of the run.
    """

    made_at: dt.datetime
    run: RescoreRun
    images: int = Field(description="images that have a result")
    versions_before: dict[int, int] = Field(
        description="number of recorded verdicts by the model version that gave them"
    )
    compared: int = Field(description="images that have a verdict before and after")
    changed: int = Field(description="images whose two verdicts differ")
    transitions: dict[str, dict[str, int]]
    flips: list[FlipCount]
    scores: ScoreComparison
    by_station: list[StationChanges] = Field(description="by line and station, most images first")
    by_station_left_out: bool = Field(description="true if there are more than the 200 in `by_station`")
    agreement: ReviewedImages
    failures: list[FailureGroup]
    timings: Timings

    @property
    def digest(self) -> str:
        """Hexadecimal digest of the contents, without the times at which they were produced."""
        volatile = {"made_at": True, "run": {"progress"}, "timings": True}
        return hashlib.sha256(self.model_dump_json(exclude=volatile).encode()).hexdigest()[:32]  # type: ignore[arg-type]
