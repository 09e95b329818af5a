"""The JSON documents of drift, in API responses and webhooks."""

import datetime as dt
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

Light = Literal["none", "watch", "drift"]


class Rate(BaseModel):
    """`count` of `of` parts. `share` is null if `of` is 0; `interval` is its 99.8 % confidence interval."""

    count: int
    of: int
    share: float | None
    interval: tuple[float, float] = Field(description="(low, high), 0 to 1, by Clopper and Pearson")


class Quantiles(BaseModel):
    """Quantiles of scores or measurements, as exact as the bins that they are counted in."""

    p05: float
    p25: float
    median: float
    p75: float
    p95: float


class ScoreDrift(BaseModel):
    """The scores of a day against those of the reference.

    `psi` is the population stability index over quantile bins of the reference, `ks` the Kolmogorov-Smirnov statistic.
    Without drift, chance exceeds `psi_by_chance` and `ks_by_chance` on one day in 500 each.
    """

    psi: float
    psi_by_chance: float
    ks: float
    ks_by_chance: float
    edges: list[float] = Field(description="the scores between the quantile bins; the first and the last bin are open")
    shares: list[float] = Field(description="of the parts of the day in each quantile bin; one more than `edges`")
    reference_shares: list[float]
    reference_parts: int


class NgRate(Rate):
    """The share of `ng` among the parts of a day, and what to expect.

    `expected_false_reject_rate` and its interval are those of the calibration of the threshold that was in force at the
    end of the day; null if it was set by hand. `reference_rate` is the ng rate on the reference days; null for these
    days themselves, and before there are any. `position` is `above` or `below` if the interval is far from both.
    """

    expected_false_reject_rate: float | None
    expected_interval: tuple[float, float] | None
    reference_rate: Rate | None
    position: Literal["below", "within", "above"] | None = Field(description="null if nothing says what to expect")


class InputDrift(BaseModel):
    """A measurement of the images of a day against the range of the training images.

    `brightness` is the mean grey level, 0 to 255, `contrast` its standard deviation. `sharpness` is about 0 for blurred
    and 5 for noisy images. `range` is null if the model version does not record it; either end may be open. `quantiles`
    is null if no image was measured.
    """

    measured: int
    quantiles: Quantiles | None
    range: tuple[float | None, float | None] | None
    below: int
    above: int
    outside: Rate | None = Field(description="null without a range")


class ReviewedParts(BaseModel):
    """What people said about the parts of a day, by the newest review of each.

    `false_rejects` are the parts reviewed ok among the reviewed parts that the machine calls ng, `misses` the parts
    reviewed ng among those that it calls ok. People choose what they review, so these are no rates of all parts.
    """

    reviewed: int
    false_rejects: Rate
    misses: Rate


class DriftDay(BaseModel):
    """The inspections of one day (UTC, by `created_at`) that one model version has completed.

    A day on which another version was activated has an entry for each of them. `is_reference` is true for the days
    whose scores or ng rate are the reference: they are not compared with themselves. `judged` is false for a day with
    too few parts; its light is then `none`.
    """

    day: dt.date
    model_version: int
    parts: int
    verdicts: dict[str, int]
    light: Light
    judged: bool
    reasons: list[str]
    is_reference: bool
    scores: Quantiles
    score_drift: ScoreDrift | None = Field(description="null if there is nothing to compare with; `reasons` says why")
    ng_rate: NgRate
    inputs: dict[str, InputDrift]
    reviews: ReviewedParts


class Reference(BaseModel):
    """What the scores of a model version are compared with.

    `held_out_scores`: the scores, recorded in its bundle, of good parts that it was not fitted to. `first_days`: its
    scores on the first full days with parts after its activation, `since` and `until` inclusive. `none`: there are too
    few of either yet.
    """

    model_version: int
    source: Literal["held_out_scores", "first_days", "none"]
    parts: int
    since: dt.date | None
    until: dt.date | None


class DriftSummary(BaseModel):
    """The light of a recipe: that of the newest day with enough parts, scored by the active version.

    `day` is null if the last week had no such day, and then the light is `none`.
    """

    recipe: str
    station_id: str | None
    model_version: int | None
    day: dt.date | None
    parts: int
    light: Light
    reasons: list[str]
    psi: float | None
    ks: float | None


class DriftEpisode(DriftSummary):
    """A time in which the light was `drift`, with the summary from its begin. It ends when the light is `none`."""

    id: UUID
    began_at: dt.datetime
    ended_at: dt.datetime | None


class Rule(BaseModel):
    """A rule that judges a day, and where it comes from."""

    judges: Literal["scores", "ng_rate", "inputs", "reviews", "day"]
    rule: str
    source: str


class Drift(BaseModel):
    """The drift of a recipe by day.

    `counted_until`: inspections that were finished by then are counted; null before any is.
    """

    recipe: str
    station_id: str | None
    since: dt.date
    until: dt.date = Field(description="the last day, included")
    counted_until: dt.datetime | None
    summary: DriftSummary
    days: list[DriftDay] = Field(description="oldest first; days without parts are left out")
    references: list[Reference]
    episodes: list[DriftEpisode] = Field(description="those that overlap the time range, newest first, at most 100")
    rules: list[Rule]
