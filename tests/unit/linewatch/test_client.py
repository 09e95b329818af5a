"""Both clients: retries, and the handling of scripted responses."""

import asyncio
import inspect
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

import httpx
import pytest

from linewatch import AsyncClient, Client, Inspection, LinewatchError, Refused, Unreachable
from linewatch.errors import BadAddress
from linewatch.http.transport import RECONNECTS
from linewatch.operations import Operations
from tests.fixtures.mock_system import (
    BATCH,
    CLIENTS,
    DELIVERY,
    ENDPOINT,
    INSPECTION,
    VERSION,
    Answer,
    Handler,
    ScriptedServer,
    problem,
)

RECIPES: dict[str, Any] = {"items": []}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`client(server)` returns a client of the scripted server; the test runs with both clients."""

    def make(server: Handler, **options: Any) -> Any:
        return CLIENTS[request.param]("http://system.test", transport=httpx.MockTransport(server), **options)

    return make


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The requested pauses in seconds; none takes any time."""
    slept: list[float] = []
    now = time.monotonic()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("linewatch.http.executors.time.sleep", slept.append)
    monkeypatch.setattr("linewatch.http.executors.asyncio.sleep", sleep)
    monkeypatch.setattr("linewatch.http.transport.time.monotonic", lambda: now + sum(slept))
    return slept


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


def test_a_response_of_another_server_is_reported_as_such(client: Callable[..., Any]) -> None:
    with (
        client(ScriptedServer(httpx.Response(418, text="teapot"))) as lw,
        pytest.raises(Refused, match="is it Linewatch") as caught,
    ):
        lw.recipes()
    assert caught.value.code == "http_418"
    with (
        client(ScriptedServer(httpx.Response(200, text="<html>"))) as lw,
        pytest.raises(LinewatchError, match="another program listen"),
    ):
        lw.recipes()
    with (
        client(ScriptedServer(httpx.Response(200, json={"id": 1}))) as lw,
        pytest.raises(LinewatchError, match="same version"),
    ):
        lw.batch("x")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://[::1", "http://host:port"])
def test_an_invalid_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(BadAddress, match="is not an address"):
        Client(url)


def test_the_api_key_is_sent_as_a_bearer_token(client: Callable[..., Any]) -> None:
    server = ScriptedServer(httpx.Response(200, json=RECIPES))
    with client(server, api_key="lw_x_y") as lw:
        lw.recipes()
    assert server.requests[0].headers["Authorization"] == "Bearer lw_x_y"


def test_a_listing_follows_its_cursor_and_omits_unset_filters(client: Callable[..., Any]) -> None:
    pages = [
        httpx.Response(200, json={"items": [INSPECTION], "next_cursor": "abc"}),
        httpx.Response(200, json={"items": [INSPECTION], "next_cursor": None}),
    ]
    server = ScriptedServer(*pages)
    with client(server) as lw:
        assert len(list(lw.inspections(lot_id="L 1", verdict=None, page_size=1))) == 2
    assert [dict(request.url.params) for request in server.requests] == [
        {"limit": "1", "lot_id": "L 1"},
        {"limit": "1", "lot_id": "L 1", "cursor": "abc"},
    ]


def test_an_incomplete_burst_reports_the_number_of_images_sent(client: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "ä.png").write_bytes(b"first")
    counts: list[int] = []
    server = ScriptedServer(httpx.Response(202, json=BATCH))
    images = {"a/b.png": tmp_path / "ä.png", "c.png": b"second", "d.png": io.BytesIO(b"third")}
    with client(server) as lw:
        lw.submit_batch(images, items={"c.png": {"part_id": "P"}}, recipe="bottle", progress=counts.append)
    assert counts == [1, 2, 3]
    for expected in (b'filename="a/b.png"', b"first", b"second", b"third", b'{"c.png": {"part_id": "P"}}'):
        assert expected in server.bodies[0]


