"""One call of a webhook: where it goes, how long it may take, and what is made of an answer."""

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
from tests.fixtures.webhook_receivers import DEADLINE_SECONDS, Reply, private_authority, receiving
from tests.fixtures.webhook_sending import Inspect, eventually, only, page, register, sending
from worker.delivery import http_sender


def test_a_huge_answer_is_not_read(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 64 * 1024
            yield b"x" * (64 * 1024)

    with receiving(lambda *_: Reply(200, {"Content-Encoding": "gzip"}, endless)) as (_, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect()
        eventually(lambda: only(engine, endpoint_id).state, "delivered")
        assert only(engine, endpoint_id).attempts[0].answer == "x" * 500
    assert sent < 32 * 1024 * 1024  # what the kernel's buffers took


@pytest.mark.parametrize("hangs", [False, True])
def test_a_name_is_reached_at_the_next_of_its_addresses(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(http_sender, "TRY_SECONDS", 2.0)
    monkeypatch.setattr(allowed_targets, "addresses_of", lambda *_: ["127.0.0.2", "127.0.0.1"])
    with receiving() as (receiver, url), ExitStack() as stack:
        port = urlsplit(url).port
        if hangs:  # a queue of connections that is full
            stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
            for _ in range(2):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.2", port))
        endpoint_id = register(engine, f"http://localhost:{port}/hook")
        with sending(settings, webhook_allow=f"localhost:{port}, 127.0.0.2:{port}"):
            inspect(5)
            eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered"})
    assert {one.tries for one in page(engine, endpoint_id)} == {1}
    assert {request.headers["host"] for request in receiver.requests} == {f"localhost:{port}"}


def test_tls_with_an_authority_of_ones_own(
    engine: Engine, settings: Settings, inspect: Inspect, tmp_path: Path
) -> None:
    ca_file, tls = private_authority(tmp_path, "localhost")
    with receiving(tls=tls) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries > 0, True)
        assert {one.outcome for one in only(engine, endpoint_id).attempts} == {"tls_failed"}
        assert receiver.requests == []
        with sending(settings, url, webhook_ca_file=ca_file):
            [request] = receiver.wait()
            eventually(lambda: only(engine, endpoint_id).state, "delivered")
    assert request.headers["host"] == urlsplit(url).netloc
    request.verified()


def test_a_certificate_for_another_name_is_not_trusted(
    engine: Engine, settings: Settings, inspect: Inspect, tmp_path: Path
) -> None:
    ca_file, tls = private_authority(tmp_path, "mes.example")
    with receiving(tls=tls) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_ca_file=ca_file):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries > 0, True)
        assert {one.outcome for one in only(engine, endpoint_id).attempts} == {"tls_failed"}
        assert receiver.requests == []


def test_targets_are_judged_again_when_they_are_called(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), receiving() as (_, other):
        endpoint_id = register(engine, url)
        with sending(settings, other):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries > 0, True)
        assert only(engine, endpoint_id).attempts[0].outcome == "target_refused"
        assert receiver.requests == []
        with sending(settings, url):
            receiver.wait()


def test_nobody_listens(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (_, url):
        pass
    endpoint_id = register(engine, url)
    with sending(settings, url):
        inspect()
        eventually(lambda: only(engine, endpoint_id).tries > 0, True)
    assert only(engine, endpoint_id).attempts[0].outcome == "unreachable"


def test_a_try_has_its_time(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer is a failure; a status whose body never ends is what it says."""
    monkeypatch.setattr(http_sender, "TRY_SECONDS", 0.5)
    over = threading.Event()

    def trickle() -> Iterator[bytes]:
        while not over.wait(0.05):
            yield b"."

    def answer(number: int, _: Any) -> Reply:
        if number == 0:
            over.wait(DEADLINE_SECONDS)
        return Reply(body=trickle)

    with receiving(answer) as (_, url), sending(settings, url):
        endpoint_id = register(engine, url)
        try:
            inspect()
            eventually(lambda: only(engine, endpoint_id).state, "delivered")
        finally:
            over.set()
    first, second = only(engine, endpoint_id).attempts
    assert (first.outcome, first.status) == ("timed_out", None)
    assert (second.outcome, second.answer[:2]) == ("delivered", "..")
    assert first.duration_ms >= 500
    assert second.duration_ms >= 500


def test_what_is_no_http(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            for talk in (b"220 mail.example ESMTP\r\n\r\n", b""):
                connection, _ = server.accept()
                with connection:
                    request = b""
                    while not request.endswith(b"}}"):  # all of it, or closing would reset the connection
                        request += connection.recv(65536)
                    connection.sendall(talk)
            eventually(lambda: only(engine, endpoint_id).tries >= 2, True)
    assert [one.outcome for one in only(engine, endpoint_id).attempts[:2]] == ["bad_answer", "unreachable"]


def test_a_receiver_leaves_no_cookies(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(200, {"Set-Cookie": "a=b"})) as (receiver, url), sending(settings, url):
        register(engine, url)
        inspect(10)
        assert all("cookie" not in request.headers for request in receiver.wait(10))


def test_proxies_of_the_environment_are_not_used(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as (receiver, url), receiving() as (proxy, proxy_url):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy_url)
        with sending(settings, url):
            register(engine, url)
            inspect()
            receiver.wait()
        assert proxy.requests == []
