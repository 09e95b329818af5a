"""A month whose partition is in use stays until the next round, and nothing of it is deleted row by row."""

import datetime as dt
import logging

import pytest
from sqlalchemy import Engine, text

from core.models.retention_policies import RetentionPolicy
from core.retention import months, rounds, rows
from core.retention.removals import Scope
from core.settings import Settings
from core.storage.folder_store import FolderStore
from tests.fixtures.retained_plant import FEED_DAYS, TODAY, Part, Plant, build, expected, remaining

PLANT = Plant([RetentionPolicy(rows_days=10)], [Part(0, dt.date(2026, 12, 20), 1, "ok", reviews=("ok",))])


def test_a_month_that_a_long_query_reads_is_removed_in_a_later_round(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(months, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(months, "LOCK_TIMEOUT", "50ms")
    store, scope = FolderStore(settings.store_url), Scope(engine, TODAY, FEED_DAYS)
    build(engine, store, PLANT)
    before = remaining(engine, store, PLANT)
    with engine.begin() as reading:
        reading.execute(text("SELECT id FROM inspections")).all()
        for _ in (step for phase in (months.remove(scope), rows.remove(scope)) for step in phase):
            pass
    assert remaining(engine, store, PLANT) == before
    assert "could not remove inspections_2026_12 because a long query holds a lock" in caplog.text
    for _ in rounds.steps(scope, store):
        pass
    assert remaining(engine, store, PLANT) == expected(PLANT)
    with engine.begin() as connection:
        cleaned = connection.execute(text("SELECT month FROM removed_months WHERE cleaned_at IS NOT NULL")).scalars()
        assert "2026-12" in set(cleaned)