def test_an_empty_burst_is_refused(client: Callable[..., Any]) -> None:
    with client(ScriptedServer(httpx.Response(202, json=BATCH))) as lw, pytest.raises(ValueError, match="at least one"):
        lw.submit_batch([])


def test_a_missing_file_raises_the_error_of_the_operating_system(client: Callable[..., Any], tmp_path: Path) -> None:
    with client(ScriptedServer(httpx.Response(202, json=INSPECTION))) as lw, pytest.raises(FileNotFoundError):
        lw.submit(tmp_path / "missing.png")


def test_names_are_escaped_in_paths(client: Callable[..., Any]) -> None:
    server = ScriptedServer(problem(404, "not_found"))
    with client(server) as lw, pytest.raises(Refused):
        lw.activate("../x/y?z", 1)
    with client(server) as lw, pytest.raises(Refused):
        lw.part("..")
    assert [request.url.raw_path for request in server.requests] == [
        b"/v1/recipes/..%2Fx%2Fy%3Fz/model-versions/1/activate",
        b"/v1/parts/%2E%2E",
    ]


REPEATED: dict[str, tuple[dict[str, Any], Callable[[Any], object]]] = {
    "submit": (INSPECTION, lambda lw: lw.submit(b"image")),
    "submit_batch": (BATCH, lambda lw: lw.submit_batch({"1.png": b"image"})),
    "open_batch": (BATCH, lambda lw: lw.open_batch()),
    "close_batch": (BATCH, lambda lw: lw.close_batch("x")),
    "cancel_batch": (BATCH, lambda lw: lw.cancel_batch("x")),
    "cancel": (INSPECTION, lambda lw: lw.cancel("x")),
    "activate": (VERSION, lambda lw: lw.activate("bottle", 1)),
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


@pytest.mark.parametrize("answer", [lambda: problem(403, "forbidden"), lambda: httpx.ReadError("reset")])
def test_a_failed_wait_names_the_accepted_object(
    client: Callable[..., Any], pauses: list[float], answer: Callable[[], Answer]
) -> None:
    calls: list[tuple[dict[str, Any], Callable[[Any], object]]] = [
        (INSPECTION, lambda lw: lw.submit(b"image", wait=1)),
        (BATCH, lambda lw: lw.submit_batch({"1.png": b"image"}, wait=1)),
    ]
    for created, call in calls:
        server = ScriptedServer(httpx.Response(202, json=created), answer())
        with client(server) as lw, pytest.raises(LinewatchError, match=f"^{created['id']} was accepted") as caught:
            call(lw)
        assert ("scope read" in str(caught.value)) == isinstance(caught.value, Refused)


@pytest.mark.parametrize("key", ["ü", "lw_a b", "lw_a\n", "\udcff"])
def test_an_invalid_api_key_is_refused_and_not_shown(client: Callable[..., Any], key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        client(ScriptedServer(httpx.Response(200, json=RECIPES)), api_key=key)
    assert key not in str(caught.value)


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


def test_waits_for_a_full_queue_do_not_use_up_connection_retries(
    client: Callable[..., Any], pauses: list[float]
) -> None:
    full = [problem(503, "queue_full")] * (RECONNECTS + 1)
    server = ScriptedServer(*full, httpx.ReadError("reset"), httpx.Response(202, json=INSPECTION))
    with client(server) as lw:
        assert lw.submit(b"image").recipe == "bottle"


def test_a_response_without_content_is_accepted(client: Callable[..., Any]) -> None:
    server = ScriptedServer(httpx.Response(204))
    with client(server) as lw:
        assert lw.delete_endpoint("a/b") is None
        assert lw.forget_consumer("mes") is None
    assert [request.url.raw_path for request in server.requests] == [
        b"/v1/webhook-endpoints/a%2Fb",
        b"/v1/results/consumers/mes",
    ]


def test_a_delete_retried_after_a_broken_connection_succeeds(client: Callable[..., Any], pauses: list[float]) -> None:
    with client(ScriptedServer(httpx.ReadError("reset"), problem(404, "not_found"))) as lw:
        lw.delete_endpoint("x")
    with client(ScriptedServer(problem(404, "not_found"))) as lw, pytest.raises(Refused, match="not_found"):
        lw.delete_endpoint("x")


def test_an_update_sends_only_the_given_fields(client: Callable[..., Any]) -> None:
    server = ScriptedServer(httpx.Response(200, json=ENDPOINT))
    with client(server) as lw:
        lw.change_endpoint("x", recipes=None, state="enabled")
    assert server.requests[0].method == "PATCH"
    assert json.loads(server.bodies[0]) == {"recipes": None, "state": "enabled"}


def test_the_outcome_of_a_test_is_waited_for(client: Callable[..., Any], pauses: list[float]) -> None:
    tried = {"at": "2026-01-01T00:00:00Z", "outcome": "failed", "status": 500, "duration_ms": 3.0, "answer": "no"}
    once_tried = {**DELIVERY, "tries": 1, "attempts": [tried]}
    answers = [
        httpx.Response(202, json=DELIVERY),
        *(httpx.Response(200, json=delivery) for delivery in (DELIVERY, once_tried)),
    ]
    with client(ScriptedServer(*answers)) as lw:
        sent = lw.test_endpoint("x", wait=10)
    assert [attempt.outcome for attempt in sent.attempts] == ["failed"]
    assert len(pauses) == 2
    with client(ScriptedServer(httpx.Response(202, json=DELIVERY))) as lw:
        assert lw.test_endpoint("x").attempts == []


def test_an_open_batch_is_created_with_its_callback_url(client: Callable[..., Any]) -> None:
    server = ScriptedServer(httpx.Response(202, json=BATCH))
    with client(server) as lw:
        lw.open_batch()
        lw.open_batch(callback_url="https://mes.test/hook")
    assert server.bodies[0] == b""
    assert b'name="callback_url"\r\n\r\nhttps://mes.test/hook' in server.bodies[1]


def test_both_clients_have_every_operation_with_the_same_signature_and_docstring() -> None:
    operations = {name for name, member in vars_of(Operations) if inspect.isfunction(member)}
    assert operations == {name for name, member in vars_of(Client) if inspect.isfunction(member)}
    for name in operations:
        of_both = [inspect.signature(getattr(face, name)) for face in (Client, AsyncClient)]
        assert of_both[0].parameters == of_both[1].parameters, name
        assert inspect.getdoc(getattr(Client, name)), name
        assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name)), name


