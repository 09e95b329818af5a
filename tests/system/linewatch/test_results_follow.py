"""`linewatch results --follow` and `results(follow=True)` during an api restart."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from core.settings import Settings
from linewatch import Client
from tests.fixtures.api_process import running_api
from tests.fixtures.http_inspections import submit
from tests.fixtures.part_images import png
from tests.fixtures.servers import free_port


def final_of(http: httpx.Client, seed: int) -> str:
    """Submit and cancel an inspection, which makes it final without a worker."""
    inspection_id: str = submit(http, "ring", png(seed))["id"]
    assert http.post(f"/v1/inspections/{inspection_id}/cancel").status_code == 200
    return inspection_id


@contextmanager
def following(url: str, cursor_file: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "linewatch.cli", "results", "--follow", "--json", "--url", url]
    command += ["--cursor-file", str(cursor_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_following_survives_an_api_restart(settings: Settings, tmp_path: Path) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    with following(url, tmp_path / "cursor") as command, Client(url) as lw, ThreadPoolExecutor(1) as pool:
        assert command.stdout is not None
        assert command.stderr is not None
        assert command.stderr.readline().startswith(f"Waiting: {url} cannot be reached")  # the api is not running yet
        items = lw.results(follow=True)
        with running_api(settings, LINEWATCH_PORT=port) as http:
            assert http.post("/v1/recipes", json={"name": "ring", "without_model": "wait"}).status_code == 201
            first = final_of(http, 1)
            assert str(next(items).id) == first
            assert json.loads(command.stdout.readline())["id"] == first
            assert command.stderr.readline().startswith("Back after ")
            waiting = pool.submit(next, items)
        assert command.stderr.readline().startswith("Waiting: ")
        assert not waiting.done()
        with running_api(settings, LINEWATCH_PORT=port) as http:
            second = final_of(http, 2)
            assert str(waiting.result(60).id) == second
            assert command.stderr.readline().startswith("Back after ")
            assert json.loads(command.stdout.readline())["id"] == second
            command.send_signal(signal.SIGINT)
            assert command.wait(30) == 130
            items.close()
            assert command.stderr.read() == "linewatch: interrupted\n"
