"""The JSON documents of statistics."""

import datetime as dt
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Self
from uuid import UUID

from pydantic import BaseModel, Field

from core.models.verdicts import Verdict
from core.statistics import statistics


class StatusCounts(BaseModel):
    """Numbers of inspections by status."""

    queued: int
    running: int
    completed: int
    failed: int
    cancelled: int

    @classmethod
    def of(cls, counts: Mapping[str, int]) -> Self:
        return cls(**{status: counts[status] for status in cls.model_fields})


class VerdictCounts(BaseModel):
    """Numbers of inspections by verdict."""

    ok: int
    ng: int
    review: int

    @classmethod
    def of(cls, counts: Mapping[Verdict, int]) -> Self:
        return cls(ok=counts["ok"], ng=counts["ng"], review=counts["review"])


class Durations(BaseModel):
    """Quantiles of durations in milliseconds, at most 5 % off."""

    median: float
    p95: float


class Figures(BaseModel):
    """The figures of the inspections that were accepted in a period."""

    total: int
    status: StatusCounts
    verdict: VerdictCounts = Field(description="completed inspections by the machine's verdict")
    effective_verdict: VerdictCounts = Field(description="by the verdict of the newest review, or else the machine's")
    ng_rate: float | None = Field(
        description="share of the completed inspections that the machine calls `ng`, 0 to 1; null without any"
    )
    per_hour: float | None = Field(
        description="accepted inspections per hour of the period that has passed; null if none has"
    )
    time_to_verdict_ms: Durations | None = Field(
        description="from `created_at` to `finished_at` of completed inspections; null without any"
    )

    @classmethod
    def of(cls, figures: statistics.Figures, **further: dt.datetime) -> Self:
        median, p95 = figures.time_to_verdict(0.5), figures.time_to_verdict(0.95)
        return cls(
            total=figures.total,
            status=StatusCounts.of(figures.statuses),
            verdict=VerdictCounts.of(figures.verdicts),
            effective_verdict=VerdictCounts.of(figures.effective_verdicts),
            ng_rate=figures.ng_rate,
            per_hour=figures.per_hour,
            time_to_verdict_ms=None if median is None or p95 is None else Durations(median=median, p95=p95),
            **further,
        )


class BucketFigures(Figures):
    """The figures of the inspections that were accepted from `since` up to, but not at, `until`."""

    since: dt.datetime
    until: dt.datetime


class WaitingForReview(BaseModel):
    """Inspections whose effective verdict is `review`, whenever they were accepted."""

    count: int = Field(description=f"at most {statistics.MAX_WAITING}")
    or_more: bool = Field(description="whether there are more")


class RecipeStatistics(BaseModel):
    """The statistics of a recipe. `buckets` is empty without `bucket`."""

    recipe: str
    totals: Figures
    buckets: list[BucketFigures]
    waiting_for_review: WaitingForReview
    last_ng: UUID | None = Field(description="the newest inspection of the period with the machine's verdict `ng`")

    @classmethod
    def of(cls, figures: statistics.RecipeStatistics, edges: Sequence[dt.datetime] | None) -> Self:
        periods = pairwise(edges) if edges is not None else ()
        return cls(
            recipe=figures.recipe,
            totals=Figures.of(figures.totals),
            buckets=[
                BucketFigures.of(bucket, since=since, until=until)
                for (since, until), bucket in zip(periods, figures.buckets, strict=edges is not None)
            ],
            waiting_for_review=WaitingForReview(
                count=min(figures.waiting_for_review, statistics.MAX_WAITING),
                or_more=figures.waiting_for_review > statistics.MAX_WAITING,
            ),
            last_ng=figures.last_ng,
        )


class Statistics(BaseModel):
    """The statistics of one recipe or of all, by name, of the inspections accepted from `since` up to `until`."""

    since: dt.datetime
    until: dt.datetime
    items: list[RecipeStatistics]
