"""API keys are looked up and compared by digest: no time depends on the secret, and the secret is kept nowhere."""

import asyncio
import hmac
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, event
from starlette.responses import Response
from starlette.types import Message

from api.access.authentication import Authentication
from api.access.credentials import Credentials
from core.access import keys
from core.settings import Settings

DIGEST_BYTES = 32
PIECE = 8  # characters of a secret that occur nowhere by chance


async def ask(app: Authentication, key: str) -> int:
    """Request something with a key; returns the status."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {key}".encode())]
    await app({"type": "http", "method": "GET", "path": "/v1/recipes", "headers": headers}, receive, send)
    return int(sent[0]["status"])


def changed(key: str, position: int) -> str:
    """A key in which one character is another."""
    position %= len(key)
    return key[:position] + ("A" if key[position] != "A" else "B") + key[position + 1 :]


def test_a_key_is_looked_up_and_compared_by_digest(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        stored, key = keys.create(connection, "mes", ["read"], actor="test")
    secret = key.split("_", 2)[2]
    executed: list[tuple[str, Any]] = []
    compared: list[tuple[Any, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        executed.append((statement, parameters))

    def compare(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(keys, "hmac", SimpleNamespace(compare_digest=compare))
    credentials = Credentials(engine, threads=1)
    app = Authentication(Response(), settings.model_copy(update={"auth": "on"}), credentials)
    wrong = [changed(key, -1), changed(key, -len(secret)), key[:-1], f"{key}x", f"lw_{stored.prefix}_x"]

    async def ask_all() -> list[int]:
        return [await ask(app, text) for text in (*wrong, key, key, *wrong)]

    statuses = asyncio.run(ask_all())
    event.remove(engine, "before_cursor_execute", record)

    assert statuses == [401] * len(wrong) + [200, 200] + [401] * len(wrong)
    lookups = [(statement, parameters) for statement, parameters in executed if statement.startswith("SELECT")]
    assert len(lookups) == 2 * len(wrong) + 1  # the second request with the key found it in the cache
    # How much of the secret is right changes nothing in what the database does.
    assert all(lookup == lookups[0] for lookup in lookups)
    assert stored.prefix in str(lookups[0][1])
    assert len(compared) == len(lookups)
    assert {(type(value), len(value)) for pair in compared for value in pair} == {(bytes, DIGEST_BYTES)}
    kept = repr(executed) + repr([vars(part) for part in (app, credentials, credentials._keys)])
    assert repr(keys.digest(key)) in kept
    assert [piece for piece in (secret[at : at + PIECE] for at in range(len(secret) - PIECE)) if piece in kept] == []


def test_the_database_holds_digests(engine: Engine) -> None:
    with engine.begin() as connection:
        _, key = keys.create(connection, "mes", ["read"], actor="test")
        found = keys.find(connection, key)
        assert found is not None
        assert keys.find(connection, keys.digest(key).hex()) is None
        assert keys.find(connection, f"lw_{found.prefix}_{keys.digest(key).hex()}") is None
