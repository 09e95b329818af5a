"""The client, both faces: what it tries again and what not, and what it makes of answers. Only failures are played."""

import io
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import Client, LinewatchError, Refused, Unreachable
from linewatch.errors import BadAddress
from linewatch.transport import RECONNECTS
from tests.played import BATCH, FACES, INSPECTION, Handler, Played, problem

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

    monkeypatch.setattr("linewatch.wires.time.sleep", made.append)
    monkeypatch.setattr("linewatch.wires.asyncio.sleep", sleep)
    monkeypatch.setattr("linewatch.transport.time.monotonic", lambda: now + sum(made))
    return made


@pytest.mark.parametrize("status", [429, 503])
def test_an_upload_that_was_not_accepted_is_sent_again_whole_after_retry_after(
    client: Callable[..., Any], pauses: list[float], tmp_path: Path, status: int
) -> None:
    picture = tmp_path / "part.png"
    picture.write_bytes(b"a picture" * 1000)
    played = Played(problem(status, "queue_full", **{"Retry-After": "7"}), httpx.Response(202, json=INSPECTION))
    with client(played) as lw:
        assert lw.submit(picture, recipe="bottle", metadata={"shift": 1}).recipe == "bottle"
    assert [pause >= 7 for pause in pauses] == [True]
    first, second = (body.replace(b"\r\n", b"\n").split(b"\n", 1)[1] for body in played.bodies)
    assert len(first) == len(second)
    for body in played.bodies:
        assert b"a picture" * 1000 in body
        assert b'filename="part.png"' in body
        assert b'{"shift": 1}' in body


def test_patience_ends_with_the_refusal(client: Callable[..., Any], pauses: list[float]) -> None:
    played = Played(problem(503, "queue_full", **{"Retry-After": "5"}))
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
        problem(503, "timeout", **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}),
        problem(503, "timeout", **{"Retry-After": "soon"}),
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
        lw.submit(b"picture")
    assert pauses == []


def test_an_answer_that_is_not_linewatchs_is_said_to_be_so(client: Callable[..., Any]) -> None:
    with client(Played(httpx.Response(418, text="teapot"))) as lw, pytest.raises(Refused, match="is it one") as caught:
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


def test_a_burst_says_how_many_pictures_were_sent(client: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "ä.png").write_bytes(b"first")
    told: list[int] = []
    played = Played(httpx.Response(202, json=BATCH))
    pictures = {"a/b.png": tmp_path / "ä.png", "c.png": b"second", "d.png": io.BytesIO(b"third")}
    with client(played) as lw:
        lw.submit_batch(pictures, items={"c.png": {"part_id": "P"}}, recipe="bottle", progress=told.append)
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
    assert played.requests[0].url.raw_path == b"/v1/recipes/..%2Fx%2Fy%3Fz/model-versions/1/activate"


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("linewatch", ["httpx", "pydantic", "core"]),
        (
            "linewatch.client",
            ["core", "torch", "sqlalchemy", "fastapi", "celery", "linewatch.cli", "linewatch.embedded"],
        ),
        ("linewatch.cli", ["core", "torch", "sqlalchemy", "httpx", "alembic", "numpy"]),
    ],
)
def test_importing_is_cheap(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print(*sorted(set({absent!r}) & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
