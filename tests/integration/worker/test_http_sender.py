"""One webhook request: its target, its time limit, and how the response is classified."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine

from core.delivery import allowed_targets
from core.settings import Settings
from tests.fixtures.waiting import eventually
from tests.fixtures.webhook_receivers import DEADLINE_SECONDS, Reply, private_authority, running_receiver
from tests.fixtures.webhook_sending import Inspect, deliveries_of, only_delivery, register, sending
from worker.delivery import http_sender


def test_a_huge_response_is_not_read_to_its_end(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 64 * 1024
            yield b"x" * (64 * 1024)

    with (
        running_receiver(lambda *_: Reply(200, {"Content-Encoding": "gzip"}, endless)) as (_, url),
        sending(settings, url),
    ):
        endpoint_id = register(engine, url)
        inspect()
        eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
        assert only_delivery(engine, endpoint_id).attempts[0].answer == "x" * 500
    assert sent < 32 * 1024 * 1024  # filled by socket buffers


@pytest.mark.parametrize("hangs", [False, True])
def test_the_next_address_of_a_name_is_tried(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(http_sender, "TRY_SECONDS", 2.0)
    monkeypatch.setattr(allowed_targets, "addresses_of", lambda *_: ["127.0.0.2", "127.0.0.1"])
    with running_receiver() as (receiver, url), ExitStack() as stack:
        port = urlsplit(url).port
        if hangs:  # a full backlog
            stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
            for _ in range(2):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.2", port))
        endpoint_id = register(engine, f"http://localhost:{port}/hook")
        with sending(settings, webhook_allow=f"localhost:{port}, 127.0.0.2:{port}"):
            inspect(5)
            eventually(lambda: {delivery.state for delivery in deliveries_of(engine, endpoint_id)}, {"delivered"})
    assert {delivery.tries for delivery in deliveries_of(engine, endpoint_id)} == {1}
    assert {request.headers["host"] for request in receiver.requests} == {f"localhost:{port}"}


def test_tls_with_a_private_certificate_authority(
    engine: Engine, settings: Settings, inspect: Inspect, tmp_path: Path
) -> None:
    ca_file, tls = private_authority(tmp_path, "localhost")
    with running_receiver(tls=tls) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: only_delivery(engine, endpoint_id).tries > 0, True)
        assert {attempt.outcome for attempt in only_delivery(engine, endpoint_id).attempts} == {"tls_failed"}
        assert receiver.requests == []
        with sending(settings, url, webhook_ca_file=ca_file):
            [request] = receiver.wait()
            eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
    assert request.headers["host"] == urlsplit(url).netloc
    request.verified()


def test_a_certificate_for_another_name_is_not_trusted(
    engine: Engine, settings: Settings, inspect: Inspect, tmp_path: Path
) -> None:
    ca_file, tls = private_authority(tmp_path, "mes.example")
    with running_receiver(tls=tls) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_ca_file=ca_file):
            inspect()
            eventually(lambda: only_delivery(engine, endpoint_id).tries > 0, True)
        assert {attempt.outcome for attempt in only_delivery(engine, endpoint_id).attempts} == {"tls_failed"}
        assert receiver.requests == []


def test_targets_are_checked_again_at_each_call(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver() as (receiver, url), running_receiver() as (_, other):
        endpoint_id = register(engine, url)
        with sending(settings, other):
            inspect()
            eventually(lambda: only_delivery(engine, endpoint_id).tries > 0, True)
        assert only_delivery(engine, endpoint_id).attempts[0].outcome == "target_refused"
        assert receiver.requests == []
        with sending(settings, url):
            receiver.wait()


def test_an_unreachable_receiver(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver() as (_, url):
        pass
    endpoint_id = register(engine, url)
    with sending(settings, url):
        inspect()
        eventually(lambda: only_delivery(engine, endpoint_id).tries > 0, True)
    assert only_delivery(engine, endpoint_id).attempts[0].outcome == "unreachable"


def test_an_attempt_has_a_time_limit(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing response is a failure; a status with an endless body counts."""
    monkeypatch.setattr(http_sender, "TRY_SECONDS", 0.5)
    over = threading.Event()

    def trickle() -> Iterator[bytes]:
        while not over.wait(0.05):
            yield b"."

    def answer(number: int, _: Any) -> Reply:
        if number == 0:
            over.wait(DEADLINE_SECONDS)
        return Reply(body=trickle)

    with running_receiver(answer) as (_, url), sending(settings, url):
        endpoint_id = register(engine, url)
        try:
            inspect()
            eventually(lambda: only_delivery(engine, endpoint_id).state, "delivered")
        finally:
            over.set()
    first, second = only_delivery(engine, endpoint_id).attempts
    assert (first.outcome, first.status) == ("timed_out", None)
    assert (second.outcome, second.answer[:2]) == ("delivered", "..")
    assert first.duration_ms >= 500
    assert second.duration_ms >= 500


def test_a_response_that_is_not_http(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            for talk in (b"220 mail.example ESMTP\r\n\r\n", b""):
                connection, _ = server.accept()
                with connection:
                    request = b""
                    while not request.endswith(b"}}"):  # read all, because closing early would reset the connection
                        request += connection.recv(65536)
                    connection.sendall(talk)
            eventually(lambda: only_delivery(engine, endpoint_id).tries >= 2, True)
    assert [attempt.outcome for attempt in only_delivery(engine, endpoint_id).attempts[:2]] == [
        "bad_answer",
        "unreachable",
    ]


def test_cookies_of_receivers_are_not_kept(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with running_receiver(lambda *_: Reply(200, {"Set-Cookie": "a=b"})) as (receiver, url), sending(settings, url):
        register(engine, url)
        inspect(10)
        assert all("cookie" not in request.headers for request in receiver.wait(10))


def test_proxy_variables_of_the_environment_are_ignored(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_receiver() as (receiver, url), running_receiver() as (proxy, proxy_url):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy_url)
        with sending(settings, url):
            register(engine, url)
            inspect()
            receiver.wait()
        assert proxy.requests == []
