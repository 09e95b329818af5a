"""`GET /v1/results/stream`: results as server-sent events. None is missed, and none comes twice."""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psutil
import pytest
from sqlalchemy import Engine

from api.services import STREAMS
from core.feed import feed
from core.inspection import reviews
from core.queue import finishing
from core.settings import Settings
from tests.fixtures.api_process import Api, api_process
from tests.fixtures.event_streams import STREAM, Received, results, stream
from tests.fixtures.queued_work import claim, make_recipe, make_version, passed, submit

SECONDS = 60.0


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    with api_process(settings, output=Path(os.devnull)) as running:
        yield running


@pytest.fixture
def http(api: Api) -> httpx.Client:
    return api.http


@pytest.fixture
def finish(engine: Engine, recipe_id: int) -> Callable[..., list[UUID]]:
    """`finish(number, **fields)` completes inspections of the recipe `ring` in one transaction; returns their ids."""

    def finish_some(number: int = 1, *, pause: float = 0, **fields: Any) -> list[UUID]:
        with engine.begin() as connection:
            ids = submit(connection, number, **fields)
        with engine.begin() as connection:
            finishing.finish(connection, [passed(each) for each in claim(connection, recipe_id, ids)])
            time.sleep(pause)
        return ids

    return finish_some


def ids_of(received: Iterator[Received], number: int) -> list[UUID]:
    return [UUID(each.data["id"]) for each in islice(results(received), number)]


def test_each_new_result_is_an_item_of_the_feed(http: httpx.Client, finish: Callable[..., list[UUID]]) -> None:
    finish(2)
    with stream(http) as received:
        start = next(received)
        assert (start.name, start.data) == (None, None)
        finished = finish(3, line_id="line-1")
        events = list(islice(results(received), 3))
    assert {UUID(event.data["id"]) for event in events} == set(finished)
    items = http.get("/v1/results", params={"after": start.id or ""}).json()["items"]
    assert [event.data for event in events] == items
    assert [(event.name, event.id) for event in events] == [("inspection", item["cursor"]) for item in items]


def test_a_client_continues_behind_its_last_event(http: httpx.Client, finish: Callable[..., list[UUID]]) -> None:
    with stream(http) as received:
        start = next(received).id
    missed = finish(3)
    with stream(http, last_event_id=start, after="now") as received:
        first, second = islice(results(received), 2)
    with stream(http, last_event_id=second.id) as received:
        [third] = islice(results(received), 1)
    assert {UUID(event.data["id"]) for event in (first, second, third)} == set(missed)
    with stream(http, after="oldest") as received:
        assert ids_of(received, 3) == [UUID(event.data["id"]) for event in (first, second, third)]


def test_nothing_is_missed_whatever_commits_late_and_however_often_the_client_reconnects(
    http: httpx.Client, finish: Callable[..., list[UUID]]
) -> None:
    draw = random.Random(0)
    with stream(http) as received:
        last = next(received).id
    with ThreadPoolExecutor(4) as pool:
        pauses = [draw.choice([0, 0, 0.05, 0.2]) for _ in range(40)]
        writers = [pool.submit(finish, 3, pause=pause) for pause in pauses]
        got: list[UUID] = []
        while len(got) < 120:
            with stream(http, last_event_id=last) as received:
                for event in islice(results(received), min(draw.randint(1, 40), 120 - len(got))):
                    got.append(UUID(event.data["id"]))
                    last = event.id
        finished = [inspection_id for writer in writers for inspection_id in writer.result()]
    assert len(got) == len(set(got))
    assert set(got) == set(finished)


def test_only_what_was_asked_for_is_sent(http: httpx.Client, engine: Engine, finish: Callable[..., list[UUID]]) -> None:
    with engine.begin() as connection:
        make_recipe(connection, "other")
        make_version(connection, "other")
    with (
        stream(http, line_id="line-1", station_id="a") as placed,
        stream(http, recipe="other") as other,
        stream(http, recipe="ring", include="reviews") as reviewed,
    ):
        starts = [next(each).id for each in (placed, other, reviewed)]
        [first] = finish(line_id="line-1", station_id="b")
        [second] = finish(line_id="line-1", station_id="a")
        with engine.begin() as connection:
            reviews.add(connection, first, verdict="ng", reviewer="Jo", reason="dust", actor="test")
        events = list(islice(results(reviewed), 3))
        assert [UUID(event.data["id"]) for event in events] == [first, second, first]
        assert [event.data["feed_event"] for event in events] == ["final", "final", "reviewed"]
        assert ids_of(placed, 1) == [second]
    with stream(http, last_event_id=starts[1], recipe="other") as other:
        continued = next(other)
        assert (continued.data, continued.id) == (None, events[-1].id)


def test_a_stream_that_cannot_start_is_refused(http: httpx.Client, recipe_id: int) -> None:
    for params, status, code in (
        ({"after": "x"}, 422, "invalid_cursor"),
        ({"after": str(feed.Cursor(1, 1, 1))}, 410, "cursor_epoch"),
        ({"recipe": "unknown"}, 404, "recipe_unknown"),
        ({"limit": "3"}, 422, "invalid_field"),
    ):
        answer = http.get(STREAM, params=params)
        assert (answer.status_code, answer.json()["code"]) == (status, code), params


def test_streams_end_when_the_api_stops(api: Api, finish: Callable[..., list[UUID]]) -> None:
    with stream(api.http) as received:
        next(received)
        finish()
        assert len(ids_of(received, 1)) == 1
        api.process.terminate()
        assert list(results(received)) == []  # and no error: the response is complete
    api.process.join(10)
    assert api.process.exitcode == 0


def test_clients_that_do_not_read_delay_nobody_and_hold_little_memory(
    api: Api, finish: Callable[..., list[UUID]]
) -> None:
    request = f"GET {STREAM} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    connections = []
    for _ in range(20):
        connections.append(connection := socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", api.http.base_url.port or 80))
        connection.sendall(request)
    process = psutil.Process(api.process.pid)
    try:
        with stream(api.http) as received:
            next(received)
            before = process.memory_info().rss
            finished = [
                inspection_id for _ in range(10) for inspection_id in finish(32, metadata={"note": "x" * 15_000})
            ]
            assert set(ids_of(received, len(finished))) == set(finished)
        page = 100 * 16_000
        assert process.memory_info().rss - before < 2 * len(connections) * page
    finally:
        for connection in connections:
            connection.close()


def test_the_number_of_streams_is_limited_and_a_client_that_leaves_makes_room(http: httpx.Client) -> None:
    address = ("127.0.0.1", http.base_url.port or 80)
    request = f"GET {STREAM} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    connections = [socket.create_connection(address, timeout=SECONDS) for _ in range(STREAMS)]
    try:
        for connection in connections:
            connection.sendall(request)
        for connection in connections:
            assert b" 200 " in connection.recv(65536).splitlines()[0]
        refused = http.get(STREAM)
        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        assert "Retry-After" in refused.headers
        connections.pop().close()
        give_up = time.monotonic() + SECONDS
        while True:
            with http.stream("GET", STREAM) as response:
                if response.status_code == 200:
                    break
            assert time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        for connection in connections:
            connection.close()
