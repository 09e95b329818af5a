"""The client, both faces: what it tries again and what not, and what it makes of answers. Only failures are played."""

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
    DELIVERY,
    ENDPOINT,
    FACES,
    INSPECTION,
    VERSION,
    Answer,
    Handler,
    Played,
    problem,
)

RECIPES: dict[str, Any] = {"items": []}


@pytest.fixture(params=FACES)
def client(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes clients of a played system, of each face."""

    def make(played: Handler, **options: Any) -> Any:
        return FACES[request.param]("http://system.test", transport=httpx.MockTransport(played), **options)

    return make


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; none takes any time."""
    made: list[float] = []
    now = time.monotonic()

    async def sleep(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr("linewatch.http.executors.time.sleep", made.append)
    monkeypatch.setattr("linewatch.http.executors.asyncio.sleep", sleep)
    monkeypatch.setattr("linewatch.http.transport.time.monotonic", lambda: now + sum(made))
    return made


@pytest.mark.parametrize("status", [429, 503])
def test_an_upload_that_was_not_accepted_is_sent_again_whole_after_retry_after(
    client: Callable[..., Any], pauses: list[float], tmp_path: Path, status: int
) -> None:
    image = tmp_path / "part.png"
    image.write_bytes(b"an image" * 1000)
    played = Played(problem(status, "queue_full", retry_after="7"), httpx.Response(202, json=INSPECTION))
    with client(played) as lw:
        assert lw.submit(image, recipe="bottle", metadata={"shift": 1}).recipe == "bottle"
    assert [pause >= 7 for pause in pauses] == [True]
    first, second = (body.replace(b"\r\n", b"\n").split(b"\n", 1)[1] for body in played.bodies)
    assert len(first) == len(second)
    for body in played.bodies:
        assert b"an image" * 1000 in body
        assert b'filename="part.png"' in body
        assert b'{"shift": 1}' in body


def test_patience_ends_with_the_refusal(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(problem(503, "queue_full", retry_after="5"))
    with client(played, patience=18) as lw, pytest.raises(Refused, match="queue_full") as caught:
        lw.recipes()
    assert (caught.value.code, caught.value.status, caught.value.detail) == ("queue_full", 503, "No.")
    assert sum(pauses) <= 18
    assert len(played.requests) == len(pauses) + 1 == 4


def test_pauses_grow_where_the_answer_names_none(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(*[problem(503, "timeout")] * 4, httpx.Response(200, json=RECIPES))
    with client(played) as lw:
        assert lw.recipes() == []
    assert [round(pause / (0.1 * 2**n)) for n, pause in enumerate(pauses)] == [1, 1, 1, 1]


def test_a_date_is_a_retry_after_too(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(
        problem(503, "timeout", retry_after="Wed, 21 Oct 2015 07:28:00 GMT"),
        problem(503, "timeout", retry_after="soon"),
        httpx.Response(503, headers=[(b"Retry-After", "²".encode("latin-1"))]),
        httpx.Response(200, json=RECIPES),
    )
    with client(played) as lw:
        lw.recipes()
    assert max(pauses) < 1


def test_a_get_survives_a_restart_of_the_api(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(
        httpx.ConnectError("refused"), httpx.RemoteProtocolError("closed"), httpx.Response(200, json=RECIPES)
    )
    with client(played) as lw:
        assert lw.recipes() == []
    assert len(pauses) == 2


def test_a_get_gives_up_in_the_end(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(httpx.ConnectError("refused"))
    with client(played) as lw, pytest.raises(Unreachable, match="linewatch up"):
        lw.recipes()
    assert len(pauses) == RECONNECTS


def test_a_post_whose_connection_broke_is_not_repeated(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(httpx.ReadError("reset"))
    with client(played) as lw, pytest.raises(Unreachable, match="may have been accepted"):
        lw.rollback("bottle")
    assert len(played.requests) == 1
    assert pauses == []


def test_other_refusals_are_not_repeated(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(problem(404, "recipe_unknown"))
    with client(played) as lw, pytest.raises(Refused, match="recipe_unknown"):
        lw.submit(b"image")
    assert pauses == []


def test_an_answer_that_is_not_linewatchs_is_said_to_be_so(client: Callable[..., Any]) -> None:
    with (
        client(Played(httpx.Response(418, text="teapot"))) as lw,
        pytest.raises(Refused, match="is it Linewatch") as caught,
    ):
        lw.recipes()
    assert caught.value.code == "http_418"
    with client(Played(httpx.Response(200, text="<html>"))) as lw, pytest.raises(LinewatchError, match="else listen"):
        lw.recipes()
    with client(Played(httpx.Response(200, json={"id": 1}))) as lw, pytest.raises(LinewatchError, match="same version"):
        lw.batch("x")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://[::1", "http://host:port"])
def test_what_is_no_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(BadAddress, match="is not an address"):
        Client(url)


def test_the_key_travels_as_a_bearer_token(client: Callable[..., Any]) -> None:
    played = Played(httpx.Response(200, json=RECIPES))
    with client(played, api_key="lw_x_y") as lw:
        lw.recipes()
    assert played.requests[0].headers["Authorization"] == "Bearer lw_x_y"


def test_a_listing_follows_its_cursor_and_leaves_out_what_was_not_asked(client: Callable[..., Any]) -> None:
    pages = [
        httpx.Response(200, json={"items": [INSPECTION], "next_cursor": "abc"}),
        httpx.Response(200, json={"items": [INSPECTION], "next_cursor": None}),
    ]
    played = Played(*pages)
    with client(played) as lw:
        assert len(list(lw.inspections(lot_id="L 1", verdict=None, page_size=1))) == 2
    assert [dict(request.url.params) for request in played.requests] == [
        {"limit": "1", "lot_id": "L 1"},
        {"limit": "1", "lot_id": "L 1", "cursor": "abc"},
    ]


def test_a_burst_says_how_many_images_were_sent(client: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "ä.png").write_bytes(b"first")
    told: list[int] = []
    played = Played(httpx.Response(202, json=BATCH))
    images = {"a/b.png": tmp_path / "ä.png", "c.png": b"second", "d.png": io.BytesIO(b"third")}
    with client(played) as lw:
        lw.submit_batch(images, items={"c.png": {"part_id": "P"}}, recipe="bottle", progress=told.append)
    assert told == [1, 2, 3]
    for expected in (b'filename="a/b.png"', b"first", b"second", b"third", b'{"c.png": {"part_id": "P"}}'):
        assert expected in played.bodies[0]


def test_a_burst_of_nothing_would_open_a_batch_that_never_ends(client: Callable[..., Any]) -> None:
    with client(Played(httpx.Response(202, json=BATCH))) as lw, pytest.raises(ValueError, match="at least one"):
        lw.submit_batch([])


def test_a_file_that_is_not_there_is_the_systems_own_error(client: Callable[..., Any], tmp_path: Path) -> None:
    with client(Played(httpx.Response(202, json=INSPECTION))) as lw, pytest.raises(FileNotFoundError):
        lw.submit(tmp_path / "missing.png")


def test_names_cannot_lead_to_other_addresses(client: Callable[..., Any]) -> None:
    played = Played(problem(404, "not_found"))
    with client(played) as lw, pytest.raises(Refused):
        lw.activate("../x/y?z", 1)
    with client(played) as lw, pytest.raises(Refused):
        lw.part("..")
    assert [request.url.raw_path for request in played.requests] == [
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
def test_what_may_be_done_twice_survives_a_broken_connection(
    client: Callable[..., Any], pauses: list[float], operation: str
) -> None:
    answer, call = REPEATED[operation]
    played = Played(httpx.ReadError("reset"), httpx.Response(200, json=answer))
    with client(played) as lw:
        call(lw)
    assert len(played.requests) == 2
    assert len(pauses) == 1


@pytest.mark.parametrize("operation", SENT_ONCE)
def test_what_may_not_be_done_twice_is_sent_once(
    client: Callable[..., Any], pauses: list[float], operation: str
) -> None:
    played = Played(httpx.ReadError("reset"))
    with client(played) as lw, pytest.raises(Unreachable, match="check before you send it again"):
        SENT_ONCE[operation](lw)
    assert (len(played.requests), pauses) == (1, [])


def test_an_upload_has_one_key_however_often_it_is_sent(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(httpx.WriteError("broken pipe"), problem(503, "queue_full"), httpx.Response(202, json=INSPECTION))
    with client(played) as lw:
        lw.submit(b"image")
        lw.submit(b"image")
        lw.submit(b"image", idempotency_key="shift-1-000812")
    keys = [request.headers["Idempotency-Key"] for request in played.requests]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert re.fullmatch("[0-9a-f]{32}", keys[0])
    assert keys[4] == "shift-1-000812"


def test_an_upload_that_was_never_answered_names_its_key(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(httpx.ReadError("reset"))
    with client(played) as lw, pytest.raises(Unreachable, match="same idempotency_key, 'shift-1-000812'"):
        lw.submit(b"image", idempotency_key="shift-1-000812")
    assert len(played.requests) == 1 + RECONNECTS


@pytest.mark.parametrize("key", ["", "Schlüssel", "a b", "x\n", "x" * 256])
def test_what_is_no_key_is_refused_and_nothing_is_sent(client: Callable[..., Any], key: str) -> None:
    played = Played(httpx.Response(202, json=INSPECTION))
    calls: list[Callable[[Any], object]] = [
        lambda lw: lw.submit(b"image", idempotency_key=key),
        lambda lw: lw.submit_batch({"1.png": b"image"}, idempotency_key=key),
        lambda lw: lw.open_batch(idempotency_key=key),
    ]
    for call in calls:
        with client(played) as lw, pytest.raises(ValueError, match="idempotency_key"):
            call(lw)
    assert played.requests == []


@pytest.mark.parametrize("answer", [lambda: problem(403, "forbidden"), lambda: httpx.ReadError("reset")])
def test_what_was_accepted_and_cannot_be_waited_for_is_named(
    client: Callable[..., Any], pauses: list[float], answer: Callable[[], Answer]
) -> None:
    calls: list[tuple[dict[str, Any], Callable[[Any], object]]] = [
        (INSPECTION, lambda lw: lw.submit(b"image", wait=1)),
        (BATCH, lambda lw: lw.submit_batch({"1.png": b"image"}, wait=1)),
    ]
    for made, call in calls:
        played = Played(httpx.Response(202, json=made), answer())
        with client(played) as lw, pytest.raises(LinewatchError, match=f"^{made['id']} was accepted") as caught:
            call(lw)
        assert ("scope read" in str(caught.value)) == isinstance(caught.value, Refused)


@pytest.mark.parametrize("key", ["ü", "lw_a b", "lw_a\n", "\udcff"])
def test_what_cannot_be_an_api_key_is_refused_and_not_shown(client: Callable[..., Any], key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        client(Played(httpx.Response(200, json=RECIPES)), api_key=key)
    assert key not in str(caught.value)


def test_who_waits_is_told_why_and_when_it_goes_on(client: Callable[..., Any], pauses: list[float]) -> None:
    told: list[tuple[str | None, int]] = []

    def tell(error: LinewatchError | None, seconds: float) -> None:
        told.append((getattr(error, "code", type(error).__name__) if error else None, round(seconds)))

    full = problem(503, "queue_full", retry_after="5")
    with client(Played(full, httpx.ReadError("reset"), full, httpx.Response(200, json=RECIPES)), on_wait=tell) as lw:
        lw.recipes()
        lw.recipes()  # answered at once
    assert told == [("queue_full", 5), ("Unreachable", 5), ("queue_full", 10), (None, 10)]


def test_an_upload_that_is_still_being_accepted_is_waited_for(client: Callable[..., Any], pauses: list[float]) -> None:
    in_flight = problem(409, "idempotency_in_flight", retry_after="2")
    played = Played(httpx.ReadTimeout("slow"), in_flight, in_flight, httpx.Response(202, json=INSPECTION))
    with client(played) as lw:
        assert lw.submit(b"image").recipe == "bottle"
    assert [pause >= 2 for pause in pauses] == [False, True, True]
    with client(Played(in_flight), patience=3) as lw, pytest.raises(Refused, match="idempotency_in_flight"):
        lw.submit(b"image")


def test_a_key_that_was_used_for_something_else_is_refused_at_once(
    client: Callable[..., Any], pauses: list[float]
) -> None:
    with client(Played(problem(422, "idempotency_mismatch"))) as lw, pytest.raises(Refused, match="mismatch"):
        lw.submit(b"image", idempotency_key="used")
    assert pauses == []


def test_waiting_out_a_long_queue_leaves_tries_for_a_broken_connection(
    client: Callable[..., Any], pauses: list[float]
) -> None:
    full = [problem(503, "queue_full")] * (RECONNECTS + 1)
    played = Played(*full, httpx.ReadError("reset"), httpx.Response(202, json=INSPECTION))
    with client(played) as lw:
        assert lw.submit(b"image").recipe == "bottle"


def test_an_answer_without_content_is_read_as_such(client: Callable[..., Any]) -> None:
    played = Played(httpx.Response(204))
    with client(played) as lw:
        assert lw.delete_endpoint("a/b") is None
        assert lw.forget_consumer("mes") is None
    assert [request.url.raw_path for request in played.requests] == [
        b"/v1/webhook-endpoints/a%2Fb",
        b"/v1/results/consumers/mes",
    ]


def test_what_was_deleted_before_the_connection_broke_is_deleted(
    client: Callable[..., Any], pauses: list[float]
) -> None:
    with client(Played(httpx.ReadError("reset"), problem(404, "not_found"))) as lw:
        lw.delete_endpoint("x")
    with client(Played(problem(404, "not_found"))) as lw, pytest.raises(Refused, match="not_found"):
        lw.delete_endpoint("x")


def test_only_what_is_named_of_an_endpoint_is_changed(client: Callable[..., Any]) -> None:
    played = Played(httpx.Response(200, json=ENDPOINT))
    with client(played) as lw:
        lw.change_endpoint("x", recipes=None, state="enabled")
    assert played.requests[0].method == "PATCH"
    assert json.loads(played.bodies[0]) == {"recipes": None, "state": "enabled"}


def test_the_outcome_of_a_test_is_waited_for(client: Callable[..., Any], pauses: list[float]) -> None:
    tried = {"at": "2026-01-01T00:00:00Z", "outcome": "failed", "status": 500, "duration_ms": 3.0, "answer": "no"}
    once_tried = {**DELIVERY, "tries": 1, "attempts": [tried]}
    answers = [httpx.Response(202, json=DELIVERY), *(httpx.Response(200, json=one) for one in (DELIVERY, once_tried))]
    with client(Played(*answers)) as lw:
        sent = lw.test_endpoint("x", wait=10)
    assert [one.outcome for one in sent.attempts] == ["failed"]
    assert len(pauses) == 2
    with client(Played(httpx.Response(202, json=DELIVERY))) as lw:
        assert lw.test_endpoint("x").attempts == []


def test_an_open_batch_says_who_is_to_be_told(client: Callable[..., Any]) -> None:
    played = Played(httpx.Response(202, json=BATCH))
    with client(played) as lw:
        lw.open_batch()
        lw.open_batch(callback_url="https://mes.test/hook")
    assert played.bodies[0] == b""
    assert b'name="callback_url"\r\n\r\nhttps://mes.test/hook' in played.bodies[1]


def test_both_faces_have_every_operation_with_its_signature_and_its_text() -> None:
    operations = {name for name, one in vars_of(Operations) if inspect.isfunction(one)}
    assert operations == {name for name, one in vars_of(Client) if inspect.isfunction(one)}
    for name in operations:
        of_both = [inspect.signature(getattr(face, name)) for face in (Client, AsyncClient)]
        assert of_both[0].parameters == of_both[1].parameters, name
        assert inspect.getdoc(getattr(Client, name)), name
        assert inspect.getdoc(getattr(Client, name)) == inspect.getdoc(getattr(AsyncClient, name)), name


def test_types_are_those_of_the_operations() -> None:
    """For mypy; at run time `assert_type` does nothing."""

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=INSPECTION if request.method == "POST" else {"items": [], "next_cursor": None})

    with Client("http://system.test", transport=httpx.MockTransport(answer)) as lw:
        assert_type(lw.submit(b"image", recipe="bottle", wait=0), Inspection)
        for one in lw.inspections(recipe="bottle", verdict="ng"):
            assert_type(one, Inspection)

    async def awaited() -> None:
        async with AsyncClient("http://system.test", transport=httpx.MockTransport(answer)) as lw:
            assert_type(await lw.submit(b"image", recipe="bottle"), Inspection)
            async for one in lw.inspections(recipe="bottle"):
                assert_type(one, Inspection)

    asyncio.run(awaited())


def vars_of(kind: type) -> list[tuple[str, object]]:
    return [(name, one) for name, one in inspect.getmembers(kind) if not name.startswith("_")]


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
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
