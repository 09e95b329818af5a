"""A consumer belongs to the reader that created it; an admin may take it over. Changes are audited."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, select, text

from core.access.tables import audit_events
from core.errors import Code, Refused
from core.feed import consumers, feed
from core.feed.consumers import Consumer, Reader
from core.feed.tables import feed_consumers

MES, OTHER = Reader("key:mes", is_admin=False), Reader("key:other", is_admin=False)
ADMIN = Reader("key:admin", is_admin=True)


def acknowledge(connection: Connection, name: str, reader: Reader) -> Consumer:
    return consumers.acknowledge(connection, feed.number_entries(connection), name, "now", reader=reader)


def audited(connection: Connection) -> list[tuple[Any, ...]]:
    columns = audit_events.c.actor, audit_events.c.action, audit_events.c.subject
    return [tuple(row) for row in connection.execute(select(*columns).order_by(audit_events.c.id))]


def test_another_reader_cannot_move_delete_or_list_a_consumer(engine: Engine) -> None:
    with engine.begin() as connection:
        assert acknowledge(connection, "mes", MES).owner == "key:mes"
        acknowledge(connection, "mes", MES)
        for attempt in (
            lambda: acknowledge(connection, "mes", OTHER),
            lambda: consumers.delete_consumer(connection, "mes", reader=OTHER),
        ):
            with pytest.raises(Refused) as refused:
                attempt()
            assert refused.value.code is Code.FORBIDDEN
        assert consumers.list_visible(connection, OTHER) == []
        assert [consumer.name for consumer in consumers.list_visible(connection, MES)] == ["mes"]
        consumers.delete_consumer(connection, "mes", reader=MES)
        assert audited(connection) == [
            ("key:mes", "consumer.created", "consumer:mes"),
            ("key:mes", "consumer.deleted", "consumer:mes"),
        ]


def test_an_admin_lists_takes_over_and_deletes_any_consumer(engine: Engine) -> None:
    with engine.begin() as connection:
        acknowledge(connection, "mes", MES)
        acknowledge(connection, "other", OTHER)
        assert [consumer.name for consumer in consumers.list_visible(connection, ADMIN)] == ["mes", "other"]
        assert acknowledge(connection, "mes", ADMIN).owner == "key:admin"
        with pytest.raises(Refused):
            acknowledge(connection, "mes", MES)
        consumers.delete_consumer(connection, "other", reader=ADMIN)
        assert audited(connection)[2:] == [
            ("key:admin", "consumer.taken_over", "consumer:mes"),
            ("key:admin", "consumer.deleted", "consumer:other"),
        ]


def test_the_next_reader_becomes_the_owner_of_a_consumer_without_one(engine: Engine) -> None:
    with engine.begin() as connection:
        acknowledge(connection, "mes", MES)
        connection.execute(feed_consumers.update().values(owner=None))
        assert [consumer.name for consumer in consumers.list_visible(connection, OTHER)] == ["mes"]
        assert acknowledge(connection, "mes", OTHER).owner == "key:other"


def test_a_consumer_that_lost_results_and_stopped_a_year_ago_is_deleted(
    engine: Engine, inspect: Callable[..., list[UUID]]
) -> None:
    inspect(3)
    with engine.begin() as connection:
        for name in ("behind", "behind but recent", "linewatch:mqtt"):
            consumers.acknowledge(connection, feed.number_entries(connection), name, "oldest", reader=MES)
        acknowledge(connection, "at the end", MES)
        connection.execute(text("UPDATE feed_consumers SET acknowledged_at = now() - interval '366 days'"))
        connection.execute(
            text("UPDATE feed_consumers SET acknowledged_at = now() - interval '364 days' WHERE name LIKE '%recent'")
        )
        assert consumers.delete_abandoned(connection, at_most=9) == 0
        connection.execute(text("UPDATE feed SET numbered_at = numbered_at - interval '40 days'"))
        assert feed.expire(connection, days=30, at_most=9) == 3
        assert [consumers.delete_abandoned(connection, at_most=9) for _ in range(2)] == [1, 0]
        left = [consumer.name for consumer in consumers.list_visible(connection, ADMIN)]
        assert left == ["at the end", "behind but recent", "linewatch:mqtt"]
        assert audited(connection)[-1] == ("retention", "consumer.deleted", "consumer:behind")
