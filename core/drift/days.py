"""Read the daily counts of a recipe, the references of its model versions, and the reviews by day."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, Row, text

from core.drift.distributions import Histogram
from core.drift.grids import Measure
from core.partitions import first_id_of

REFERENCE_DAYS = 3
REFERENCE_PARTS = 500
_DAYS_SEARCHED = 60
"""Days with parts among which the reference days are searched; with fewer parts a day there is no reference."""

DayKey = tuple[dt.date, int]
"""A day and the id of a model version."""


@dataclass(frozen=True)
class DayCounts:
    """The counts of a day and model version.

    Attributes:
        verdicts: number of parts by the machine's verdict: ok, ng, review.
        histograms: of the scores, and of the measurements of images that were measured.
    """

    day: dt.date
    model_version_id: int
    verdicts: dict[str, int]
    histograms: dict[Measure, Histogram] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        return sum(self.verdicts.values())


@dataclass(frozen=True)
class ReferenceDays:
    """The first full days with parts after the activation of a model version.

    Attributes:
        first, last: included.
        ng: number of parts that were ng, of `parts`.
    """

    first: dt.date
    last: dt.date
    ng: int
    parts: int

    def __contains__(self, day: dt.date) -> bool:
        return self.first <= day <= self.last


@dataclass(frozen=True)
class VersionInfo:
    """A model version, as far as drift is concerned.

    Attributes:
        inputs: the ranges of its training images as in its manifest; empty if it has none.
        activated_on: the day of its first activation; None if it never was.
    """

    id: int
    version: int
    inputs: Mapping[str, Any]
    activated_on: dt.date | None


_OF_STATION = "AND (CAST(:station_id AS text) IS NULL OR station_id = :station_id)"

_DAYS = text(f"""
SELECT day, model_version_id, CAST(sum(ok) AS bigint) AS ok, CAST(sum(ng) AS bigint) AS ng,
    CAST(sum(review) AS bigint) AS review
