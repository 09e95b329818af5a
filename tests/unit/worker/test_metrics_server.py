"""A process serves its metrics on the port of its settings, as soon as that is free."""

import socket
import time
import urllib.error
import urllib.request

import pytest

from core.settings import Settings
from tests.fixtures.servers import free_port
from worker import metrics_server


def text_at(port: int) -> str:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "no metrics are served"
            time.sleep(0.05)


def test_metrics_are_served_at_the_port_of_the_settings() -> None:
    port = free_port()
    metrics_server.start(Settings(metrics_port=port))
    assert "linewatch_build_info{" in text_at(port)


def test_a_port_in_use_is_tried_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(metrics_server, "RETRY_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        metrics_server.start(Settings(metrics_port=port))
        time.sleep(0.3)
    assert "linewatch_build_info{" in text_at(port)
    assert caplog.text.count(f"cannot serve metrics on 127.0.0.1 port {port}") == 1


@pytest.mark.parametrize("port", [None, 0])
def test_no_port_serves_nothing(port: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "serve", lambda *_: pytest.fail("it serves"))
    metrics_server.start(Settings(metrics_port=port))
    time.sleep(0.1)
