"""Downloads: what they hold is given back, whatever their clients do."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import services
from api.responses.downloads import Download, Downloads
from core.errors import Code, Refused


def test_whoever_has_a_thread_finds_a_connection() -> None:
    threads = services.WORK_THREADS + services.ROUTE_THREADS + services.KEY_THREADS + services.EXPORT_THREADS
    publisher = 1
    assert threads + publisher <= services.POOL_SIZE


def test_a_place_is_given_back() -> None:
    downloads = Downloads(max_downloads=1, threads=1)
    for _ in range(2):
        with downloads.slot(), pytest.raises(Refused) as caught, downloads.slot():
            pass
        assert caught.value.code == Code.BUSY
    with pytest.raises(ConnectionError), downloads.slot():
        raise ConnectionError
    with downloads.slot():
        pass


def test_a_client_that_takes_nothing_loses_its_download(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert [one.get("more_body") for one in sent] == [None, True, True]  # it has no end
    [record] = caplog.records
    assert record.getMessage() == "aborted a download: the client read nothing for 0.05 seconds"