FROM drift_days WHERE recipe_id = :recipe_id AND day BETWEEN :first AND :last {_OF_STATION}
GROUP BY day, model_version_id ORDER BY day, model_version_id
""")  # noqa: S608 - the condition is a constant

_HISTOGRAMS = text(f"""
SELECT day, model_version_id, measure, array_agg(bin) AS bins, array_agg(count) AS counts FROM (
    SELECT day, model_version_id, measure, bin, CAST(sum(count) AS bigint) AS count
    FROM drift_histograms WHERE recipe_id = :recipe_id AND day BETWEEN :first AND :last {_OF_STATION}
    GROUP BY day, model_version_id, measure, bin ORDER BY day, model_version_id, measure, bin
) AS added GROUP BY day, model_version_id, measure
""")  # noqa: S608


def read(
    connection: Connection, recipe_id: int, first: dt.date, last: dt.date, *, station_id: str | None = None
) -> list[DayCounts]:
    """Return the counts of each day and model version with parts, oldest first. `last` is included."""
    parameters = {"recipe_id": recipe_id, "first": first, "last": last, "station_id": station_id}
    found = {
        (row.day, row.model_version_id): DayCounts(
            row.day, row.model_version_id, {"ok": row.ok, "ng": row.ng, "review": row.review}
        )
        for row in connection.execute(_DAYS, parameters)
    }
    for row in connection.execute(_HISTOGRAMS, parameters):
        found[row.day, row.model_version_id].histograms[row.measure] = _histogram(row)
    return list(found.values())


def _histogram(row: Row[Any]) -> Histogram:
    return Histogram(np.array(row.bins, dtype=np.int64), np.array(row.counts, dtype=np.int64))


def versions(connection: Connection, ids: Iterable[int]) -> dict[int, VersionInfo]:
    """Return what concerns drift of these model versions, by id."""
    rows = connection.execute(
        text("""
            SELECT id, version, manifest -> 'inputs' AS inputs, (
                SELECT CAST(min(activated_at) AT TIME ZONE 'UTC' AS date) FROM activations
                WHERE recipe_id = model_versions.recipe_id AND model_version_id = model_versions.id
            ) AS activated_on
            FROM model_versions WHERE id = ANY(CAST(:ids AS bigint[]))
        """),
        {"ids": list(ids)},
    )
    return {row.id: VersionInfo(row.id, row.version, row.inputs or {}, row.activated_on) for row in rows}


def reference_days(
    connection: Connection, recipe_id: int, version: VersionInfo, *, station_id: str | None = None
) -> ReferenceDays | None:
    """Return the first full days (UTC) with parts after the activation of a version.

    They are at least `REFERENCE_DAYS`, and as many as have `REFERENCE_PARTS`. None as long as there are fewer.
    """
    if version.activated_on is None:
        return None
    rows = connection.execute(
        text(f"""
            SELECT day, CAST(sum(ng) AS bigint) AS ng, CAST(sum(ok + ng + review) AS bigint) AS parts FROM drift_days
            WHERE recipe_id = :recipe_id AND day > :activated_on AND day < CAST(now() AT TIME ZONE 'UTC' AS date)
              AND model_version_id = :version_id {_OF_STATION}
            GROUP BY day ORDER BY day LIMIT :at_most
        """),  # noqa: S608
        {
            "recipe_id": recipe_id,
            "activated_on": version.activated_on,
            "version_id": version.id,
            "station_id": station_id,
            "at_most": _DAYS_SEARCHED,
        },
    ).all()
    ng = parts = 0
    for number, row in enumerate(rows, start=1):
        ng, parts = ng + row.ng, parts + row.parts
        if number >= REFERENCE_DAYS and parts >= REFERENCE_PARTS:
            return ReferenceDays(rows[0].day, row.day, ng, parts)
    return None


def scores_of_days(
    connection: Connection, recipe_id: int, version_id: int, span: ReferenceDays, *, station_id: str | None = None
) -> Histogram:
    """Return the scores of a version on all of these days together."""
    rows = connection.execute(
        text(f"""
            SELECT bin, CAST(sum(count) AS bigint) AS number FROM drift_histograms
            WHERE recipe_id = :recipe_id AND day BETWEEN :first AND :last AND model_version_id = :version_id
              AND measure = 'score' {_OF_STATION}
            GROUP BY bin
        """),  # noqa: S608
        {
            "recipe_id": recipe_id,
            "first": span.first,
            "last": span.last,
            "version_id": version_id,
            "station_id": station_id,
        },
    )
    return Histogram.of([(row.bin, row.number) for row in rows])


# One inspection by its id: a join could read all inspections.
_REVIEWS = text("""
SELECT CAST(inspection.created_at AT TIME ZONE 'UTC' AS date) AS day, inspection.model_version_id,
    inspection.verdict AS machine, newest.verdict AS reviewed, count(*) AS number
FROM (
    SELECT DISTINCT ON (inspection_id) inspection_id, verdict FROM reviews
    WHERE recipe_id = :recipe_id AND inspection_id >= :from_id AND inspection_id < :to_id
    ORDER BY inspection_id, id DESC
) AS newest CROSS JOIN LATERAL (
    SELECT created_at, model_version_id, verdict, station_id FROM inspections
    WHERE id = newest.inspection_id AND status = 'completed' LIMIT 1
) AS inspection
WHERE CAST(:station_id AS text) IS NULL OR inspection.station_id = :station_id
GROUP BY 1, 2, 3, 4
""")
_MARGIN = dt.timedelta(minutes=5)
"""`created_at` is the start of the transaction, and the id is made later within it."""


def reviews(
    connection: Connection, recipe_id: int, first: dt.date, last: dt.date, *, station_id: str | None = None
) -> dict[DayKey, dict[tuple[str, str], int]]:
    """Return the numbers of reviewed parts by day and version, and by (machine's verdict, verdict of newest review)."""
    begin, end = _midnight(first), _midnight(last + dt.timedelta(days=1)) + _MARGIN
    rows = connection.execute(
        _REVIEWS,
        {
            "recipe_id": recipe_id,
            "from_id": _id_of(begin),
            "to_id": _id_of(end),
            "station_id": station_id,
        },
    )
    found: dict[DayKey, dict[tuple[str, str], int]] = {}
    for row in rows:
        found.setdefault((row.day, row.model_version_id), {})[row.machine, row.reviewed] = row.number
    return found


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _id_of(moment: dt.datetime) -> UUID:
    return first_id_of(max(moment, dt.datetime(1970, 1, 1, tzinfo=dt.UTC)))
