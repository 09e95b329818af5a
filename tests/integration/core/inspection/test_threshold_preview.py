"""A preview decides as the line does, over the inspections that a threshold is for, and sets nothing."""

import datetime as dt
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ARRAY, Connection, Engine, Float, Text, literal, select, text

from core.inspection import threshold_preview
from core.intake import submission
from core.intake.image_decoding import Header
from core.intake.submission import Accepted, NewInspection, StoredImage, Submission
from core.models import model_versions, recipes, thresholds
from core.models.model_versions import ModelVersion
from core.models.verdicts import decide_verdict
from core.queue import work
from core.queue.work import Outcome

IMAGE = StoredImage(dt.date(2026, 1, 2), b"\1" * 32, 10, Header("image/png", 4, 3))
MANIFEST = {"threshold": {"value": 0.5, "calibration": None}, "review_threshold": None}
LONG_AGO = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite, st.none() | finite, st.lists(st.sampled_from(["input_dark", "input_blurred"]), max_size=2))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_database_decides_as_the_line_does(
    engine: Engine, score: float, threshold: float, review: float | None, reasons: list[str]
) -> None:
    for other in (threshold, score):
        limits = (literal(other, Float(53)), literal(review, Float(53)))
        found = thresholds.verdict_sql(literal(score, Float(53)), *limits, literal(reasons, ARRAY(Text)))
        with engine.begin() as connection:
            assert connection.execute(select(found)).scalar_one() == decide_verdict(score, other, review, reasons)


@pytest.fixture
def version(engine: Engine) -> ModelVersion:
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")
        made, _ = model_versions.register(connection, "ring", sha256=b"\2" * 32, manifest=MANIFEST, actor="test")
        model_versions.mark_ready(connection, made.id)
        return made


def inspect(connection: Connection, *scores: float, reasons: list[str] | None = None, **fields: Any) -> list[UUID]:
    """Images that the line has scored, oldest first."""
    new = [NewInspection(IMAGE, "ring", **fields) for _ in scores]
    [accepted] = submission.accept(connection, [Submission(new)])
    assert isinstance(accepted, Accepted)
    ids = [one.id for one in accepted.inspections]
    claims = work.claim(
        connection,
        recipe_id=accepted.recipe_ids[0],
        ids=ids,
        priority="live",
        at_most=len(ids),
        lease_seconds=60,
        worker="test",
    )
    by_id = {one.id: one for one in claims}
    work.finish(
        connection,
        [
            Outcome(
                id=one,
                attempt=by_id[one].attempt,
                status="completed",
                anomaly_score=score,
                verdict=decide_verdict(score, by_id[one].threshold, by_id[one].review_threshold, reasons or []),
                reasons=reasons or [],
            )
            for one, score in zip(ids, scores, strict=True)
        ],
    )
    return ids


def preview(connection: Connection, version: ModelVersion, threshold: float, **asked: Any) -> threshold_preview.Preview:
    given_: dict[str, Any] = {"review_threshold": None, "station_id": None, "since": LONG_AGO}
    return threshold_preview.preview(connection, version, threshold=threshold, **{**given_, **asked})


def counts(found: threshold_preview.Preview) -> dict[tuple[str, str], int]:
    return {(one.before, one.after): one.count for one in found.flips}


def test_flips_are_counted_by_kind_with_the_newest_as_examples(engine: Engine, version: ModelVersion) -> None:
    with engine.begin() as connection:
        ids = inspect(connection, *[0.2 + number / 1000 for number in range(30)], 0.1, 0.6)
        inspect(connection, 0.3, reasons=["input_dark"])
        found = preview(connection, version, 0.2)
        assert (found.inspections, found.truncated) == (33, False)
        [flip] = found.flips
        assert (flip.before, flip.after, flip.count) == ("ok", "ng", 30)
        assert [one for one, _ in flip.examples] == ids[29:9:-1]
        assert flip.examples[0][1] == 0.229
        assert counts(preview(connection, version, 0.7, review_threshold=0.2)) == {
            ("ok", "review"): 30,
            ("ng", "review"): 1,
        }
        assert preview(connection, version, 0.5).flips == []
        assert [one.threshold for one in thresholds.in_force(connection, version.id)] == [0.5]


def test_a_threshold_is_tried_where_it_would_count(engine: Engine, version: ModelVersion) -> None:
    with engine.begin() as connection:
        common: Any = {"review_threshold": None, "calibration": None, "actor": "test"}
        thresholds.append(connection, version, threshold=0.9, station_id="own", **common)
        inspect(connection, 0.3)
        inspect(connection, 0.3, 0.3, station_id="other")
        inspect(connection, 0.3, 0.3, 0.3, 0.3, station_id="own")
        assert counts(preview(connection, version, 0.2)) == {("ok", "ng"): 3}
        assert counts(preview(connection, version, 0.2, station_id="own")) == {("ok", "ng"): 4}
        assert counts(preview(connection, version, 0.2, station_id="other")) == {("ok", "ng"): 2}
        assert preview(connection, version, 0.2, station_id="nowhere").inspections == 0


def test_only_what_the_version_scored_in_the_period_counts_and_not_without_bound(
    engine: Engine, version: ModelVersion
) -> None:
    with engine.begin() as connection:
        inspect(connection, 0.3, 0.3, 0.3)
        soon = connection.execute(text("SELECT now() + interval '1 s'")).scalar_one()
        assert preview(connection, version, 0.2, since=soon).inspections == 0
        found = preview(connection, version, 0.2, at_most=2)
        assert (found.inspections, found.truncated, counts(found)) == (2, True, {("ok", "ng"): 2})
        other, _ = model_versions.register(connection, "ring", sha256=b"\3" * 32, manifest=MANIFEST, actor="test")
        assert preview(connection, other, 0.2).inspections == 0
