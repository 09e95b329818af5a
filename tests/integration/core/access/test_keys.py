"""API keys are shown once and stored hashed."""

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, select, text, update
from sqlalchemy.sql.functions import now

from core.access import keys
from core.access.tables import api_keys, audit_events
from core.errors import Code, Refused


def test_a_key_is_found_by_its_text_until_it_is_revoked(engine: Engine) -> None:
    with engine.begin() as connection:
        created, key = keys.create(connection, "mes", ["read"], actor="test")
        stored = keys.find(connection, key)
        assert stored == created
        assert stored is not None
        assert stored.allows("read")
        assert not stored.allows("submit")
        for wrong in ("", "lw_", f"{key}x", key.replace("lw_", "xx_"), key[:-1], f"lw_{created.prefix}_", key.upper()):
            assert keys.find(connection, wrong) is None
        keys.revoke(connection, created.prefix, actor="test")
        assert keys.find(connection, key) is None
        assert [key.name for key in keys.list_all(connection)] == ["mes"]


def test_the_secret_is_nowhere_in_the_database(engine: Engine) -> None:
    with engine.begin() as connection:
        _, key = keys.create(connection, "mes", ["admin"], actor="test")
        secret = key.rsplit("_", 1)[1]
        for table in (api_keys, audit_events):
            assert secret not in str(connection.execute(select(table)).all())


def test_a_key_expires(engine: Engine) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=90)
    with engine.begin() as connection:
        created, key = keys.create(connection, "mes", ["read"], actor="test", expires_at=soon, requests_per_minute=60)
        assert (created.expires_at, created.requests_per_minute) == (soon, 60)
        created.check_not_expired()
        connection.execute(update(api_keys).values(expires_at=now()))
        stored = keys.find(connection, key)
        assert stored is not None
        with pytest.raises(Refused, match=f"{created.prefix}.*expired") as refused:
            stored.check_not_expired()
    assert refused.value.code is Code.UNAUTHENTICATED
    assert key not in refused.value.detail


def test_unusable_keys_are_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        with pytest.raises(Refused, match="is in the past"):
            keys.create(connection, "mes", ["read"], actor="test", expires_at=dt.datetime.now(dt.UTC))
        with pytest.raises(Refused, match="at least one"):
            keys.create(connection, "mes", ["read"], actor="test", requests_per_minute=0)
        for blank in ("", " ", "\n"):
            with pytest.raises(Refused, match="needs a name"):
                keys.create(connection, blank, ["read"], actor="test")
        assert keys.list_all(connection) == []
        assert keys.create(connection, " mes ", ["read"], actor="test")[0].name == "mes"


@pytest.mark.parametrize("scopes", [[], ["write"], ["read", "root"]])
def test_unknown_scopes_are_refused(engine: Engine, scopes: list[str]) -> None:
    with engine.begin() as connection, pytest.raises(Refused, match="Scopes are submit, read, admin"):
        keys.create(connection, "mes", scopes, actor="test")


def test_two_admin_keys_cannot_revoke_each_other_at_once(engine: Engine) -> None:
    with engine.begin() as connection:
        first, second = (keys.create(connection, name, ["admin"], actor="test")[0] for name in ("first", "second"))

    def revoke_first() -> None:
        with engine.begin() as connection:
            keys.check_others_remain(connection, first.prefix, actor=second.actor)
            keys.revoke(connection, first.prefix, actor=second.actor)

    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    with ThreadPoolExecutor(1) as pool, engine.begin() as connection:
        keys.check_others_remain(connection, second.prefix, actor=first.actor)
        keys.revoke(connection, second.prefix, actor=first.actor)
        other = pool.submit(revoke_first)
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as observer:
            while observer.execute(waiting).scalar_one() == 0:
                assert not other.done()
        connection.commit()
        with pytest.raises(Refused) as refused:
            other.result(30)
    assert refused.value.code is Code.LAST_ADMIN_KEY


def test_expired_and_revoked_admin_keys_do_not_count(engine: Engine) -> None:
    with engine.begin() as connection:
        created = [keys.create(connection, name, ["admin"], actor="test")[0] for name in ("a", "b", "c", "d")]
        keys.create(connection, "reader", ["read", "submit"], actor="test")
        keys.revoke(connection, created[0].prefix, actor="test")
        connection.execute(update(api_keys).where(api_keys.c.id == created[1].id).values(expires_at=now()))
        keys.check_others_remain(connection, created[2].prefix, actor="local")
        keys.revoke(connection, created[2].prefix, actor="local")
        with pytest.raises(Refused, match="last one with the scope"):
            keys.check_others_remain(connection, created[3].prefix, actor="local")
        for other in created[:3]:
            keys.check_others_remain(connection, other.prefix, actor="local")
