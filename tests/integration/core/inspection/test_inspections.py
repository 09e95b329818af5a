"""Listings of inspections, in flight and final."""

import datetime as dt

from sqlalchemy import Engine

from core.inspection import inspections
from core.inspection.inspections import Filters
from core.queue import finishing
from tests.fixtures.queued_work import claim, passed, submit


def test_a_listing_contains_each_inspection_once_across_both_tables(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        ids = submit(connection, 9, lot_id="L-1") + submit(connection, 1, lot_id="L-2")
        finishing.finish(
            connection, [passed(claimed) for claimed in claim(connection, recipe_id, ids[1:9:2], at_most=4)]
        )
        ids_listed, before = [], None
        while True:
            items, before = inspections.list_page(connection, Filters(lot_id="L-1"), before=before, limit=4)
            ids_listed += [item.id for item in items]
            if before is None:
                break
        ok, _ = inspections.list_page(connection, Filters(verdict="ok"), before=None, limit=50)
        queued, _ = inspections.list_page(connection, Filters(status="queued", recipe="ring"), before=None, limit=50)
        now = dt.datetime.now(dt.UTC)
        none, _ = inspections.list_page(connection, Filters(since=now + dt.timedelta(hours=1)), before=None, limit=5)
        every, _ = inspections.list_page(
            connection,
            Filters(since=now - dt.timedelta(hours=1), until=now + dt.timedelta(hours=1)),
            before=None,
            limit=50,
        )
    assert ids_listed == sorted(ids[:9], reverse=True)
    assert (len(ok), len(queued), len(none), len(every)) == (4, 6, 0, 10)
