"""When the client has each verdict of Linewatch: a thread follows the feed of results by long polls."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.speed.contender import VerdictTimes
from benchmarks.speed.load import Sent

_PAGE: Final = 1000
_WAIT_SECONDS: Final = 20
_LIMIT_SECONDS: Final = 300.0


@contextmanager
def follow(port: int) -> Iterator[VerdictTimes]:
    """Follow the feed while the block runs."""
    follower = _Follower(port)
    follower.start()
    try:
        yield follower.times
    finally:
        follower.end()


class _Follower(threading.Thread):
    def __init__(self, port: int) -> None:
        super().__init__(name="feed")
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WAIT_SECONDS + 10)
        self._cursor = self._page("now", wait=0)["next_cursor"]  # before the first image is sent
        self._read: dict[str, float] = {}
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                page = self._page(self._cursor, wait=1 if self._read else _WAIT_SECONDS)
                now = time.time()
                for item in page["items"]:
                    if item["verdict"] is None:
                        raise RuntimeError(f"an inspection ended without a verdict: {item}")
                with self._changed:
                    self._read.update((item["id"], now) for item in page["items"])
                    self._changed.notify_all()
                self._cursor = page["next_cursor"]
        except Exception as error:  # noqa: BLE001 - raised by the thread that waits for the verdicts
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def times(self, sent: Sent) -> list[float]:
        """Wait until all verdicts of a load have been read. See `VerdictTimes`."""
        ids = [json.loads(answer)["id"] for answer in sent.answers]
        with self._changed:
            complete = self._changed.wait_for(
                lambda: self._failure or all(each in self._read for each in reversed(ids)), _LIMIT_SECONDS
            )
            if self._failure:
                raise self._failure
            if not complete:
                raise TimeoutError(f"{len(set(ids) - set(self._read))} verdicts are missing")
            return [self._read[each] for each in ids]

    def end(self) -> None:
        self._ending.set()
        self.join()
        self._connection.close()

    def _page(self, after: str, wait: int) -> Any:
        self._connection.request("GET", f"/v1/results?after={after}&limit={_PAGE}&wait={wait}")
        response = self._connection.getresponse()
        body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"the feed answered {response.status}: {body[:500]!r}")
        return json.loads(body)
