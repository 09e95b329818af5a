"""`GET /v1/recipes/{name}/drift`: what is counted, what it is compared with, and how it is judged."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from core.models import model_versions, thresholds
from core.models.verdicts import Verdict
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.queued_work import make_recipe
from tests.fixtures.scored_days import (
    INPUTS,
    add_version,
    dispatch,
    good_scores,
    insert_scores,
    moment_of,
    set_activation,
)

CALIBRATION: dict[str, Any] = {
    "threshold": 0.5,
    "percentile": 95.0,
    "false_reject_rate": 0.05,
    "expected_false_reject_rate": 0.05,
    "confidence_interval": [0.03, 0.08],
    "confidence": 0.95,
    "sample_size": 400,
}


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


@pytest.fixture
def uploaded(engine: Engine) -> Callable[..., int]:
    """`uploaded(**parts)` activates a new version of `ring` whose bundle has these parts; returns its id."""
    with engine.begin() as connection:
        make_recipe(connection)
    return lambda **parts: add_version(engine, "ring", **parts)


def drift(http: httpx.Client, **params: str) -> dict[str, Any]:
    answer = http.get("/v1/recipes/ring/drift", params=params)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_each_finished_inspection_is_counted_once_on_its_day(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded()
    insert_scores(engine, version_id, [0.1, 0.2, 0.6], days_ago=2, station_id="a", brightness=100, contrast=20)
    insert_scores(engine, version_id, [0.7], created_at=moment_of(0, hour=0) - timedelta(microseconds=1))
    for _ in range(3):  # a restart counts nothing again
        dispatch(settings)
    insert_scores(engine, version_id, [0.3, 0.9], days_ago=2, station_id="b")
    dispatch(settings)
    document = drift(http)
    days = {day["day"]: day for day in document["days"]}
    assert list(days) == [f"{moment_of(2):%Y-%m-%d}", f"{moment_of(1):%Y-%m-%d}"]
    earlier, later = days.values()
    assert (earlier["parts"], earlier["verdicts"]) == (5, {"ok": 3, "ng": 2, "review": 0})
    assert (later["parts"], later["verdicts"]) == (1, {"ok": 0, "ng": 1, "review": 0})
    assert earlier["scores"]["median"] == pytest.approx(0.3, rel=0.01)
    assert earlier["inputs"]["brightness"]["measured"] == 3
    assert earlier["inputs"]["brightness"]["quantiles"]["median"] == pytest.approx(100, abs=1)
    assert earlier["inputs"]["sharpness"] == {
        "measured": 0, "quantiles": None, "range": None, "below": 0, "above": 0, "outside": None,
    }  # fmt: skip
    assert datetime.fromisoformat(document["counted_until"]) > moment_of(0, hour=0)
    [day] = drift(http, station_id="b")["days"]
    assert day["parts"] == 2
    assert drift(http, station_id="nowhere")["days"] == []


def test_failed_and_cancelled_inspections_are_not_counted(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    uploaded()
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, status, reasons,
                    timings_ms, error_code)
                SELECT uuidv7(), id, 'live', '{}', now(), '', kind, '{}', '{}', code
                FROM recipes, (VALUES ('failed', 'poison'), ('cancelled', NULL)) AS _(kind, code)
            """)
        )
    dispatch(settings)
    assert drift(http)["days"] == []


