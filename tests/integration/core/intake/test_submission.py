"""Submissions that share a transaction."""

import datetime as dt

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from core.errors import Code, Refused
from core.inspection import inspections
from core.inspection.inspections import Filters
from core.intake import submission
from core.intake.submission import Accepted, NewInspection, Submission
from tests.fixtures.queued_work import IMAGE, make_recipe


def test_a_refused_submission_does_not_affect_the_others_of_its_group(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        make_recipe(connection, "empty")
        make_recipe(connection, "patient", without_model="wait")
        results = submission.accept(
            connection,
            [Submission([NewInspection(IMAGE, name)]) for name in ("ring", "nobody", "empty", "patient", "ring")],
        )
        kinds = [outcome.code if isinstance(outcome, Refused) else outcome.inspections[0].status for outcome in results]
        items, _ = inspections.list_page(connection, Filters(), before=None, limit=10)
    assert kinds == ["queued", Code.RECIPE_UNKNOWN, Code.RECIPE_WITHOUT_MODEL, "queued", "queued"]
    assert [item.recipe for item in items] == ["ring", "patient", "ring"]


labels = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | labels,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(labels.filter(bool), values, max_size=3),
    max_leaves=6,
)
new_inspections = st.builds(
    NewInspection,
    image=st.just(IMAGE),
    recipe=st.just("ring"),
    priority=st.sampled_from(["live", "bulk", "sync"]),
    external_id=labels,
    part_id=labels,
    view=labels,
    lot_id=labels,
    line_id=labels,
    station_id=labels,
    captured_at=st.none()
    | st.datetimes(
        dt.datetime(1970, 1, 2),  # noqa: DTZ001 - the strategy adds the zone
        dt.datetime(2199, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=5, minutes=30))]),
    ),
    deadline_ms=st.none() | st.integers(1, 7 * 24 * 3600 * 1000),
    metadata=st.dictionaries(labels.filter(bool), json_values, max_size=4),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(new=st.lists(new_inspections, min_size=1, max_size=4), as_batch=st.booleans())
def test_the_answer_is_what_a_reader_gets(
    engine: Engine, recipe_id: int, new: list[NewInspection], as_batch: bool
) -> None:
    with engine.begin() as connection:
        [accepted] = submission.accept(connection, [Submission(new, as_batch)])
        assert isinstance(accepted, Accepted)
        stored = inspections.by_ids(connection, [inspection.id for inspection in accepted.inspections])
    assert accepted.inspections == [stored[inspection.id] for inspection in accepted.inspections]
    assert [repr(item.metadata) for item in accepted.inspections] == [
        repr(stored[item.id].metadata) for item in accepted.inspections
    ]
    assert {inspection.batch_id for inspection in accepted.inspections} == {accepted.batch_id}
    assert [(item.external_id, item.part_id, item.station_id) for item in accepted.inspections] == [
        (item.external_id, item.part_id, item.station_id) for item in new
    ]
