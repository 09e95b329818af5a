"""A filtered listing is the unfiltered one, filtered; a page scans a limited number of inspections."""

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event

from core.errors import Refused
from core.inspection import inspections, scanned_filters
from core.inspection.inspections import Filters, Inspection
from core.models import model_versions, recipes
from tests.fixtures.queued_work import MANIFEST
from tests.fixtures.random_results import add_review
from tests.fixtures.timed_inspections import insert_final, insert_image, insert_in_flight

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
SECOND = dt.timedelta(seconds=1)

scores = st.sampled_from([0.0, 1e-300, 0.2, 0.5, 0.75, 1.0, 1e300, -0.5]) | st.floats(-10, 10)
thresholds = st.sampled_from([0.5, 1.0, 0.0, -1.0, 1e-300, 1e300])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "score": st.none() | scores,
            "threshold": thresholds,
            "recipe": st.integers(0, 1),
            "version": st.integers(0, 2),
            "lot": st.sampled_from(["L-1", "L-2"]),
            "reviewers": st.lists(st.sampled_from(["Jo", "Kim", "jo"]), max_size=2),
        }
    ),
    max_size=20,
)
filters = st.fixed_dictionaries(
    {},
    optional={
        "min_score": scores,
        "max_score": scores,
        "min_score_ratio": st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, 1.5]),
        "max_score_ratio": st.floats(0, 1e6) | st.sampled_from([0.0, 1.0, 1.5]),
        "reviewer": st.sampled_from(["Jo", "nobody"]),
        "model_version": st.integers(1, 2),
        "lot_id": st.sampled_from(["L-1", "L-2"]),
        "status": st.sampled_from(["completed", "queued"]),
    },
)


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanned_filters, "SCANNED_AT_ONCE", 3)
    monkeypatch.setattr(scanned_filters, "REVIEWED_AT_ONCE", 2)


def insert(connection: Connection, drawn: list[dict[str, Any]]) -> None:
    """Insert inspections of two recipes with two versions each, accepted one second apart."""
    insert_image(connection)
    versions = []
    for name in ("ring", "cell"):
        recipe_id = recipes.create(connection, name, actor="test").id
        ids = [
            model_versions.register(connection, name, sha256=bytes([number]) * 32, manifest=MANIFEST, actor="test")[
                0
            ].id
            for number in (1, 2)
        ]
        versions.append((recipe_id, [*ids, None]))
    for number, row in enumerate(drawn):
        recipe_id, ids = versions[row["recipe"]]
        fields = {"lot_id": row["lot"], "model_version_id": ids[row["version"]], "threshold": row["threshold"]}
        at = NOON + number * SECOND
        if row["score"] is None:
            insert_in_flight(connection, recipe_id, at, state="queued", **fields)
            continue
        inspection_id = insert_final(connection, recipe_id, at, duration=SECOND, anomaly_score=row["score"], **fields)
        for reviewer in row["reviewers"]:
            add_review(connection, inspection_id, "ok", reviewer=reviewer)


def matches(item: Inspection, wanted: dict[str, Any]) -> bool:
    """Whether an inspection passes the filters."""
    score, threshold = item.anomaly_score, item.threshold
    has_ratio = score is not None and threshold is not None and 1e-100 <= threshold <= 1e100
    checks: dict[str, Callable[[Any], bool]] = {
        "min_score": lambda value: score is not None and score >= value,
        "max_score": lambda value: score is not None and score <= value,
        "min_score_ratio": lambda value: has_ratio and score >= value * threshold,
        "max_score_ratio": lambda value: has_ratio and score <= value * threshold,
        "reviewer": lambda value: value in {review.reviewer for review in item.reviews},
        "model_version": lambda value: item.model_version == value,
        "lot_id": lambda value: item.lot_id == value,
        "status": lambda value: item.status == value,
    }
    return all(checks[name](value) for name, value in wanted.items())


def pages(connection: Connection, limit: int, **wanted: Any) -> Iterator[list[Inspection]]:
    before: UUID | None = None
    while True:
        items, before = inspections.list_page(connection, Filters(**wanted), before=before, limit=limit)
        assert len(items) <= limit
        yield items
        if before is None:
            return


@given(rows, filters, st.sampled_from([None, "ring"]), st.integers(1, 4))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_filtered_listing_is_the_unfiltered_one_filtered(
    engine: Engine,
    few_at_once: None,
    drawn: list[dict[str, Any]],
    wanted: dict[str, Any],
    recipe: str | None,
    limit: int,
) -> None:
    if "model_version" in wanted:
        recipe = "ring"
    with engine.connect() as connection:  # rolled back after each example
        insert(connection, drawn)
        [everything] = pages(connection, 1000, recipe=recipe)
        listed = [item for page in pages(connection, limit, recipe=recipe, **wanted) for item in page]
        assert [item.id for item in listed] == [item.id for item in everything if matches(item, wanted)]


def test_a_page_scans_a_limited_number_of_inspections(engine: Engine, few_at_once: None) -> None:
    with engine.connect() as connection:
        row = {"score": 0.2, "threshold": 0.5, "recipe": 0, "version": 0, "lot": "L-1", "reviewers": []}
        insert(connection, [{**row, "score": 0.9}, *[row] * 7])
        sizes = [len(page) for page in pages(connection, 10, recipe="ring", min_score=0.8)]
        assert sizes == [0, 0, 1]
        assert [len(page) for page in pages(connection, 10, recipe="ring", max_score=0.8)] == [3, 3, 1]


def test_without_scanned_filters_a_page_is_one_query(engine: Engine) -> None:
    statements = []
    with engine.connect() as connection:
        insert_image(connection)
        event.listen(connection, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        inspections.list_page(connection, Filters(lot_id="L-1"), before=None, limit=10)
    assert len([statement for statement in statements if "OFFSET" in statement]) == 0


def test_a_model_version_needs_its_recipe(engine: Engine) -> None:
    with engine.connect() as connection:
        insert(connection, [])
        with pytest.raises(Refused, match="name its recipe"):
            next(pages(connection, 10, model_version=1))
        with pytest.raises(Refused, match="no model version 3"):
            next(pages(connection, 10, recipe="ring", model_version=3))
