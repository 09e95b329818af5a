"""Readiness says when uploads are not committed, and when a check does not end."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.routes import health
from api.services import Services
from core.errors import Code, Refused


def readiness(**services: Any) -> Refused:
    """What an api that is serving a migrated database refuses the probe with."""
    serving = {"stopping": threading.Event(), "schema": SimpleNamespace(refusal=None)}
    with pytest.raises(Refused) as refused:
        asyncio.run(health.readyz(cast(Services, SimpleNamespace(**serving, **services))))
    return refused.value


def test_an_api_that_commits_no_uploads_is_not_ready() -> None:
    refused = readiness(group_commit=SimpleNamespace(is_running=False))
    assert (refused.code, "Restart the api" in refused.detail) == (Code.NOT_READY, True)


def test_an_api_whose_database_does_not_answer_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.1)
    answered = threading.Event()
    monkeypatch.setattr(health, "_check", lambda services: answered.wait())
    with ThreadPoolExecutor(1) as probing:
        try:
            refused = readiness(group_commit=SimpleNamespace(is_running=True), probing=probing)
        finally:
            answered.set()
    assert (refused.code, "has not answered" in refused.detail) == (Code.NOT_READY, True)