def test_rows_that_cannot_be_counted_hold_up_no_others(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded()
    insert_scores(engine, version_id, [float("inf"), float("-inf"), float("nan"), 0.1])
    with engine.begin() as connection:
        connection.execute(text("UPDATE inspections SET model_version_id = NULL WHERE anomaly_score = 0.1"))
    insert_scores(engine, version_id, [0.0, -5.0, 1e300, 5e-324])
    dispatch(settings)
    assert [day["parts"] for day in drift(http)["days"]] == [4]


def test_scores_like_the_held_out_ones_are_no_drift_and_higher_ones_are(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded(held_out_scores=good_scores(300, seed=1))
    insert_scores(engine, version_id, good_scores(400, seed=2), days_ago=1)
    dispatch(settings)
    document = drift(http)
    assert document["references"] == [
        {"model_version": 1, "source": "held_out_scores", "parts": 300, "since": None, "until": None}
    ]
    assert document["summary"]["light"] == "none"
    assert document["summary"]["reasons"] == []
    [day] = document["days"]
    assert day["score_drift"]["psi"] < day["score_drift"]["psi_by_chance"]
    assert sum(day["score_drift"]["shares"]) == pytest.approx(1)
    assert len(day["score_drift"]["shares"]) == len(day["score_drift"]["edges"]) + 1 == 10

    insert_scores(engine, version_id, good_scores(400, seed=3, factor=1.3), days_ago=0)
    dispatch(settings)
    document = drift(http)
    today = document["days"][-1]
    assert today["light"] == document["summary"]["light"] == "drift"
    assert today["score_drift"]["psi"] > 0.25
    assert today["reasons"][0].startswith("The scores have moved: PSI ")
    assert document["summary"]["day"] == today["day"]
    assert document["summary"]["psi"] == today["score_drift"]["psi"]
    assert today["judged"]
    scores_rule = next(rule for rule in document["rules"] if rule["judges"] == "scores")
    assert "0.25" in scores_rule["rule"]
    assert "Siddiqi" in scores_rule["source"]


def test_few_parts_are_not_judged(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded(held_out_scores=good_scores(300, seed=1))
    insert_scores(engine, version_id, good_scores(49, seed=2, factor=10))
    dispatch(settings)
    document = drift(http)
    assert (document["days"][0]["light"], document["days"][0]["judged"]) == ("none", False)
    assert document["days"][0]["reasons"] == ["Not judged: 49 parts are fewer than 50."]
    assert document["summary"]["day"] is None


def test_without_held_out_scores_the_first_full_days_are_the_reference(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded()
    set_activation(engine, version_id, days_ago=6)
    insert_scores(engine, version_id, good_scores(90, seed=0, factor=5), days_ago=6)  # not a full day
    for days_ago in (5, 4, 3):
        insert_scores(engine, version_id, good_scores(150, seed=days_ago), days_ago=days_ago)
    dispatch(settings)
    document = drift(http)
    assert document["references"][0]["source"] == "none"
    assert "no reference yet" in document["days"][-1]["reasons"][0]

    insert_scores(engine, version_id, good_scores(150, seed=2), days_ago=2)
    insert_scores(engine, version_id, good_scores(200, seed=1, factor=1.4), days_ago=1)
    dispatch(settings)
    document = drift(http)
    assert document["references"] == [
        {
            "model_version": 1,
            "source": "first_days",
            "parts": 600,
            "since": f"{moment_of(5):%Y-%m-%d}",
            "until": f"{moment_of(2):%Y-%m-%d}",
        }
    ]
    assert [day["is_reference"] for day in document["days"]] == [False, True, True, True, True, False]
    assert [day["score_drift"] is None for day in document["days"]] == [False, True, True, True, True, False]
    assert document["summary"]["light"] == "drift"


def test_a_version_is_compared_with_its_own_reference(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    first = uploaded(held_out_scores=good_scores(300, seed=1))
    insert_scores(engine, first, good_scores(200, seed=2))
    second = uploaded(held_out_scores=good_scores(300, seed=1, factor=3))
    insert_scores(engine, second, good_scores(200, seed=3, factor=3))
    dispatch(settings)
    document = drift(http)
    assert [(day["model_version"], day["light"]) for day in document["days"]] == [(1, "none"), (2, "none")]
    assert [reference["model_version"] for reference in document["references"]] == [1, 2]
    assert document["summary"]["model_version"] == 2


def test_images_outside_the_range_of_the_training_images_are_drift(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded(inputs=INPUTS)
    insert_scores(engine, version_id, [0.1] * 180, brightness=120, contrast=30, sharpness=0.4)
    insert_scores(engine, version_id, [0.1] * 40, brightness=60, contrast=30, sharpness=0.1)
    dispatch(settings)
    document = drift(http)
    [day] = document["days"]
    assert day["inputs"]["brightness"]["range"] == [80, 160]
    assert day["inputs"]["sharpness"]["range"] == [0.2, None]
    assert (day["inputs"]["brightness"]["below"], day["inputs"]["brightness"]["above"]) == (40, 0)
    assert day["inputs"]["contrast"]["outside"]["count"] == 0
    assert day["inputs"]["sharpness"]["below"] == 40
    assert day["light"] == "drift"
    assert day["reasons"][0] == "Of 220 images, 18.2% darker than the training images (brightness below 80)."
    assert day["reasons"][1] == "Of 220 images, 18.2% less sharp than the training images (sharpness below 0.2)."


def test_the_ng_rate_is_compared_with_the_calibration_in_force(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded(calibration=CALIBRATION)
    with engine.begin() as connection:
        connection.execute(text("UPDATE thresholds SET created_at = created_at - interval '5 days'"))
    insert_scores(engine, version_id, [0.1] * 95 + [0.9] * 5, days_ago=1)
    insert_scores(engine, version_id, [0.1] * 60 + [0.9] * 40)
    dispatch(settings)
    within, above = drift(http)["days"]
    assert (within["ng_rate"]["position"], within["light"]) == ("within", "none")
    assert within["ng_rate"]["expected_false_reject_rate"] == 0.05
    assert within["ng_rate"]["expected_interval"] == [0.03, 0.08]
    assert (above["ng_rate"]["position"], above["light"]) == ("above", "watch")
    assert (above["ng_rate"]["count"], above["ng_rate"]["of"], above["ng_rate"]["share"]) == (40, 100, 0.4)
    low, high = above["ng_rate"]["interval"]
    assert 0.16 < low < 0.4 < high < 0.6
    assert "ng" in above["reasons"][0]
    with engine.begin() as connection:
        version = model_versions.by_id(connection, version_id)
        for station_id, calibration in ((None, None), ("b", CALIBRATION)):
            thresholds.append(
                connection, version, threshold=0.5, review_threshold=None, station_id=station_id,
                calibration=calibration, actor="test",
            )  # fmt: skip
    insert_scores(engine, version_id, [0.1] * 60, station_id="b")
    dispatch(settings)
    expected = [day["ng_rate"]["expected_false_reject_rate"] for day in drift(http)["days"]]
    assert expected == [0.05, None]  # set by hand today
    [of_station] = drift(http, station_id="b")["days"]
    assert of_station["ng_rate"]["expected_false_reject_rate"] == 0.05


def test_false_rejects_are_counted_among_reviewed_parts_by_their_newest_review(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded()
    rejected = insert_scores(engine, version_id, [0.9] * 6, days_ago=1, station_id="a")
    passed = insert_scores(engine, version_id, [0.1] * 4, days_ago=1)
    said: list[tuple[Any, tuple[Verdict, ...]]] = [
        (rejected[0], ("ok",)), (rejected[1], ("ng", "ok")), (rejected[2], ("ok", "ng")), (rejected[3], ("ng",)),
        (passed[0], ("ok",)), (passed[1], ("ng",)),
    ]  # fmt: skip
    with engine.begin() as connection:
        for inspection_id, verdicts in said:
            for verdict in verdicts:
                connection.execute(
                    text("""
                        INSERT INTO reviews (inspection_id, verdict, reviewer, reason, actor)
                        VALUES (:id, :verdict, 'Jo', 'dust', 'test')
                    """),
                    {"id": inspection_id, "verdict": verdict},
                )
    dispatch(settings)
    [day] = drift(http)["days"]
    assert day["reviews"]["reviewed"] == 6
    assert (day["reviews"]["false_rejects"]["count"], day["reviews"]["false_rejects"]["of"]) == (2, 4)
    assert (day["reviews"]["misses"]["count"], day["reviews"]["misses"]["of"]) == (1, 2)
    [of_station] = drift(http, station_id="a")["days"]
    assert of_station["reviews"]["reviewed"] == 4


def test_the_time_range_selects_whole_days(
    http: httpx.Client, engine: Engine, settings: Settings, uploaded: Callable[..., int]
) -> None:
    version_id = uploaded()
    for days_ago in (40, 20, 10, 0):
        insert_scores(engine, version_id, [0.1], days_ago=days_ago)
    dispatch(settings)

    def days(**params: str) -> list[int]:
        found = [datetime.fromisoformat(day["day"]).date() for day in drift(http, **params)["days"]]
        return [(moment_of(0).date() - day).days for day in found]

    assert days() == [20, 10, 0]
    assert days(since=moment_of(40).isoformat()) == [40, 20, 10, 0]
    assert days(until=moment_of(10).isoformat()) == [40, 20, 10]
    assert days(until=moment_of(10, hour=0).isoformat()) == [40, 20]
    assert days(since=moment_of(20).isoformat(), until=moment_of(20, hour=13).isoformat()) == [20]


def test_wrong_queries_are_refused(http: httpx.Client, uploaded: Callable[..., int]) -> None:
    for params in (
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"since": "2024-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
        {"since": "yesterday"},
        {"station": "a"},
        {"station_id": ""},
    ):
        answer = http.get("/v1/recipes/ring/drift", params=params)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), params
    answer = http.get("/v1/recipes/unknown/drift")
    assert (answer.status_code, answer.json()["code"]) == (404, "recipe_unknown")
