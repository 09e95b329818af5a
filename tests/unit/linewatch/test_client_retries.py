"""Both clients: which requests are retried, when, and for how long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import LinewatchError, Refused, Unreachable
from linewatch.http.transport import RECONNECTS
from tests.fixtures.mock_system import (
    BATCH,
    ENDPOINT,
    INSPECTION,
    RECIPE,
    RECIPES,
    VERSION,
    ScriptedServer,
    problem,
)


@pytest.mark.parametrize("status", [429, 503])
def test_a_refused_upload_is_sent_again_completely_after_retry_after(
    client: Callable[..., Any], pauses: list[float], tmp_path: Path, status: int
) -> None:
    image = tmp_path / "part.png"
    image.write_bytes(b"an image" * 1000)
    server = ScriptedServer(problem(status, "queue_full", retry_after="7"), httpx.Response(202, json=INSPECTION))
    with client(server) as lw:
        assert lw.submit(image, recipe="bottle", metadata={"shift": 1}).recipe == "bottle"
    assert [pause >= 7 for pause in pauses] == [True]
    first, second = (body.replace(b"\r\n", b"\n").split(b"\n", 1)[1] for body in server.bodies)
    assert len(first) == len(second)
    for body in server.bodies:
        assert b"an image" * 1000 in body
        assert b'filename="part.png"' in body
        assert b'{"shift": 1}' in body


def test_the_refusal_is_raised_when_patience_ends(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(problem(503, "queue_full", retry_after="5"))
    with client(server, patience=18) as lw, pytest.raises(Refused, match="queue_full") as caught:
        lw.recipes()
    assert (caught.value.code, caught.value.status, caught.value.detail) == ("queue_full", 503, "No.")
    assert sum(pauses) <= 18
    assert len(server.requests) == len(pauses) + 1 == 4


def test_pauses_grow_without_retry_after(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(*[problem(503, "timeout")] * 4, httpx.Response(200, json=RECIPES))
    with client(server) as lw:
        assert lw.recipes() == []
    assert [round(pause / (0.1 * 2**n)) for n, pause in enumerate(pauses)] == [1, 1, 1, 1]


def test_retry_after_can_be_a_date(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(
        problem(503, "timeout", retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        problem(503, "timeout", retry_after="soon"),
        httpx.Response(503, headers=[(b"Retry-After", "²".encode("latin-1"))]),
        httpx.Response(200, json=RECIPES),
    )
    with client(server) as lw:
        lw.recipes()
    assert max(pauses) < 1


def test_a_get_is_retried_during_an_api_restart(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(
        httpx.ConnectError("refused"), httpx.RemoteProtocolError("closed"), httpx.Response(200, json=RECIPES)
    )
    with client(server) as lw:
        assert lw.recipes() == []
    assert len(pauses) == 2


def test_a_get_gives_up_in_the_end(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(httpx.ConnectError("refused"))
    with client(server) as lw, pytest.raises(Unreachable, match="linewatch up"):
        lw.recipes()
    assert len(pauses) == RECONNECTS


def test_a_post_is_not_repeated_after_a_broken_connection(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(httpx.ReadError("reset"))
    with client(server) as lw, pytest.raises(Unreachable, match="may have been accepted"):
        lw.rollback("bottle")
    assert len(server.requests) == 1
    assert pauses == []


def test_other_refusals_are_not_repeated(client: Callable[..., Any], pauses: list[float]) -> None:
    server = ScriptedServer(problem(404, "recipe_unknown"))
    with client(server) as lw, pytest.raises(Refused, match="recipe_unknown"):
        lw.submit(b"image")
    assert pauses == []


REPEATED: dict[str, tuple[dict[str, Any], Callable[[Any], object]]] = {
    "submit": (INSPECTION, lambda lw: lw.submit(b"image")),
    "submit_batch": (BATCH, lambda lw: lw.submit_batch({"1.png": b"image"})),
    "open_batch": (BATCH, lambda lw: lw.open_batch()),
    "close_batch": (BATCH, lambda lw: lw.close_batch("x")),
    "cancel_batch": (BATCH, lambda lw: lw.cancel_batch("x")),
    "cancel": (INSPECTION, lambda lw: lw.cancel("x")),
    "activate": (VERSION, lambda lw: lw.activate("bottle", 1)),
    "change_recipe": (RECIPE, lambda lw: lw.change_recipe("bottle", bit_depth=12)),
    "change_endpoint": (ENDPOINT, lambda lw: lw.change_endpoint("x", state="enabled")),
}
SENT_ONCE: dict[str, Callable[[Any], object]] = {
    "rollback": lambda lw: lw.rollback("bottle"),
    "activate_run": lambda lw: lw.activate_run("x", max_missed=0),
    "rollback_run": lambda lw: lw.rollback_run("x"),
    "set_challenger": lambda lw: lw.set_challenger("bottle", 2, share=0.1),
    "review": lambda lw: lw.review("x", "ok", reviewer="m", reason="dust"),
    "set_threshold": lambda lw: lw.set_threshold("bottle", 1, 0.5),
    "create_recipe": lambda lw: lw.create_recipe("bottle"),
    "create_endpoint": lambda lw: lw.create_endpoint("https://mes.test/hook", ["inspection.completed"]),
    "rotate_secret": lambda lw: lw.rotate_secret("x"),
    "test_endpoint": lambda lw: lw.test_endpoint("x"),
    "replay": lambda lw: lw.replay("x"),
}


@pytest.mark.parametrize("operation", REPEATED)
def test_idempotent_requests_are_retried_after_a_broken_connection(
    client: Callable[..., Any], pauses: list[float], operation: str
) -> None:
    answer, call = REPEATED[operation]
    server = ScriptedServer(httpx.ReadError("reset"), httpx.Response(200, json=answer))
    with client(server) as lw:
        call(lw)
    assert len(server.requests) == 2
    assert len(pauses) == 1


@pytest.mark.parametrize("operation", SENT_ONCE)
def test_other_requests_are_sent_once(client: Callable[..., Any], pauses: list[float], operation: str) -> None:
    server = ScriptedServer(httpx.ReadError("reset"))
    with client(server) as lw, pytest.raises(Unreachable, match="check before you send it again"):
        SENT_ONCE[operation](lw)
    assert (len(server.requests), pauses) == (1, [])


def test_waits_are_reported_with_their_reason_and_duration(client: Callable[..., Any], pauses: list[float]) -> None:
    waits: list[tuple[str | None, int]] = []

    def on_wait(error: LinewatchError | None, seconds: float) -> None:
        waits.append((getattr(error, "code", type(error).__name__) if error else None, round(seconds)))

    full = problem(503, "queue_full", retry_after="5")
    with client(
        ScriptedServer(full, httpx.ReadError("reset"), full, httpx.Response(200, json=RECIPES)), on_wait=on_wait
    ) as lw:
        lw.recipes()
        lw.recipes()  # gets a response at once
    assert waits == [("queue_full", 5), ("Unreachable", 5), ("queue_full", 10), (None, 10)]


def test_waits_for_a_full_queue_do_not_use_up_connection_retries(
    client: Callable[..., Any], pauses: list[float]
) -> None:
    full = [problem(503, "queue_full")] * (RECONNECTS + 1)
    server = ScriptedServer(*full, httpx.ReadError("reset"), httpx.Response(202, json=INSPECTION))
    with client(server) as lw:
        assert lw.submit(b"image").recipe == "bottle"


def test_a_delete_retried_after_a_broken_connection_succeeds(client: Callable[..., Any], pauses: list[float]) -> None:
    with client(ScriptedServer(httpx.ReadError("reset"), problem(404, "not_found"))) as lw:
        lw.delete_endpoint("x")
    with client(ScriptedServer(problem(404, "not_found"))) as lw, pytest.raises(Refused, match="not_found"):
        lw.delete_endpoint("x")