def test_types_are_those_of_the_operations() -> None:
    """Checked by mypy; at run time `assert_type` does nothing."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=INSPECTION if request.method == "POST" else {"items": [], "next_cursor": None})

    with Client("http://system.test", transport=httpx.MockTransport(answer)) as lw:
        assert_type(lw.submit(b"image", recipe="bottle", wait=0), Inspection)
        for inspection in lw.inspections(recipe="bottle", verdict="ng"):
            assert_type(inspection, Inspection)

    async def awaited() -> None:
        async with AsyncClient("http://system.test", transport=httpx.MockTransport(answer)) as lw:
            assert_type(await lw.submit(b"image", recipe="bottle"), Inspection)
            async for inspection in lw.inspections(recipe="bottle"):
                assert_type(inspection, Inspection)

    asyncio.run(awaited())


def vars_of(kind: type) -> list[tuple[str, object]]:
    return [(name, member) for name, member in inspect.getmembers(kind) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("linewatch", ["httpx", "msgspec", "core"]),
        (
            "linewatch.client",
            ["core", "torch", "sqlalchemy", "fastapi", "celery", "linewatch.cli", "linewatch.server.embedded"],
        ),
        ("linewatch.cli", ["core", "click", "httpx"]),
        (
            "linewatch.cli.program",
            ["core", "torch", "sqlalchemy", "httpx", "alembic", "numpy"],
        ),
    ],
)
def test_importing_is_cheap(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print(*sorted(set({absent!r}) & set(sys.modules)))"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.strip() == ""
