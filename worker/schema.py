"""Wait for the migration: during an upgrade, a new process may start before the database is migrated."""

import logging
import threading

from core.database import UNUSABLE, create_pool
from core.settings import Settings
from migrations.revisions import read_schema

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0


def wait_until_migrated(settings: Settings, stopping: threading.Event | None = None) -> None:
    """Wait until the schema has what this code needs, or until `stopping` is set. One log line says so."""
    stopping = stopping or threading.Event()
    engine = create_pool(settings, size=1, name="schema")
    reported = None
    try:
        while not stopping.is_set():
            try:
                with engine.connect() as connection:
                    schema = read_schema(connection)
                if not schema.is_older:
                    return
                reason = schema.why_waiting
            except UNUSABLE as error:
                reason = f"The database cannot be used: {error}"
            if reason != reported:
                log.warning("waiting to start: %s", reason)
                reported = reason
            stopping.wait(POLL_SECONDS)
    finally:
        engine.dispose()
