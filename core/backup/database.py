"""Dump one snapshot of the database, and restore it, with PostgreSQL's own programs."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text

from core.backup import BackupError

_LOCK_WAIT = "60s"  # for example for a new partition; uploads and workers do not wait for a dump

# Left out: partitions, whose rows are those of their table.
_TABLES = text("""
    SELECT relname FROM pg_class WHERE relnamespace = CAST(current_schema() AS regnamespace)
        AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname
""")
_DROP_ALL = text("""
    SELECT format('DROP TABLE %I CASCADE', relname) FROM pg_class
    WHERE relnamespace = CAST(current_schema() AS regnamespace) AND relkind IN ('r', 'p') AND NOT relispartition
    UNION ALL
    SELECT format('DROP ROUTINE %s CASCADE', CAST(oid AS regprocedure)) FROM pg_proc
    WHERE pronamespace = CAST(current_schema() AS regnamespace)
""")
_OTHER_PROCESSES = text("""
    SELECT DISTINCT application_name FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'linewatch %'
    ORDER BY application_name
""")
# An installation that nobody has used yet has a schema, and rows of its own in some tables.
_USED = ("recipes", "images", "work", "inspections", "api_keys")


@contextmanager
def snapshot(engine: Engine) -> Iterator[tuple[Connection, str]]:
    """Yield a connection that reads one snapshot, and the snapshot's name for `dump`.

    No table or partition of it is dropped or rewritten during the `with` block; rows are written as always.
    """
    with engine.connect() as connection:
        tables = _tables(connection)
    reading = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with reading.connect() as connection:
        for limit in ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
        if tables:  # first, because the next statement takes the snapshot
            connection.execute(text(f"LOCK TABLE {tables} IN ACCESS SHARE MODE"))
        yield connection, connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()


def count_rows(connection: Connection) -> dict[str, int]:
    """Return the number of rows of each table. Reads all of them, as a dump does."""
    tables = connection.execute(_TABLES).scalars().all()
    quote = connection.dialect.identifier_preparer.quote
    return {
        name: connection.execute(text(f"SELECT count(*) FROM {quote(name)}")).scalar_one()  # noqa: S608 - quoted
        for name in tables
    }


def is_used(connection: Connection) -> bool:
    """Return whether the database holds recipes, images, inspections or API keys."""
    present = set(connection.execute(_TABLES).scalars()) & set(_USED)
    return any(
        connection.execute(text(f"SELECT EXISTS (SELECT FROM {name})")).scalar_one()  # noqa: S608 - constants
        for name in present
    )


def other_processes(connection: Connection) -> list[str]:
    """Return the names of Linewatch's processes that are connected to the database."""
    return [name.removeprefix("linewatch ") for name in connection.execute(_OTHER_PROCESSES).scalars()]


def lock_all(connection: Connection) -> None:
    """Lock every table for this transaction, so that nobody else writes or reads."""
    if tables := _tables(connection):
        connection.execute(text(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))


def drop_all(connection: Connection) -> None:
    """Drop every table and function of the schema."""
    for statement in connection.execute(_DROP_ALL).scalars().all():
        connection.execute(text(statement))


def dump(program: Path, engine: Engine, snapshot_name: str, to: Path) -> None:
    """Write a snapshot to a file, durably.

    Raises:
        BackupError: `pg_dump` failed.
    """
    options = (f"--snapshot={snapshot_name}", f"--file={to}", f"--lock-wait-timeout={_LOCK_WAIT}", "--format=custom")
    if (reason := _failure_of(program, engine, *options)) is not None:
        raise BackupError(f"the database cannot be dumped: {reason}")


def load(program: Path, engine: Engine, dump_file: Path) -> None:
    """Load a dump into an empty database, completely or not at all.

    Raises:
        BackupError: `pg_restore` failed.
    """
    options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", str(dump_file))
    if (reason := _failure_of(program, engine, *options)) is not None:
        raise BackupError(f"nothing was loaded into the database: {reason}")


def _tables(connection: Connection) -> str:
    """The names of all tables for a statement."""
    return ", ".join(map(connection.dialect.identifier_preparer.quote, connection.execute(_TABLES).scalars()))


def _failure_of(program: Path, engine: Engine, *arguments: str) -> str | None:
    """Run a program of PostgreSQL on the database; return the first line of its errors if it fails.

    It gets the password by its environment: every user can read a command line.
    """
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        parameters, password = driver.info.dsn, driver.info.password  # the former is without the latter
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    command = [str(program), f"--dbname={parameters}", "--no-password", *arguments]
    try:
        outcome = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise BackupError(f"{program} cannot be run: {error.strerror}") from error
    if outcome.returncode == 0:
        return None
    lines = outcome.stderr.decode(errors="replace").split("\n")
    return next((line.strip() for line in lines if line.strip()), f"{program.name} ended with {outcome.returncode}")
