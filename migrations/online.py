"""Changes of tables that are in use while the migration runs."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op
from sqlalchemy import Connection, text


def create_index(name: str, table: str, definition: str) -> None:
    """Create an index of a partitioned table without blocking writes.

    PostgreSQL cannot build such an index concurrently. So an invalid index is created first. Then the index of each
    partition is built concurrently and attached; after the last one, the whole index is valid. Partitions created in
    the meantime get their index automatically. If this function is interrupted, call it again.

    Args:
        name: of the index.
        table: the partitioned table.
        definition: the columns and the condition, such as `(id) WHERE verdict = 'review'`.
    """
    with op.get_context().autocommit_block():  # a concurrent build cannot be in a transaction
        connection = op.get_bind()
        connection.execute(text(f"CREATE INDEX IF NOT EXISTS {name} ON ONLY {table} {definition}"))
        for partition in _partitions_without_index(connection, name, table):
            part_name = f"{partition}_{name.removeprefix(f'ix_{table}_')}_idx"
            with _without_lock_timeout(connection):
                connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {part_name}"))  # of an interrupted build
                connection.execute(text(f"CREATE INDEX CONCURRENTLY {part_name} ON {partition} {definition}"))
            connection.execute(text(f"ALTER INDEX {name} ATTACH PARTITION {part_name}"))


def create_plain_index(name: str, table: str, definition: str) -> None:
    """Create an index of a table without partitions, without blocking writes. If it is interrupted, call it again.

    What the migration did before is committed first.

    Args:
        name: of the index.
        table: the table.
        definition: the columns and the condition, such as `(id) WHERE verdict = 'review'`.
    """
    with op.get_context().autocommit_block():
        connection = op.get_bind()
        with _without_lock_timeout(connection):
            connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))  # of an interrupted build
            connection.execute(text(f"CREATE INDEX CONCURRENTLY {name} ON {table} {definition}"))


@contextmanager
def _without_lock_timeout(connection: Connection) -> Iterator[None]:
    """For statements that wait for other transactions but block no one."""
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
