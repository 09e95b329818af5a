"""The load generator against a real server that stalls, because that is where a benchmark of latency lies."""

import http.server
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.speed.images import Kind, make_scenes
from benchmarks.speed.load import Load, Target, send

SMALL = Kind("small", "PNG", 16, 16)
STALL_SECONDS = 0.6


class Server(http.server.ThreadingHTTPServer):
    """Answers each upload; the first one after a stall, during which no other is answered."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[bytes] = []
        self.turn = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 1.0  # idle connections are closed
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.turn:
            if not self.server.bodies:
                time.sleep(STALL_SECONDS)
            self.server.bodies.append(body)
        self.send_response(202)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_a_stall_delays_no_due_time_so_that_every_image_behind_it_counts_as_late(server: Server) -> None:
    interval = 0.01
    sent = send(Load(Target(server.server_address[1], "/"), SMALL, 20, interval=interval, connections=1))
    assert [due - sent.due[0] for due in sent.due] == pytest.approx([number * interval for number in range(20)])
    assert all(answered - due > STALL_SECONDS - 0.25 for due, answered in zip(sent.due, sent.answered, strict=True))


def test_a_connection_that_the_server_closed_while_it_was_idle_is_opened_anew(server: Server) -> None:
    sent = send(Load(Target(server.server_address[1], "/"), SMALL, 3, interval=1.2, connections=1))
    assert len(server.bodies) == 3
    assert len(sent.answers) == 3


def test_the_images_of_a_burst_are_all_due_at_once(server: Server) -> None:
    sent = send(Load(Target(server.server_address[1], "/"), SMALL, 20, interval=0.0, connections=4))
    assert len(set(sent.due)) == 1


def test_without_an_interval_an_image_is_due_when_its_connection_is_free(server: Server) -> None:
    sent = send(Load(Target(server.server_address[1], "/"), SMALL, 5, connections=1))
    assert all(due >= answered for due, answered in zip(sent.due[1:], sent.answered, strict=False))


def test_all_images_are_distinct_and_begin_with_a_scene(server: Server) -> None:
    scenes = make_scenes(SMALL)
    for first in (0, 1_000_000):
        send(Load(Target(server.server_address[1], "/"), SMALL, 20, first=first, connections=3))
    assert len(set(server.bodies)) == 40
    assert all(body[:-8] in scenes for body in server.bodies)


def test_a_form_holds_the_image(server: Server) -> None:
    send(Load(Target(server.server_address[1], "/", form_field="file"), SMALL, 1, connections=1))
    [body] = server.bodies
    assert b'name="file"' in body
    assert make_scenes(SMALL)[0] in body
