"""What a day is compared with: the reference scores, the reference days and the calibrations of a model version."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from core.drift import days, held_out
from core.drift.days import ReferenceDays, VersionInfo
from core.drift.distributions import Histogram
from core.drift.documents import Reference


@dataclass(frozen=True)
class Expectation:
    """What is expected of a model version.

    Attributes:
        scores: of the reference; None if there is none yet.
        span: the reference days; None if there are none yet.
        calibrations: the records of its thresholds that apply, oldest first, with the time from which each was in
            force; None for a threshold that was set by hand.
    """

    version: VersionInfo
    document: Reference
    scores: Histogram | None
    span: ReferenceDays | None
    calibrations: list[tuple[dt.datetime, Mapping[str, Any] | None]]

    def calibration_on(self, day: dt.date) -> Mapping[str, Any] | None:
        """Return the calibration of the threshold that was in force at the end of a day."""
        end = dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)
        in_force = [calibration for since, calibration in self.calibrations if since < end]
        return in_force[-1] if in_force else None

    def compares(self, day: dt.date) -> bool:
        """Whether the scores of a day are compared with the reference: not if they are part of it."""
        return self.scores is not None and not (
            self.document.source == "first_days" and self.span is not None and day in self.span
        )


def expectations(
    connection: Connection, recipe_id: int, version_ids: Iterable[int], *, station_id: str | None
) -> dict[int, Expectation]:
    """Return what is expected of these model versions, by id.

    With a station, its own threshold counts, if it has one, and the reference days are those of the station. Held-out
    scores are the same for all stations.
    """
    ids = list(version_ids)
    calibrations = _calibrations(connection, ids, station_id)
    return {
        version.id: _expectation(connection, recipe_id, version, calibrations.get(version.id, []), station_id)
        for version in days.versions(connection, ids).values()
    }


def _expectation(
    connection: Connection,
    recipe_id: int,
    version: VersionInfo,
    calibrations: list[tuple[dt.datetime, Mapping[str, Any] | None]],
    station_id: str | None,
) -> Expectation:
    span = days.reference_days(connection, recipe_id, version, station_id=station_id)
    scores = held_out.read(connection, version.id)
    if scores is not None:
        document = Reference(
            model_version=version.version, source="held_out_scores", parts=scores.total, since=None, until=None
        )
        return Expectation(version, document, scores, span, calibrations)
    if span is None:
        document = Reference(model_version=version.version, source="none", parts=0, since=None, until=None)
        return Expectation(version, document, None, None, calibrations)
    scores = days.scores_of_days(connection, recipe_id, version.id, span, station_id=station_id)
    document = Reference(
        model_version=version.version, source="first_days", parts=scores.total, since=span.first, until=span.last
    )
    return Expectation(version, document, scores, span, calibrations)


def _calibrations(
    connection: Connection, version_ids: list[int], station_id: str | None
) -> dict[int, list[tuple[dt.datetime, Mapping[str, Any] | None]]]:
    """Return the calibrations of the general thresholds; of a station with thresholds of its own, those instead."""
    rows = connection.execute(
        text("""
            SELECT model_version_id, station_id IS NOT NULL AS own, created_at, calibration FROM thresholds
            WHERE model_version_id = ANY(CAST(:ids AS bigint[]))
              AND (station_id IS NULL OR station_id = CAST(:station_id AS text))
            ORDER BY own, id
        """),
        {"ids": version_ids, "station_id": station_id},
    ).all()
    with_own = {row.model_version_id for row in rows if row.own}
    found: dict[int, list[tuple[dt.datetime, Mapping[str, Any] | None]]] = {}
    for row in rows:
        if row.own or row.model_version_id not in with_own:
            found.setdefault(row.model_version_id, []).append((row.created_at, row.calibration))
    return found
