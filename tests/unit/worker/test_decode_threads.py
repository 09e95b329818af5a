"""Decode threads can be replaced while other threads use them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from worker.pipeline.decode_threads import DecodeThreads


def test_a_call_can_be_submitted_while_the_threads_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_down = threading.Event()
    original = ThreadPoolExecutor.shutdown

    def shutdown(self: ThreadPoolExecutor, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        shut_down.set()
        time.sleep(0.3)  # the old threads are shut down, and the new ones are not there yet

    threads = DecodeThreads(1, "test")
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", shutdown)
    replacing = threading.Thread(target=threads.replace)
    replacing.start()
    assert shut_down.wait(10)
    future = threads.submit(lambda: "done")
    replacing.join()
    assert future.result(10) == "done"
    threads.shutdown()


def test_replaced_threads_finish_what_was_submitted_to_them() -> None:
    threads = DecodeThreads(1, "test")
    begun, may_end = threading.Event(), threading.Event()

    def wait() -> str:
        begun.set()
        may_end.wait(10)
        return "slow"

    slow, queued = threads.submit(wait), threads.submit(lambda: "queued")
    assert begun.wait(10)
    threads.replace()
    assert threads.submit(lambda: "fast").result(10) == "fast"
    may_end.set()
    assert (slow.result(10), queued.result(10)) == ("slow", "queued")
    threads.shutdown()
