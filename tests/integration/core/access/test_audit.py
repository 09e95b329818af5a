"""Pages of the audit log are the filtered log, newest first, whatever the filters and the size of the pages."""

import datetime as dt
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert

from core.access import audit
from core.access.audit import AuditEvent, Filters
from core.access.tables import audit_events

ACTORS, ACTIONS, SUBJECTS = ("key:mes", "local"), ("model.activated", "key.created"), ("recipe:ring", "recipe:bolt")
BEGAN = dt.datetime(2026, 1, 31, tzinfo=dt.UTC)
MOMENTS = [BEGAN + dt.timedelta(seconds=second) for second in range(5)]


@pytest.fixture
def events(engine: Engine) -> list[AuditEvent]:
    """Events in order of insertion; many were at the same time, and some later ones at an earlier time."""
    random = Random(7)
    rows = [
        {
            "at": random.choice(MOMENTS),
            "actor": random.choice(ACTORS),
            "action": random.choice(ACTIONS),
            "subject": random.choice(SUBJECTS),
            "detail": {"number": number},
        }
        for number in range(40)
    ]
    with engine.begin() as connection:
        inserted = connection.execute(insert(audit_events).returning(audit_events), rows)
        return [AuditEvent(**row._mapping) for row in inserted]


def pages(engine: Engine, filters: Filters, limit: int) -> Iterator[list[AuditEvent]]:
    after = None
    while True:
        with engine.begin() as connection:
            page, after = audit.list_page(connection, filters, after=after, limit=limit)
        yield page
        if after is None:
            return
        assert len(page) == limit


def matches(event: AuditEvent, filters: Filters) -> bool:
    return (
        filters.actor in (None, event.actor)
        and filters.action in (None, event.action)
        and filters.subject in (None, event.subject)
        and (filters.since is None or event.at >= filters.since)
        and (filters.until is None or event.at < filters.until)
    )


any_filters = st.builds(
    Filters,
    actor=st.sampled_from([None, *ACTORS, "nobody"]),
    action=st.sampled_from([None, *ACTIONS]),
    subject=st.sampled_from([None, *SUBJECTS]),
    since=st.sampled_from([None, *MOMENTS]),
    until=st.sampled_from([None, *MOMENTS]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(filters=any_filters, limit=st.sampled_from([1, 3, 100]))
def test_pages_are_the_filtered_log(engine: Engine, events: list[AuditEvent], filters: Filters, limit: int) -> None:
    newest_first = sorted(events, key=lambda event: (event.at, event.id), reverse=True)
    expected = [event for event in newest_first if matches(event, filters)]
    assert [event for page in pages(engine, filters, limit) for event in page] == expected
