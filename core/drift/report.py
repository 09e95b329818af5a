"""The drift of a recipe by day, and its light."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from core.drift import days, judging, references
from core.drift.days import DayCounts
from core.drift.distributions import compare
from core.drift.documents import Drift, DriftDay, DriftSummary, ReviewedParts, ScoreDrift
from core.drift.episodes import overlapping
from core.drift.judging import MIN_PARTS, Finding
from core.drift.references import Expectation
from core.errors import Code, Refused
from core.models import recipes
from core.models.recipes import Recipe

MAX_DAYS = 366
LOOK_BACK = dt.timedelta(days=6)
"""The light of a recipe is that of the newest day with enough parts, at most this long ago."""


@dataclass(frozen=True)
class JudgedDays:
    """Days with parts, oldest first, and what was expected of each model version, by its id."""

    days: list[DriftDay]
    expectations: dict[int, Expectation]


def report(
    connection: Connection, name: str, *, since: dt.datetime, until: dt.datetime, station_id: str | None = None
) -> Drift:
    """Return the drift of a recipe on the days (UTC) that overlap a time range, and its light now.

    Args:
        since, until: the time range, with the end left out.
        station_id: only parts of this station; None for all.

    Raises:
        Refused: RECIPE_UNKNOWN; INVALID_FIELD if the range is empty or longer than `MAX_DAYS`.
    """
    recipe = recipes.get(connection, name)
    first, last = since.astimezone(dt.UTC).date(), (until.astimezone(dt.UTC) - dt.timedelta(microseconds=1)).date()
    if until <= since:
        raise Refused(Code.INVALID_FIELD, "until: must be after since.")
    if (last - first).days >= MAX_DAYS:
        raise Refused(Code.INVALID_FIELD, f"since: at most {MAX_DAYS} days before until.")
    judged = judge_days(connection, recipe.id, first, last, station_id=station_id)
    today = _today(connection)
    covers_look_back = first <= today - LOOK_BACK and today <= last
    recent = judged.days if covers_look_back else _recent(connection, recipe, today, station_id)
    return Drift(
        recipe=name,
        station_id=station_id,
        since=first,
        until=last,
        counted_until=connection.execute(text("SELECT counted_until FROM drift_state")).scalar(),
        summary=_summary(recipe, recent, today, station_id),
        days=judged.days,
        references=[
            expectation.document
            for expectation in sorted(judged.expectations.values(), key=lambda each: each.version.version)
        ],
        episodes=overlapping(connection, recipe.id, since, until),
        rules=judging.RULES,
    )


def summarise(connection: Connection, recipe: Recipe) -> DriftSummary:
    """Return the light of a recipe now, over all stations."""
    today = _today(connection)
    return _summary(recipe, _recent(connection, recipe, today, None), today, None)


def _today(connection: Connection) -> dt.date:
    today: dt.date = connection.execute(text("SELECT CAST(now() AT TIME ZONE 'UTC' AS date)")).scalar_one()
    return today


def _recent(connection: Connection, recipe: Recipe, today: dt.date, station_id: str | None) -> list[DriftDay]:
    return judge_days(connection, recipe.id, today - LOOK_BACK, today, station_id=station_id).days


def _summary(recipe: Recipe, judged: list[DriftDay], today: dt.date, station_id: str | None) -> DriftSummary:
    newest = next(
        (
            day
            for day in reversed(judged)
            if day.model_version == recipe.active_version and day.judged and day.day >= today - LOOK_BACK
        ),
        None,
    )
    if newest is None:
        reason = f"The active version has scored {MIN_PARTS} parts on no day of the last week."
        return DriftSummary(
            recipe=recipe.name,
            station_id=station_id,
            model_version=recipe.active_version,
            day=None,
            parts=0,
            light="none",
            reasons=[reason],
            psi=None,
            ks=None,
        )
    return DriftSummary(
        recipe=recipe.name,
        station_id=station_id,
        model_version=newest.model_version,
        day=newest.day,
        parts=newest.parts,
        light=newest.light,
        reasons=newest.reasons,
        psi=newest.score_drift and newest.score_drift.psi,
        ks=newest.score_drift and newest.score_drift.ks,
    )


def judge_days(
    connection: Connection, recipe_id: int, first: dt.date, last: dt.date, *, station_id: str | None = None
) -> JudgedDays:
    """Judge each day and model version with parts. `last` is included."""
    counts = days.read(connection, recipe_id, first, last, station_id=station_id)
    version_ids = {each.model_version_id for each in counts}
    expected = references.expectations(connection, recipe_id, version_ids, station_id=station_id)
    reviewed = days.reviews(connection, recipe_id, first, last, station_id=station_id) if counts else {}
    judged = [
        _judge(each, expected[each.model_version_id], reviewed.get((each.day, each.model_version_id), {}))
        for each in counts
    ]
    return JudgedDays(judged, expected)


def _judge(counts: DayCounts, expected: Expectation, reviewed: Mapping[tuple[str, str], int]) -> DriftDay:
    score_drift, score_finding = _judge_scores(counts, expected)
    span = expected.span
    is_reference = span is not None and counts.day in span
    ng_rate, ng_finding = judging.judge_ng_rate(
        counts.verdicts["ng"],
        counts.parts,
        expected.calibration_on(counts.day),
        None if span is None or is_reference else judging.rate(span.ng, span.parts),
    )
    inputs, input_findings = judging.judge_inputs(counts.histograms, expected.version.inputs)
    light, reasons = judging.worst([score_finding, ng_finding, *input_findings])
    judged = counts.parts >= MIN_PARTS
    if not judged:
        light, reasons = "none", [f"Not judged: {counts.parts} parts are fewer than {MIN_PARTS}."]
    return DriftDay(
        day=counts.day,
        model_version=expected.version.version,
        parts=counts.parts,
        verdicts=counts.verdicts,
        light=light,
        judged=judged,
        reasons=reasons,
        is_reference=is_reference,
        scores=judging.quantiles(counts.histograms["score"], "score"),
        score_drift=score_drift,
        ng_rate=ng_rate,
        inputs=inputs,
        reviews=_reviewed_parts(reviewed),
    )


def _judge_scores(counts: DayCounts, expected: Expectation) -> tuple[ScoreDrift | None, Finding]:
    """Compare the scores of a day with the reference. The finding says why, if they cannot be compared."""
    if expected.scores is None:
        reason = (
            f"The scores are not compared: there is no reference yet. It needs {days.REFERENCE_DAYS} full days and "
            f"{days.REFERENCE_PARTS} parts after the activation of the version."
        )
        return None, Finding("none", reason)
    if not expected.compares(counts.day):
        return None, Finding("none", "The scores are not compared: this day is part of the reference.")
    comparison = compare(counts.histograms["score"], expected.scores)
    if comparison is None:
        reason = "The scores are not compared: the reference has too few parts, or its scores are all alike."
        return None, Finding("none", reason)
    return judging.judge_scores(comparison)


def _reviewed_parts(reviewed: Mapping[tuple[str, str], int]) -> ReviewedParts:
    """Return the document of numbers of parts by (machine's verdict, verdict of the newest review)."""

    def of(machine: str) -> int:
        return sum(number for (verdict, _), number in reviewed.items() if verdict == machine)

    return ReviewedParts(
        reviewed=sum(reviewed.values()),
        false_rejects=judging.rate(reviewed.get(("ng", "ok"), 0), of("ng")),
        misses=judging.rate(reviewed.get(("ok", "ng"), 0), of("ok")),
    )
