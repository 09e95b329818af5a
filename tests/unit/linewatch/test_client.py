"""Both clients: requests, and the handling of scripted responses."""

import asyncio
import inspect
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_type

import httpx
import pytest

from linewatch import AsyncClient, Client, Inspection, LinewatchError, Refused
from linewatch.errors import BadAddress
from linewatch.operations import Operations
from tests.fixtures.mock_system import (
    BATCH,
    DELIVERY,
    ENDPOINT,
    INSPECTION,
    RECIPES,
    Answer,
    ScriptedServer,
    problem,
)


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


def test_a_response_without_content_is_accepted(client: Callable[..., Any]) -> None:
    server = ScriptedServer(httpx.Response(204))
    with client(server) as lw:
        assert lw.delete_endpoint("a/b") is None
        assert lw.forget_consumer("mes") is None
    assert [request.url.raw_path for request in server.requests] == [
        b"/v1/webhook-endpoints/a%2Fb",
        b"/v1/results/consumers/mes",
    ]


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
