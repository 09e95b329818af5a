"""The migrated schema is the one that `core.tables` declares."""

import datetime as dt
import subprocess
import sys
from uuid import UUID

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

import core.rescoring.tables  # noqa: F401 - its tables are of the same metadata
from core import partitions
from core.database import create_unbounded
from core.settings import Settings
from core.tables import metadata
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate


def test_migrations_make_exactly_the_declared_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_object": partitions.is_no_partition, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []


def test_migrating_twice_at_once_is_safe(servers: EmbeddedServers, settings: Settings) -> None:
    name = "migrated_twice"
    with (
        create_unbounded(settings, name="tests").connect().execution_options(isolation_level="AUTOCOMMIT") as connection
    ):
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = servers.database_url.replace("/linewatch?", f"/{name}?")
    environment = {"LINEWATCH_DATABASE_URL": url, "PATH": ""}
    both = [
        subprocess.Popen([sys.executable, "-m", "migrations"], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    migrate(engine)
    test_migrations_make_exactly_the_declared_tables(engine)


def test_partitions_of_the_coming_months_are_made_once(engine: Engine) -> None:
    later = dt.datetime(2031, 11, 20, tzinfo=dt.UTC)
    with engine.begin() as connection:
        made = partitions.ensure(connection, now=later)
        assert made == ["inspections_2031_11", "inspections_2031_12", "inspections_2032_01", "inspections_2032_02"]
        assert partitions.ensure(connection, now=later) == []


def test_a_row_lies_in_the_partition_of_its_month(engine: Engine) -> None:
    now = dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        newest: UUID = connection.execute(text("SELECT uuidv7()")).scalar_one()
        connection.execute(
            text("""
                INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, status, reasons,
                    timings_ms)
                VALUES (:id, 1, 'live', '{}', now(), '', 'cancelled', '{}', '{}')
            """),
            {"id": newest},
        )
        where = connection.execute(text("SELECT tableoid::regclass::text FROM inspections")).scalar_one()
    assert where == f"inspections_{now:%Y_%m}"
