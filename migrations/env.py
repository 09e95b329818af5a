"""How Alembic runs here: one migration at a time, and none that waits long for a lock."""

from alembic import context
from sqlalchemy import Connection, text

import core.rescoring.tables  # noqa: F401 - its tables are of the same metadata
from core.partitions import is_no_partition
from core.tables import metadata

LOCK_TIMEOUT = "10s"  # a migration that cannot get its lock gives up, rather than stop the line behind it
ONE_AT_A_TIME = 0x4C57_0002  # an advisory lock: a second `linewatch migrate` waits for the first


def run(connection: Connection) -> None:
    """Migrate over the connection that `migrations.__main__` opened."""
    context.configure(connection=connection, target_metadata=metadata, include_object=is_no_partition)
    with context.begin_transaction():
        # Held until the transaction ends; waiting for another migration is not bounded by the lock timeout below.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ONE_AT_A_TIME})
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        context.run_migrations()


run(context.config.attributes["connection"])
