"""Checks of PostgreSQL: version, schema, clock, connections and durability."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from core.settings import Settings
from linewatch.server.doctor.findings import Finding, Level, first_line

_STATEMENT_TIMEOUT = "10s"
_SKEW_WARNING, _SKEW_ERROR = 2.0, 300.0
"""Seconds. Receivers of webhooks reject a signature whose time differs by more than five minutes."""
_BUSY_SHARE = 0.85


@contextmanager
def open_connection(settings: Settings) -> Iterator[Connection | Finding]:
    """Yield a connection on which each statement commits, or a finding if the database cannot be reached."""
    from core.database import create_unbounded

    engine = create_unbounded(settings, name="doctor").execution_options(isolation_level="AUTOCOMMIT")
    try:
        try:
            connection = engine.connect()
            connection.execute(text(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'"))
        except SQLAlchemyError as error:
            reason = first_line(getattr(error, "orig", None) or error)
            remedy = (
                "start it, set LINEWATCH_DATABASE_URL, or name the data directory of a running `linewatch up` with "
                "--data; uploads are refused until it is back"
            )
            yield Finding("PostgreSQL", "error", f"cannot be reached: {reason}", remedy)
            return
        with connection:
            yield connection
    finally:
        engine.dispose()


def check_server(connection: Connection) -> list[Finding]:
    """Check the version, the clock, the connections and the durability of the server."""
    from migrations.__main__ import OLDEST_SERVER

    name, number = connection.execute(
        text("SELECT current_setting('server_version'), current_setting('server_version_num')::int")
    ).one()
    if number < OLDEST_SERVER:
        return [Finding("PostgreSQL", "error", f"version {name}", "install PostgreSQL 18 or newer")]
    return [
        Finding("PostgreSQL", "ok", f"version {name}"),
        _check_clock(connection),
        _check_connections(connection),
        _check_durability(connection),
    ]


def check_schema(connection: Connection) -> list[Finding]:
    """Compare the revision of the schema with that of this version of Linewatch."""
    from migrations import compatibility
    from migrations.revisions import read_schema

    schema = read_schema(connection)
    if schema.revision is None:
        return [Finding("schema", "error", "the database is empty", "run `linewatch migrate`")]
    if schema.is_older:
        found = f"revision {schema.revision} instead of {schema.needed}"
        return [Finding("schema", "error", found, "run `linewatch migrate`")]
    if schema.is_known:
        return [Finding("schema", "ok", f"revision {schema.revision}")]
    origin = compatibility.read(connection)
    if origin is not None and origin.revision == schema.revision and origin.allows(version("linewatch")):
        found = f"revision {schema.revision} of Linewatch {origin.migrated_by}, which works with this version"
        remedy = f"upgrade Linewatch here to {origin.migrated_by}, if you do not mean to go back"
        return [Finding("schema", "note", found, remedy)]
    found = f"revision {schema.revision}, which is newer than {schema.needed} of this version"
    return [Finding("schema", "error", found, "upgrade Linewatch here: a newer version has migrated the database")]


def _check_clock(connection: Connection) -> Finding:
    """Compare the clocks. The time of the answer is known to half the duration of the query."""
    before = dt.datetime.now(dt.UTC)
    there = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    duration = dt.datetime.now(dt.UTC) - before
    skew = (there - before - duration / 2).total_seconds()
    found = f"{abs(skew):.1f} s {'behind' if skew > 0 else 'ahead of'} the database's"
    certain = abs(skew) - duration.total_seconds() / 2
    level: Level = "error" if certain > _SKEW_ERROR else "warning" if certain > _SKEW_WARNING else "ok"
    if level == "ok":
        return Finding("clock", level, found)
    remedy = (
        "synchronise both clocks (chrony or systemd-timesyncd); signatures of webhooks and the expiry of keys depend "
        "on this clock, leases and the feed on the database's"
    )
    return Finding("clock", level, found, remedy)


def _check_connections(connection: Connection) -> Finding:
    used, allowed = connection.execute(
        text("SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), "
             "current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int")
    ).one()  # fmt: skip
    found = f"{used} of {allowed} in use"
    if used < _BUSY_SHARE * allowed:
        return Finding("connections", "ok", found)
    return Finding("connections", "warning", found, "raise PostgreSQL's max_connections, or run fewer processes")


def _check_durability(connection: Connection) -> Finding:
    rows = connection.execute(
        text("""
            SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit')
        """)
    )
    settings = {row.name: row.setting for row in rows}
    found = ", ".join(f"{name} {value}" for name, value in sorted(settings.items()))
    if settings["fsync"] == settings["full_page_writes"] == "on" and settings["synchronous_commit"] != "off":
        return Finding("durability", "ok", found)
    remedy = "turn them on: accepted images can be lost in a power cut, and the database can be damaged"
    return Finding("durability", "warning", found, remedy)
