"""The Alembic environment: only one migration runs at a time, and it does not wait long for table locks."""

from alembic import context
from sqlalchemy import Connection, text

import core.rescoring.tables  # noqa: F401 - adds its tables to the metadata
from core.partitions import is_not_partition
from core.tables import metadata

LOCK_TIMEOUT = "10s"  # a waiting migration blocks the queries behind it, so it gives up
ADVISORY_LOCK = 0x4C57_0002  # a second `linewatch migrate` waits for the first


def run(connection: Connection) -> None:
    """Run the migrations on the connection that `migrations.__main__` opened."""
    context.configure(connection=connection, target_metadata=metadata, include_object=is_not_partition)
    with context.begin_transaction():
        # Held until the transaction ends. Before the lock timeout is set, so that waiting for it has no limit.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        context.run_migrations()


run(context.config.attributes["connection"])
