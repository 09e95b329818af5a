"""The JSON documents of re-scoring results: one for each image, and the report of a run."""

import datetime as dt
import hashlib
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field

from core.documents.documents import Error
from core.rescoring.documents import RescoreRun
from core.rescoring.reports.agreement import Agreement
from core.rescoring.reports.results import Scored

BINS = 60
HISTOGRAM_END = 3.0
"""Histograms reach from 0 to this many thresholds; what lies beyond either end is in the bin at that end."""


class Before(BaseModel):
    """What was recorded of an inspection when it was scored again."""

    anomaly_score: float | None
    threshold: float | None
    verdict: str
    model_version: int | None


class RescoreResult(BaseModel):
    """One image of a run, scored again.

    `number` is its place in the source, from 1. `before` is null for images that were never inspected or had no
    verdict; `reviewed_verdict` is what people said last, as of now; `flip` is `<before>_to_<after>` where the two
    verdicts differ.
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
    before: Before | None
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
    def of(cls, one: Scored) -> Self:
        own = {name: getattr(one, name) for name in cls.model_fields if hasattr(one, name)}
        own |= {
            "image_sha256": one.image_sha256 and one.image_sha256.hex(),
            "before": None
            if one.before_verdict is None
            else Before(
                anomaly_score=one.before_score,
                threshold=one.before_threshold,
                verdict=one.before_verdict,
                model_version=one.before_model_version,
            ),
            "reviewed_verdict": one.review and one.review.verdict,
            "error": Error(code=one.error_code, detail=one.error_detail) if one.error_code else None,
        }
        return cls(**own)


class Flips(BaseModel):
    """Images whose verdict changed from one to another; `share` of all that have a verdict before and after."""

    flip: str
    count: int
    share: float | None


class Scores(BaseModel):
    """Scores of one side, in units of their thresholds.

    `bins` are counts; the last one is open above, the first one below. `without_unit` are scores whose threshold is
    not above 0: they are in none of the other figures.
    """

    count: int
    without_unit: int
    p05: float | None
    median: float | None
    p95: float | None
    bins: list[int]


class Shift(BaseModel):
    """How the scores of the same images moved, in units of their thresholds.

    `median` of the differences, after less before; `distance` of the two distributions (Kolmogorov-Smirnov, from the
    bins: 0 the same, 1 wholly apart); `correlation` (Pearson), null where either side is constant.
    """

    count: int
    median: float
    distance: float
    correlation: float | None


class Distribution(BaseModel):
    """Both histograms, from 0 to 3 thresholds in 60 bins, and the shift; null where there is nothing to show."""

    bin_width: float = HISTOGRAM_END / BINS
    before: Scores | None
    after: Scores | None
    shift: Shift | None


class Place(BaseModel):
    """What changed at one station of one line; mean scores are in thresholds, each from 0 to 3 at most."""

    line_id: str | None
    station_id: str | None
    pictures: int
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
    """The images whose inspections people have reviewed: the newest review against the verdicts before and after.

    A false reject was reviewed ok and is ng, a miss was reviewed ng and is ok.
    """

    reviewed: int
    before: dict[str, dict[str, int]]
    after: dict[str, dict[str, int]]
    new_false_rejects: int
    false_rejects_gone: int
    new_misses: int
    misses_gone: int

    @classmethod
    def of(cls, one: Agreement) -> Self:
        own = {name: getattr(one, name) for name in cls.model_fields if hasattr(one, name)}
        return cls(**own, reviewed=one.number())


class FailedExample(BaseModel):
    """An image that could not be scored."""

    number: int
    inspection_id: UUID | None
    path: str | None
    detail: str | None


class FailuresOfKind(BaseModel):
    """Images that could not be scored for the same reason, and the first of them."""

    code: str
    count: int
    example: FailedExample


class Timings(BaseModel):
    """When the run began and ended, how long it took, pauses included, and images a second over that time."""

    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    seconds: float | None
    pictures_per_second: float | None


class RescoreReport(BaseModel):
    """What would change: a run's results beside what was recorded, as they stand when the report is made.

    `transitions` counts images by the verdict that was recorded (`none`: there was none), then by that of the run.
    """

    made_at: dt.datetime
    run: RescoreRun
    pictures: int = Field(description="images that have a result")
    versions_before: dict[int, int] = Field(
        description="by model version, how many of the verdicts that were recorded are its"
    )
    compared: int = Field(description="those that have a verdict before and after")
    changed: int = Field(description="those whose two verdicts differ")
    transitions: dict[str, dict[str, int]]
    flips: list[Flips]
    scores: Distribution
    places: list[Place] = Field(description="by line and station, those with the most images first")
    places_left_out: bool = Field(description="whether there are more than the 200 that are listed")
    agreement: ReviewedImages
    failures: list[FailuresOfKind]
    timings: Timings

    @property
    def digest(self) -> str:
        """Hexadecimal, the same for reports that say the same, whenever they were made."""
        passing = {"made_at": True, "run": {"progress"}, "timings": True}
        return hashlib.sha256(self.model_dump_json(exclude=passing).encode()).hexdigest()[:32]  # type: ignore[arg-type]
