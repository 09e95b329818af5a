"""Histograms of scores count each recent inspection of a version once, by its verdict and its review."""

import datetime as dt
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine

from core.inspection import score_histogram
from core.inspection.score_histogram import ScoreHistogram
from core.models import model_versions, recipes, thresholds
from core.models.model_versions import ModelVersion
from tests.fixtures.queued_work import MANIFEST
from tests.fixtures.random_results import add_review
from tests.fixtures.timed_inspections import insert_final, insert_image

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)

scores = st.sampled_from([0.0, 0.5, 1e308, -1e308, 5e-324]) | st.floats(-10, 10)
rows = st.lists(
    st.tuples(
        scores,
        st.sampled_from(["ok", "ng", "review"]),
        st.lists(st.sampled_from(["ok", "ng"]), max_size=2),
        st.sampled_from([None, "a", "tuned"]),
        st.integers(0, 1),
    ),
    max_size=25,
)


def make_versions(connection: Connection) -> list[ModelVersion]:
    """Register two versions of a recipe; the first has a threshold for the station `tuned`."""
    insert_image(connection)
    recipes.create(connection, "ring", actor="test")
    versions = [
        model_versions.register(connection, "ring", sha256=bytes([number]) * 32, manifest=MANIFEST, actor="test")[0]
        for number in (1, 2)
    ]
    limits: dict[str, Any] = {"threshold": 0.7, "review_threshold": 0.6, "station_id": "tuned", "calibration": None}
    thresholds.append(connection, versions[0], **limits, actor="test")
    return versions


def insert_scored(connection: Connection, version: ModelVersion, number: int, score: float, **fields: Any) -> Any:
    return insert_final(
        connection,
        version.recipe_id,
        NOON + number * SECOND,
        duration=SECOND,
        model_version_id=version.id,
        anomaly_score=score,
        **fields,
    )


def read(connection: Connection, version: ModelVersion, **options: Any) -> ScoreHistogram:
    defaults: dict[str, Any] = {"station_id": None, "since": NOON, "until": None, "bins": 10}
    return score_histogram.read(connection, version, **{**defaults, **options})


@given(rows, st.integers(1, 30), st.sampled_from([None, "tuned"]), st.integers(0, 25), st.integers(1, 25))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_inspection_is_counted_once(
    engine: Engine, drawn: list[Any], bins: int, station: str | None, first: int, length: int
) -> None:
    since, until = NOON + first * SECOND, NOON + (first + length) * SECOND
    with engine.connect() as connection:  # rolled back after each example
        versions = make_versions(connection)
        expected = []
        for number, (score, verdict, said, station_id, version) in enumerate(drawn):
            fields = {"verdict": verdict, "station_id": station_id}
            inspection_id = insert_scored(connection, versions[version], number, score, **fields)
            for review in said:
                add_review(connection, inspection_id, review)
            at_station = station_id == station if station else station_id != "tuned"
            if version == 0 and at_station and first <= number < first + length:
                expected.append((score, verdict, said[-1] if said else None))
        histogram = read(connection, versions[0], station_id=station, since=since, until=until, bins=bins)
    check(histogram, expected, bins)
    assert histogram.threshold.threshold == (0.7 if station else 0.5)


def check(histogram: ScoreHistogram, expected: list[tuple[float, str, str | None]], bins: int) -> None:
    assert (histogram.count, histogram.truncated) == (len(expected), False)
    if not expected:
        assert (histogram.smallest, histogram.largest, histogram.quantiles, histogram.bins) == (None, None, {}, [])
        return
    assert len(histogram.bins) == bins + 1
    for bin_ in histogram.bins:
        inside = [each for each in expected if bin_.low <= each[0] and (bin_.high is None or each[0] < bin_.high)]
        assert bin_.verdicts == Counter(verdict for _, verdict, _ in inside)
        assert bin_.reviewed == Counter(review for _, _, review in inside if review)
    assert sum(bin_.verdicts.total() for bin_ in histogram.bins) == len(expected)
    assert all(bin_.high is None or bin_.low < bin_.high for bin_ in histogram.bins)
    assert histogram.bins[0].low <= histogram.threshold.threshold <= histogram.bins[-1].low
    values = sorted(score for score, _, _ in expected)
    assert (histogram.smallest, histogram.largest) == (values[0], values[-1])
    for percent, score in histogram.quantiles.items():
        assert score == np.quantile(values, percent / 100, method="inverted_cdf")


def test_few_high_scores_do_not_hide_the_others(engine: Engine) -> None:
    with engine.connect() as connection:
        version, _ = make_versions(connection)
        for number in range(400):
            insert_scored(connection, version, number, 1000.0 if number == 7 else number / 1000)
        histogram = read(connection, version, bins=50)
        assert histogram.bins[-1].low == pytest.approx(0.5)
        assert histogram.bins[-1].verdicts == Counter(ok=1)
        assert histogram.largest == 1000


def test_only_the_newest_are_counted(engine: Engine) -> None:
    with engine.connect() as connection:
        version, _ = make_versions(connection)
        for number in range(5):
            insert_scored(connection, version, number, number / 10)
        histogram = read(connection, version, at_most=3)
        assert (histogram.count, histogram.truncated, histogram.smallest) == (3, True, 0.2)
        assert read(connection, version, at_most=5).truncated is False
