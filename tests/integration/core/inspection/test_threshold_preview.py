"""Threshold previews: same verdicts as on the line, only for the inspections that the threshold applies to."""

import datetime as dt
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ARRAY, Connection, Engine, Float, Text, literal, select, text

from core.inspection import threshold_preview
from core.inspection.threshold_preview import Preview
from core.intake import submission
from core.intake.submission import Accepted, NewInspection, Submission
from core.models import model_versions, recipes, thresholds
from core.models.model_versions import ModelVersion
from core.models.verdicts import decide_verdict
from core.queue import claiming, finishing
from core.queue.finishing import Outcome
from tests.fixtures.queued_work import IMAGE, MANIFEST
from tests.fixtures.random_results import add_review

LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite, st.none() | finite, st.lists(st.sampled_from(["input_dark", "input_blurred"]), max_size=2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_verdicts_in_sql_equal_those_in_python(
    engine: Engine, score: float, threshold: float, review: float | None, reasons: list[str]
) -> None:
    for other in (threshold, score):
        limits = (literal(other, Float(53)), literal(review, Float(53)))
        verdict = thresholds.verdict_sql(literal(score, Float(53)), *limits, literal(reasons, ARRAY(Text)))
        with engine.begin() as connection:
            assert connection.execute(select(verdict)).scalar_one() == decide_verdict(score, other, review, reasons)


@pytest.fixture
def version(engine: Engine) -> ModelVersion:
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        registered, _ = model_versions.register(connection, "ring", sha256=b"\2" * 32, manifest=MANIFEST, actor="test")
        model_versions.mark_ready(connection, registered.id)
        return registered


def inspect(connection: Connection, *scores: float, reasons: Sequence[str] = (), **fields: Any) -> list[UUID]:
    """Insert inspections with these scores; returns their ids, oldest first."""
    new = [NewInspection(IMAGE, "ring", **fields) for _ in scores]
    [accepted] = submission.accept(connection, [Submission(new)])
    assert isinstance(accepted, Accepted)
    ids = [inspection.id for inspection in accepted.inspections]
    claims = claiming.claim(
        connection,
        recipe_id=accepted.recipe_ids[0],
        ids=ids,
        priority="live",
        at_most=len(ids),
        lease_seconds=60,
        worker="test",
    )
    claims = sorted(claims, key=lambda claim: ids.index(claim.id))
    finishing.finish(
        connection,
        [
            Outcome(
                id=claim.id,
                attempt=claim.attempt,
                status="completed",
                anomaly_score=score,
                verdict=decide_verdict(score, claim.threshold, claim.review_threshold, reasons),
                reasons=list(reasons),
            )
            for claim, score in zip(claims, scores, strict=True)
        ],
    )
    return ids


def preview(connection: Connection, version: ModelVersion, threshold: float, **options: Any) -> Preview:
    defaults: dict[str, Any] = {"review_threshold": None, "station_id": None, "since": LONG_AGO}
    return threshold_preview.preview(connection, version, threshold=threshold, **{**defaults, **options})


def counts(result: Preview) -> dict[tuple[str, str], int]:
    return {(flip.before, flip.after): flip.count for flip in result.flips}


def test_flips_are_counted_by_verdicts_with_the_newest_as_examples(engine: Engine, version: ModelVersion) -> None:
    with engine.begin() as connection:
        ids = inspect(connection, *[0.2 + number / 1000 for number in range(30)], 0.1, 0.6)
        inspect(connection, 0.3, reasons=["input_dark"])
        result = preview(connection, version, 0.2)
        assert (result.inspections, result.truncated) == (33, False)
        [flip] = result.flips
        assert (flip.before, flip.after, flip.count) == ("ok", "ng", 30)
        assert [inspection_id for inspection_id, _ in flip.examples] == ids[29:9:-1]
        assert flip.examples[0][1] == 0.229
        assert counts(preview(connection, version, 0.7, review_threshold=0.2)) == {
            ("ok", "review"): 30,
            ("ng", "review"): 1,
        }
        assert preview(connection, version, 0.5).flips == []
        assert [in_force.threshold for in_force in thresholds.in_force(connection, version.id)] == [0.5]


def test_only_inspections_that_the_threshold_applies_to_are_compared(engine: Engine, version: ModelVersion) -> None:
    with engine.begin() as connection:
        common: Any = {"review_threshold": None, "calibration": None, "actor": "test"}
        thresholds.append(connection, version, threshold=0.9, station_id="tuned", **common)
        inspect(connection, 0.3)
        inspect(connection, 0.3, 0.3, station_id="other")
        inspect(connection, 0.3, 0.3, 0.3, 0.3, station_id="tuned")
        assert counts(preview(connection, version, 0.2)) == {("ok", "ng"): 3}
        assert counts(preview(connection, version, 0.2, station_id="tuned")) == {("ok", "ng"): 4}
        assert counts(preview(connection, version, 0.2, station_id="other")) == {("ok", "ng"): 2}
        assert preview(connection, version, 0.2, station_id="nowhere").inspections == 0


def test_only_inspections_of_the_version_and_period_are_compared_up_to_a_limit(
    engine: Engine, version: ModelVersion
) -> None:
    with engine.begin() as connection:
        inspect(connection, 0.3, 0.3, 0.3)
        soon = connection.execute(text("SELECT now() + interval '1 s'")).scalar_one()
        assert preview(connection, version, 0.2, since=soon).inspections == 0
        result = preview(connection, version, 0.2, at_most=2)
        assert (result.inspections, result.truncated, counts(result)) == (2, True, {("ok", "ng"): 2})
        other, _ = model_versions.register(connection, "ring", sha256=b"\3" * 32, manifest=MANIFEST, actor="test")
        assert preview(connection, other, 0.2).inspections == 0


def test_reviews_are_compared_with_the_verdicts_of_the_threshold(engine: Engine, version: ModelVersion) -> None:
    with engine.begin() as connection:
        assert preview(connection, version, 0.2).agreement is None
        ids = inspect(connection, 0.1, 0.3, 0.3, 0.6, 0.6)
        for inspection_id, verdicts in zip(ids, (["ok"], ["ok"], ["ok", "ng"], ["ng"], []), strict=True):
            for verdict in verdicts:
                add_review(connection, inspection_id, verdict)
        strict = preview(connection, version, 0.2)
        assert strict.reviewed == {("ok", "ok"): 1, ("ok", "ng"): 1, ("ng", "ng"): 2}
        assert strict.agreement == 0.75
        lax = preview(connection, version, 0.7, review_threshold=0.5)
        assert lax.reviewed == {("ok", "ok"): 2, ("ng", "ok"): 1, ("ng", "review"): 1}
        assert lax.agreement == pytest.approx(2 / 3)
        undecided = preview(connection, version, 0.7, review_threshold=0.05)
        assert undecided.reviewed == {("ok", "review"): 2, ("ng", "review"): 2}
        assert undecided.agreement is None
