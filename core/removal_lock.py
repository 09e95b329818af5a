"""The lock between what decides to remove images and what makes them needed.

A removal is decided and recorded in one transaction under this lock. What makes stored images needed (a legal hold, a
longer retention, a re-scoring run, a training run) shares it: once that is committed, no removal has missed it.
"""

from sqlalchemy import Connection, text

_LOCK = 0x4C57_0015
_STATEMENT, _TRANSACTION = "20s", "30s"


def allow_time(connection: Connection) -> None:
    """Give the transaction time to read the inspections of a day: the limits of a worker's lease are too short."""
    # PostgreSQL starts the timer of a transaction again only after it was disabled.
    for name, limit in (
        ("transaction_timeout", "0"),
        ("transaction_timeout", _TRANSACTION),
        ("statement_timeout", _STATEMENT),
    ):
        connection.execute(text("SELECT set_config(:name, :limit, true)"), {"name": name, "limit": limit})


def take(connection: Connection) -> None:
    """Wait for the transactions that need images, and keep others waiting until this transaction ends."""
    allow_time(connection)
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def share(connection: Connection) -> None:
    """Wait until no removal is being decided, and let none be decided before this transaction ends."""
    connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": _LOCK})
