"""The drift of a recipe: whether what comes in still is what its model version was made for."""

import datetime as dt
from uuid import UUID

from linewatch.types.base import Result


class DriftSummary(Result, frozen=True):
    """The light of a recipe: that of the newest day with enough parts, scored by the active version.

    Attributes:
        day: null if the last week had no such day.
        light: `none`, `watch` or `drift`.
        reasons: why, in sentences.
        psi, ks: how far the scores of the day are from the reference; null if they are not compared.
    """

    recipe: str
    station_id: str | None
    model_version: int | None
    day: dt.date | None
    parts: int
    light: str
    reasons: list[str]
    psi: float | None
    ks: float | None


class DriftEpisode(DriftSummary, frozen=True):
    """A time in which the light was `drift`, with the summary from its begin; `ended_at` is null while it lasts."""

    id: UUID
    began_at: dt.datetime
    ended_at: dt.datetime | None


class DriftDay(Result, frozen=True):
    """One day (UTC) and model version. Its `document` has the scores, the ng rate, the inputs and the reviews.

    Attributes:
        verdicts: number of parts by the machine's verdict.
        judged: whether there were enough parts; without it, `light` says nothing.
    """

    day: dt.date
    model_version: int
    parts: int
    verdicts: dict[str, int]
    judged: bool
    light: str
    reasons: list[str]


class Drift(Result, frozen=True):
    """The drift of a recipe by day, oldest first. Its `document` also has the references and the rules.

    Attributes:
        since, until: the first and the last day.
        counted_until: inspections that were finished by then are counted; null before any is.
        episodes: newest first.
    """

    recipe: str
    station_id: str | None
    since: dt.date
    until: dt.date
    counted_until: dt.datetime | None
    summary: DriftSummary
    days: list[DriftDay]
    episodes: list[DriftEpisode]
