"""API keys are shown once and stored hashed."""

import pytest
from sqlalchemy import Engine, select

from core import keys
from core.errors import Refused
from core.tables import api_keys, audit_events


def test_a_key_is_found_by_its_text_until_it_is_revoked(engine: Engine) -> None:
    with engine.begin() as connection:
        made, key = keys.create(connection, "mes", ["read"], actor="test")
        found = keys.find(connection, key)
        assert found == made
        assert found is not None
        assert found.allows("read")
        assert not found.allows("submit")
        for wrong in ("", "lw_", f"{key}x", key.replace("lw_", "xx_"), key[:-1], f"lw_{made.prefix}_", key.upper()):
            assert keys.find(connection, wrong) is None
        keys.revoke(connection, made.prefix, actor="test")
        assert keys.find(connection, key) is None
        assert [one.name for one in keys.list_all(connection)] == ["mes"]


def test_the_secret_is_nowhere_in_the_database(engine: Engine) -> None:
    with engine.begin() as connection:
        _, key = keys.create(connection, "mes", ["admin"], actor="test")
        secret = key.rsplit("_", 1)[1]
        for table in (api_keys, audit_events):
            assert secret not in str(connection.execute(select(table)).all())


@pytest.mark.parametrize("scopes", [[], ["write"], ["read", "root"]])
def test_unknown_scopes_are_refused(engine: Engine, scopes: list[str]) -> None:
    with engine.begin() as connection, pytest.raises(Refused, match="Scopes are submit, read, admin"):
        keys.create(connection, "mes", scopes, actor="test")
