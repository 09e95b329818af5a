"""Entries of the feed, and what a reader finds there."""

from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine

from core.errors import Refused
from core.feed import feed


def enter(connection: Connection, number: int = 1, *, recipe_id: int = 1) -> list[UUID]:
    """Feed entries of inspections that are nowhere else."""
    ids = [uuid4() for _ in range(number)]
    feed.append(connection, [(one, recipe_id) for one in ids], "final")
    return ids


def entered(engine: Engine, number: int = 1) -> list[UUID]:
    with engine.begin() as connection:
        return enter(connection, number)


def read_all(engine: Engine, after: str | None = None, *, limit: int = 1000) -> tuple[list[UUID], str]:
    """Everything behind a place, page by page, each page a transaction, as the api does it."""
    found: list[UUID] = []
    while True:
        with engine.begin() as connection:
            state = feed.number(connection)
            page = feed.read(connection, state, feed.start(connection, state, after), limit=limit)
        after = str(page.following)
        found += [one.inspection_id for one in page.entries]
        if len(page.entries) < limit:
            return found, after


def refused(engine: Engine, after: str) -> Refused:
    with engine.begin() as connection:
        state = feed.number(connection)
    with engine.begin() as connection, pytest.raises(Refused) as caught:
        feed.start(connection, state, after)
    return caught.value
