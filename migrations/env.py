"""The Alembic environment: only one migration runs at a time, and none waits long for the lock of a table."""

import time

from alembic import context
from sqlalchemy import Connection, text

import core.access.tables
import core.delivery.tables
import core.drift.tables
import core.feed.tables
import core.rescoring.tables
import core.retention.tables
import core.statistics.tables
import core.system.tables
import core.training_runs.tables  # noqa: F401 - they add their tables to the metadata
from core.partitions import is_not_partition
from core.tables import metadata
from migrations import compatibility

LOCK_TIMEOUT = "1s"
"""A waiting migration blocks the queries behind it, so it gives up, and tries again later. It gives up before they do:
workers wait for 1.8 s with the default lease, the api for 9 s (`core.database`)."""
ADVISORY_LOCK = 0x4C57_0002  # a second `linewatch migrate` waits for the first
POLL_SECONDS = 0.2


def run(connection: Connection) -> None:
    """Run the migrations on the connection that `migrations.__main__` opened. Each is a transaction of its own."""
    _lock(connection)
    try:
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=metadata,
            include_object=is_not_partition,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        compatibility.record(connection)
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ADVISORY_LOCK})
        connection.commit()


def _lock(connection: Connection) -> None:
    """Take the advisory lock.

    Poll instead of waiting in a statement, which would block concurrent index builds of the process that holds the
    lock.
    """
    while True:
        locked = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}).scalar_one()
        connection.commit()
        if locked:
            return
        time.sleep(POLL_SECONDS)


run(context.config.attributes["connection"])
