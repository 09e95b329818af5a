"""Receivers of webhooks: real HTTP servers on a loopback address that note what comes and answer as they are told."""

import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - the specification's own example
DEADLINE_SECONDS = 20


@dataclass(frozen=True)
class Request:
    """What came: its headers by lower-case name, its body, and when, on a clock that only goes forward."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verified(self, secret: str = SECRET) -> Any:
        """The JSON of the body, if the signature is right; else it raises."""
        return Webhook(secret).verify(self.body, dict(self.headers))


@dataclass(frozen=True)
class Reply:
    """An answer; `body` may come in pieces, and as slowly as it likes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[[], Iterator[bytes]] = lambda: iter(())


class Hanging:
    """An answer that does not come before its block ends, it is let go, or so many seconds are over."""

    def __init__(self, seconds: float = DEADLINE_SECONDS) -> None:
        self._seconds = seconds
        self._over = threading.Event()

    def __call__(self, _: int, __: Request) -> Reply:
        self._over.wait(self._seconds)
        return Reply()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        self._over.set()


class Receiver:
    """A running server. `answer` decides what the request of this number, from 0, is answered with."""

    def __init__(self, answer: Callable[[int, Request], Reply]) -> None:
        self.requests: list[Request] = []
        self.answer = answer
        self._changed = threading.Condition()

    def note(self, request: Request) -> int:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            return len(self.requests) - 1

    def wait(self, number: int = 1, seconds: float = DEADLINE_SECONDS) -> list[Request]:
        """The requests, as soon as there are so many."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= number, seconds):
                raise AssertionError(f"{len(self.requests)} of {number} requests came within {seconds} seconds")
            return list(self.requests)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, body, time.monotonic())
        reply = self.receiver.answer(self.receiver.note(request), request)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in reply.body():
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:  # the sender has read enough
            self.close_connection = True

    do_GET = do_POST  # noqa: N815 - http.server's way of naming

    def log_message(self, *_: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """A sender that goes away is no failure of a receiver's."""


@contextmanager
def receiving(
    answer: Callable[[int, Request], Reply] = lambda _, __: Reply(), *, tls: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[tuple[Receiver, str]]:
    """A receiver and its URL; it takes a free port where none is named."""
    receiver = Receiver(answer)
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"receiver": receiver}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        host = "localhost" if tls else "127.0.0.1"
        yield receiver, f"http{'s' if tls else ''}://{host}:{server.server_port}/hook"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def private_authority(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """The certificate of an authority of one's own, and a server's context with one that it issued for a name."""
    (folder / "extensions").write_text(f"subjectAltName=DNS:{name}\n")
    key = ["-newkey", "rsa:2048", "-nodes"]
    issue = ["-days", "2", "-extfile", "extensions"]
    for command in (
        [
            "req",
            "-x509",
            *key,
            "-days",
            "2",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=An authority of one's own",
        ],
        ["req", *key, "-keyout", "own.key", "-out", "own.csr", "-subj", f"/CN={name}"],
        ["x509", "-req", "-in", "own.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "own.pem", *issue],
    ):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem", folder / "own.key")
    return folder / "ca.pem", context
