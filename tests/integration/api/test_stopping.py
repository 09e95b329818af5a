"""When the api stops: it drains, finishes the requests in flight, and answers long polls with the current state."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from sqlalchemy import Engine

from api.waiting.feed_long_polling import FeedLongPolls
from core.models import recipes
from core.queue import finishing
from core.queue.finishing import Outcome
from core.settings import Settings
from tests.fixtures.api_process import Api, api_process
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png
from tests.fixtures.queued_work import claim

WAIT = 30


@pytest.fixture
def api(engine: Engine, settings: Settings) -> Iterator[Api]:
    make_recipe_with_model(engine)
    with api_process(settings, output=Path(os.devnull)) as running:
        yield running


def _terminate_while(api: Api, path: str) -> httpx.Response:
    """Send a long poll, stop the process with SIGTERM, and return the answer."""
    url = api.http.base_url.join(path)
    connection = HTTPConnection(url.host, url.port, timeout=WAIT + 10)
    with closing(connection):
        connection.request("GET", url.raw_path.decode())
        assert api.http.get("/healthz").is_success  # the process reads connections in turn, so it has the first request
        time.sleep(1)  # nothing shows when that has started to wait
        api.process.terminate()
        response = connection.getresponse()
        return httpx.Response(response.status, content=response.read())


def test_a_long_poll_gets_the_current_state(api: Api) -> None:
    submitted = api.http.post("/v1/inspections?recipe=ring", content=png(1), headers={"Content-Type": "image/png"})
    answer = _terminate_while(api, f"{submitted.headers['Location']}?wait={WAIT}")
    assert (answer.status_code, answer.json()["status"]) == (200, "queued")


def test_a_batch_gets_the_current_state(api: Api) -> None:
    files = [("images", ("a.png", png(1), "image/png"))]
    submitted = api.http.post("/v1/batches", files=files, data={"recipe": "ring"})
    answer = _terminate_while(api, f"{submitted.headers['Location']}?wait={WAIT}")
    assert (answer.status_code, answer.json()["status"]) == (200, "running")


def test_a_reader_of_the_feed_gets_an_empty_page(api: Api) -> None:
    answer = _terminate_while(api, f"/v1/results?wait={WAIT}")
    assert (answer.status_code, answer.json()["items"]) == (200, [])


def test_a_poll_of_the_feed_that_begins_while_the_process_ends_does_not_wait(engine: Engine) -> None:
    async def begin() -> bool:
        polls = FeedLongPolls(engine)
        polls.answer_all()
        async with polls.expecting(0, recipe_id=None, reviews=False) as more:
            return more.is_set()

    assert asyncio.run(begin())


def test_a_prediction_in_flight_gets_its_result(engine: Engine, settings: Settings) -> None:
    make_recipe_with_model(engine)
    output = Path(os.devnull)
    with api_process(settings, output=output, LINEWATCH_DEFAULT_RECIPE="ring") as api, ThreadPoolExecutor(1) as pool:
        files = {"file": ("a.png", png(1), "image/png")}
        predicting = pool.submit(httpx.post, api.http.base_url.join("/predict"), files=files, timeout=WAIT)
        while not (items := api.http.get("/v1/inspections").json()["items"]):
            time.sleep(0.05)
        api.process.terminate()
        time.sleep(0.5)
        assert not predicting.done()
        with engine.begin() as connection:
            [mine] = claim(connection, recipes.get(connection, "ring").id, [UUID(items[0]["id"])])
            finishing.finish(connection, [Outcome(mine.id, mine.attempt, "completed", anomaly_score=0.1, verdict="ok")])
        assert predicting.result().status_code == 200
        _expect_exit(api)


UPLOAD = "POST /v1/inspections?recipe=ring HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n"


def test_an_upload_in_flight_gets_its_202(api: Api) -> None:
    image = png(1)
    with socket.create_connection(("127.0.0.1", api.http.base_url.port or 80), timeout=WAIT) as connection:
        connection.sendall(UPLOAD.format(size=len(image)).encode() + image[:100])
        time.sleep(0.2)  # nothing shows when the api has read it
        api.process.terminate()
        time.sleep(0.5)
        connection.sendall(image[100:])
        assert connection.recv(65536).startswith(b"HTTP/1.1 202")
    _expect_exit(api)


def test_a_connection_whose_request_is_on_its_way_is_answered(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.http.base_url.port or 80), timeout=WAIT) as connection:
        api.http.get("/healthz")  # the connection before it is accepted now
        api.process.terminate()
        time.sleep(0.4)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    _expect_exit(api)


def test_a_silent_connection_does_not_hold_the_process_up(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", api.http.base_url.port or 80), timeout=WAIT) as connection:
        api.process.terminate()
        assert connection.recv(1) == b""
        _expect_exit(api)


def test_it_drains_before_it_stops(engine: Engine, settings: Settings) -> None:
    make_recipe_with_model(engine)
    with api_process(settings, output=Path(os.devnull), LINEWATCH_DRAIN_SECONDS="60") as api:
        assert api.http.get("/readyz").headers.get("Connection") is None
        api.process.terminate()
        deadline = time.monotonic() + 10
        while (ready := api.http.get("/readyz")).status_code == 200:
            assert time.monotonic() < deadline
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        assert ready.headers["Connection"] == "close"
        uploaded = api.http.post("/v1/inspections?recipe=ring", content=png(1))
        assert (uploaded.status_code, uploaded.headers["Connection"]) == (202, "close")
        api.process.terminate()  # the second signal ends the drain
        _expect_exit(api)
        with pytest.raises(httpx.ConnectError):
            api.http.get("/healthz")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_ends_without_an_error(api: Api, number: signal.Signals) -> None:
    os.kill(api.process.pid or 0, number)
    _expect_exit(api)


def _expect_exit(api: Api) -> None:
    api.process.join(10)
    assert api.process.exitcode == 0
