"""Sessions end in time: idle ones, old ones, and those of a key that is revoked or expires."""

import datetime as dt

import pytest
from sqlalchemy import Connection, Engine, select, update
from sqlalchemy.sql.functions import now

from core.access import keys
from core.access import sessions as rules
from core.access.sessions import IDLE, LIFETIME
from core.access.tables import api_keys, audit_events, sessions

HOUR = dt.timedelta(hours=1)


def start(connection: Connection, *, expires_at: dt.datetime | None = None) -> tuple[keys.Key, str]:
    key, _ = keys.create(connection, "desk", ["read"], actor="test", expires_at=expires_at)
    return key, rules.create(connection, key, address="10.0.0.1")[1]


def remaining(connection: Connection) -> dt.timedelta:
    """How long the only session lasts without being used."""
    left: dt.timedelta = connection.execute(select(sessions.c.expires_at - now())).scalar_one()
    return left


def test_a_session_is_found_by_its_token(engine: Engine) -> None:
    with engine.begin() as connection:
        key, token = start(connection)
        found = rules.find(connection, token)
        assert found is not None
        assert found.key == key
        assert not found.has_ended
        assert remaining(connection) == IDLE
        for wrong in ("", token[:-1], f"{token}x", rules.csrf_token(token), keys.digest(token).hex()):
            assert rules.find(connection, wrong) is None
        for table in (sessions, audit_events):
            assert token not in str(connection.execute(select(table)).all())


@pytest.mark.parametrize(
    ("age", "expected"),
    [(HOUR, IDLE), (LIFETIME - 13 * HOUR, IDLE), (LIFETIME - 3 * HOUR, 3 * HOUR), (LIFETIME - HOUR / 2, HOUR / 2)],
)
def test_use_prolongs_a_session_up_to_its_lifetime(engine: Engine, age: dt.timedelta, expected: dt.timedelta) -> None:
    with engine.begin() as connection:
        start(connection)
        session_id = connection.execute(
            update(sessions).values(created_at=now() - age, expires_at=now() + HOUR / 4).returning(sessions.c.id)
        ).scalar_one()
        rules.note_use(connection, session_id)
        assert remaining(connection) == expected


def test_a_session_ends_when_its_key_expires(engine: Engine) -> None:
    expires_at = dt.datetime.now(dt.UTC) + HOUR
    with engine.begin() as connection:
        start(connection, expires_at=expires_at)
        session_id = connection.execute(select(sessions.c.id)).scalar_one()
        for _ in range(2):
            assert connection.execute(select(sessions.c.expires_at)).scalar_one() == expires_at
            rules.note_use(connection, session_id)


def test_a_session_that_has_ended_stays_ended(engine: Engine) -> None:
    with engine.begin() as connection:
        _, token = start(connection)
        session_id = connection.execute(update(sessions).values(expires_at=now()).returning(sessions.c.id)).scalar_one()
        rules.note_use(connection, session_id)
        assert rules.find(connection, token) is None


def test_sessions_end_with_their_key_and_no_others(engine: Engine) -> None:
    with engine.begin() as connection:
        (revoked, token), (_, other) = start(connection), start(connection)
        # An earlier version of Linewatch, which knows no sessions, revokes the key.
        connection.execute(update(api_keys).where(api_keys.c.id == revoked.id).values(revoked_at=now()))
        assert rules.find(connection, token) is None
        assert rules.find(connection, other) is not None
        keys.revoke(connection, revoked.prefix, actor="test")
        assert len(connection.execute(select(sessions)).all()) == 1


def test_ending_is_audited_once(engine: Engine) -> None:
    with engine.begin() as connection:
        key, token = start(connection)
        for _ in range(2):
            rules.end(connection, token)
        assert rules.find(connection, token) is None
        query = select(audit_events.c.action, audit_events.c.actor).where(audit_events.c.subject.like("session:%"))
        audited = [tuple(row) for row in connection.execute(query.order_by(audit_events.c.id))]
    assert audited == [("session.created", key.actor), ("session.deleted", key.actor)]


def test_only_sessions_that_have_ended_are_deleted(engine: Engine) -> None:
    with engine.begin() as connection:
        tokens = [start(connection)[1] for _ in range(5)]
        connection.execute(
            update(sessions).where(sessions.c.token_sha256.in_(map(keys.digest, tokens[:3]))).values(expires_at=now())
        )
        assert [rules.delete_ended(connection, at_most=2) for _ in range(3)] == [2, 1, 0]
        assert all(rules.find(connection, token) is not None for token in tokens[3:])
