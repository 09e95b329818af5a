"""Changes of tables that are in use while the migration runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op
from sqlalchemy import Connection, text


def create_index(name: str, table: str, definition: str) -> None:
    """Create an index of a partitioned table without blocking writes.

    PostgreSQL cannot build such an index concurrently itself. So an invalid one is created first, then one of each
    partition concurrently, and each is attached. The index is valid once the last one is. Partitions that are created
    meanwhile get theirs by themselves. If it is interrupted, call it again.

    Args:
        name: of the index.
        table: the partitioned table.
        definition: the columns and the condition, such as `(id) WHERE verdict = 'review'`.
    """
    with op.get_context().autocommit_block():  # a concurrent build cannot be in a transaction
        connection = op.get_bind()
        connection.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {table} {definition}"))
        for partition in _partitions_without_index(connection, name, table):
            own = f"{partition}_{name.removeprefix(f'ix_{table}_')}_idx"
            with _without_lock_timeout(connection):
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {own}"))  # of an interrupted build
                connection.execute(text(f"CREATE INDEX CONCURRENTLY {own} ON {partition} {definition}"))
            connection.execute(text(f"ALTER INDEX {name} ATTACH PARTITION {own}"))


@contextmanager
def _without_lock_timeout(connection: Connection) -> Iterator[None]:
    """For statements that wait for the transactions of others, and meanwhile block nobody."""
    timeout = connection.execute(text("SHOW lock_timeout")).scalar_one()
    connection.execute(text("SET lock_timeout = 0"))
    try:
        yield
    finally:
        connection.execute(text(f"SET lock_timeout = '{timeout}'"))


def _partitions_without_index(connection: Connection, name: str, table: str) -> list[str]:
    return list(
        connection.execute(
            text("""
                SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = CAST(:table AS regclass)
                EXCEPT
                SELECT indrelid::regclass::text FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid
                WHERE inhparent = CAST(:name AS regclass)
                ORDER BY 1
            """),
            {"table": table, "name": name},
        ).scalars()
    )
