"""Downloads release their resources regardless of the client."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import services
from api.responses.downloads import Download, Downloads
from core.errors import Code, Refused


def test_there_is_a_connection_for_every_thread() -> None:
    threads = services.WORK_THREADS + services.ROUTE_THREADS + services.KEY_THREADS + services.EXPORT_THREADS
    publisher = 1
    assert threads + publisher <= services.POOL_SIZE


def test_a_slot_is_released() -> None:
    downloads = Downloads(max_downloads=1, threads=1)
    for _ in range(2):
        with downloads.slot(), pytest.raises(Refused) as caught, downloads.slot():
            pass
        assert caught.value.code == Code.BUSY
    with pytest.raises(ConnectionError), downloads.slot():
        raise ConnectionError
    with downloads.slot():
        pass


def test_a_stalled_download_is_aborted(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Download, "stalled_seconds", 0.05)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 3:
            await asyncio.Event().wait()

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x"

    with caplog.at_level(logging.WARNING):
        asyncio.run(Download(chunks())({"type": "http"}, receive, send))
    assert [message.get("more_body") for message in sent] == [None, True, True]  # the body was not completed
    [record] = caplog.records
    assert record.getMessage() == "aborted a download: the client read nothing for 0.05 seconds"
