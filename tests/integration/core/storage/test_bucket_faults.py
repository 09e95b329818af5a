"""A bucket that is unavailable, slow, full or closed to us: calls fail in time, and work again afterwards."""

import errno
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from uuid import uuid4

import httpx
import pytest

from core.storage import bucket_store
from core.storage.bucket_store import BucketStore
from core.storage.image_store import Store, StoreUnavailable
from tests.fixtures.s3_server import S3Server, running_s3_server


def opened(s3: S3Server, scratch: Path) -> BucketStore:
    return BucketStore(f"s3://{s3.bucket}/test-{uuid4().hex}", scratch)


def uses(store: Store) -> list[Callable[[], object]]:
    return [
        store.check,
        lambda: store.put("a/b", b"x"),
        lambda: store.read("a/b"),
        lambda: store.holds("a/b"),
        lambda: list(store.files()),
        lambda: store.delete(["a/b"]),
        lambda: store.local_file("a/b").__enter__(),
    ]


def require_unavailable(store: Store, match: str) -> None:
    for use in uses(store):
        with pytest.raises(StoreUnavailable, match=match):
            use()
    assert list((store.scratch / "tmp").iterdir()) == []


def test_wrong_credentials_make_the_store_unavailable(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    require_unavailable(opened(s3, tmp_path), "403 Forbidden")


def test_a_killed_server_makes_the_store_unavailable_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_store, "RETRY_SECONDS", 1)
    monkeypatch.setattr(bucket_store, "PAUSE_SECONDS", 0.0)
    with (
        tempfile.TemporaryDirectory(prefix="lw-s3-", ignore_cleanup_errors=True) as folder,
        running_s3_server(Path(folder)) as server,
    ):
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        store = opened(server, tmp_path)
        store.put("2026/01/02/x", b"before")
        server.kill()
        with pytest.raises(StoreUnavailable):
            store.read("2026/01/02/x")
        whole = store.stage_whole(b"during")
        with pytest.raises(StoreUnavailable):
            store.write_out(whole, "2026/01/02/y")
        server.start()
        assert store.read("2026/01/02/x") == b"before"
        store.write_out(whole, "2026/01/02/y")
        store.move(whole, "2026/01/02/y")
        assert store.read("2026/01/02/y") == b"during"


class _Answers(BaseHTTPRequestHandler):
    """Answers requests by `reply`, which returns a pause in seconds, a status and a body."""

    reply: Callable[[], tuple[float, int, str]]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        pause, status, body = type(self).reply()
        time.sleep(pause)
        try:
            self.send_response(status)
            self.send_header("ETag", "etag")
            self.send_header("Content-Length", f"{len(body)}")
            self.end_headers()
            self.wfile.write(body.encode())
        except OSError:  # the client has given up
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def answering(
    monkeypatch: pytest.MonkeyPatch, scratch: Path, reply: Callable[[], tuple[float, int, str]]
) -> Iterator[BucketStore]:
    """A store whose server answers by `reply`."""
    monkeypatch.setattr(bucket_store, "TIMEOUT_SECONDS", 0.5)
    monkeypatch.setattr(bucket_store, "RETRY_SECONDS", 2)
    handler = type("Answers", (_Answers,), {"reply": staticmethod(reply)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            yield BucketStore("s3://slow/x", scratch)
        finally:
            server.shutdown()
            thread.join()


def test_a_slow_answer_is_retried_and_a_slow_server_given_up(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = [1.0]
    with answering(monkeypatch, tmp_path, lambda: (pauses.pop() if pauses else 0.0, 200, "")) as store:
        store.put("a/b", b"x")
        assert pauses == []
    with answering(monkeypatch, tmp_path, lambda: (1.0, 200, "")) as store, pytest.raises(StoreUnavailable):
        store.put("a/b", b"x")


@pytest.mark.parametrize(
    ("status", "code", "number"),
    [
        (507, "XMinioStorageFull", errno.ENOSPC),
        (400, "XMinioAdminBucketQuotaExceeded", errno.ENOSPC),
        (403, "QuotaExceeded", errno.ENOSPC),
        (403, "AccessDenied", errno.EIO),
        (404, "NoSuchBucket", errno.EIO),
        (500, "InternalError", errno.EIO),
    ],
)
def test_a_full_bucket_is_told_from_a_broken_one(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, code: str, number: int
) -> None:
    body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>"
    with answering(monkeypatch, tmp_path, lambda: (0.0, status, body)) as store:
        with pytest.raises(StoreUnavailable) as caught:
            store.put("a/b", b"x")
        assert caught.value.errno == number
        if code == "NoSuchBucket":
            with pytest.raises(StoreUnavailable):
                store.read("a/b")


def test_after_a_failure_further_writes_fail_at_once(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[None] = []

    def reply() -> tuple[float, int, str]:
        requests.append(None)
        return 0.0, 403, ""

    monkeypatch.setattr(bucket_store, "PAUSE_SECONDS", 60.0)
    with answering(monkeypatch, tmp_path, reply) as store:
        for number in range(3):
            with pytest.raises(StoreUnavailable, match="403"):
                store.write_out(store.stage_whole(b"x"), f"a/{number}")
        assert len(requests) == 1


def test_a_link_gives_anyone_the_file_for_a_while(s3: S3Server, tmp_path: Path) -> None:
    store = opened(s3, tmp_path)
    store.put("2026/01/02/x", b"image")
    link = store.link("2026/01/02/x", seconds=60)
    assert link is not None
    assert httpx.get(link).content == b"image"
    assert httpx.get(link.partition("?")[0]).status_code == 403
    assert httpx.get(link.replace("X-Amz-Expires=60", "X-Amz-Expires=600")).status_code == 403


def test_a_server_without_room_refuses_and_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_store, "RETRY_SECONDS", 0.2)
    with (
        tempfile.TemporaryDirectory(prefix="lw-s3-", ignore_cleanup_errors=True) as folder,
        running_s3_server(Path(folder), "-master.volumeSizeLimitMB=1", "-volume.max=2") as server,
    ):
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        store = opened(server, tmp_path)
        written: list[bytes] = []

        def fill() -> None:
            for number in range(200):
                store.put(f"2026/01/02/{number}", bytes([number]) * 500_000)
                written.append(bytes([number]) * 500_000)

        with pytest.raises(StoreUnavailable):
            fill()
        assert written
        for number, content in enumerate(written):
            assert store.read(f"2026/01/02/{number}") == content
