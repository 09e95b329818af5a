"""Both clients: idempotency keys of uploads."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from linewatch import Refused, Unreachable
from linewatch.http.transport import RECONNECTS
from tests.fixtures.mock_system import (
    INSPECTION,
    ScriptedServer,
    problem,
)


def test_all_attempts_of_an_upload_have_the_same_key(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(
        httpx.WriteError("broken pipe"), problem(503, "queue_full"), httpx.Response(202, json=INSPECTION)
    )
    with client(server) as lw:
        lw.submit(b"image")
        lw.submit(b"image")
        lw.submit(b"image", idempotency_key="shift-1-000812")
    keys = [request.headers["Idempotency-Key"] for request in server.requests]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert re.fullmatch("[0-9a-f]{32}", keys[0])
    assert keys[4] == "shift-1-000812"


def test_the_error_of_an_unanswered_upload_contains_its_key(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(httpx.ReadError("reset"))
    with client(server) as lw, pytest.raises(Unreachable, match="same idempotency_key, 'shift-1-000812'"):
        lw.submit(b"image", idempotency_key="shift-1-000812")
    assert len(server.requests) == 1 + RECONNECTS


@pytest.mark.parametrize("key", ["", "Schlüssel", "a b", "x\n", "x" * 256])
def test_an_invalid_idempotency_key_is_refused_before_sending(client: Callable[..., Any], key: str) -> None:
    server = ScriptedServer(httpx.Response(202, json=INSPECTION))
    calls: list[Callable[[Any], object]] = [
        lambda lw: lw.submit(b"image", idempotency_key=key),
        lambda lw: lw.submit_batch({"1.png": b"image"}, idempotency_key=key),
        lambda lw: lw.open_batch(idempotency_key=key),
    ]
    for call in calls:
        with client(server) as lw, pytest.raises(ValueError, match="idempotency_key"):
            call(lw)
    assert server.requests == []


def test_an_upload_in_flight_is_waited_for(client: Callable[..., Any], pauses: list[float]) -> None:
    in_flight = problem(409, "idempotency_in_flight", retry_after="2")
    server = ScriptedServer(httpx.ReadTimeout("slow"), in_flight, in_flight, httpx.Response(202, json=INSPECTION))
    with client(server) as lw:
        assert lw.submit(b"image").recipe == "bottle"
    assert [pause >= 2 for pause in pauses] == [False, True, True]
    with client(ScriptedServer(in_flight), patience=3) as lw, pytest.raises(Refused, match="idempotency_in_flight"):
        lw.submit(b"image")


def test_a_key_used_for_another_request_is_refused_at_once(client: Callable[..., Any], pauses: list[float]) -> None:
    with client(ScriptedServer(problem(422, "idempotency_mismatch"))) as lw, pytest.raises(Refused, match="mismatch"):
        lw.submit(b"image", idempotency_key="used")
    assert pauses == []
