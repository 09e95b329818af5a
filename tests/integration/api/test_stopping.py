"""When the api stops, waiting requests are answered with the current state."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import Api, api_process
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

WAIT = 30


@pytest.fixture
def api(engine: Engine, settings: Settings) -> Iterator[Api]:
    make_recipe_with_model(engine)
    with api_process(settings, output=Path(os.devnull)) as running:
        yield running


def _terminate_while(api: Api, path: str) -> httpx.Response:
    """Send a long poll, stop the process with SIGTERM, and return the answer."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(httpx.get, api.http.base_url.join(path), timeout=WAIT + 10)
        time.sleep(1)  # nothing shows when the request has started to wait
        assert not waiting.done()
        api.process.terminate()
        return waiting.result()


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


def test_the_process_ends_without_an_error(api: Api) -> None:
    _terminate_while(api, f"/v1/results?wait={WAIT}")
    api.process.join(10)
    assert api.process.exitcode in (0, -15)
