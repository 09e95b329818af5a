"""The migrated schema is the one that `core.tables` declares."""

import datetime as dt
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

import core.access.tables
import core.delivery.tables
import core.drift.tables
import core.feed.tables
import core.rescoring.tables
import core.retention.tables
import core.statistics.tables
import core.system.tables
import core.training_runs.tables  # noqa: F401 - they add their tables to the metadata
from core import partitions
from core.database import create_unbounded
from core.settings import Settings
from core.tables import metadata
from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import MigrationError, migrate

LATER = dt.datetime(2032, 5, 20, tzinfo=dt.UTC)
INSERT = text("""
    INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, status, reasons, timings_ms)
    VALUES (:id, 1, 'live', '{}', now(), '', 'cancelled', '{}', '{}')
""")


def test_migrations_create_exactly_the_declared_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_object": partitions.is_not_partition, "compare_type": True}
        )
        assert compare_metadata(context, metadata) == []


def test_concurrent_migrations_are_safe(servers: EmbeddedServers, settings: Settings) -> None:
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
    test_migrations_create_exactly_the_declared_tables(engine)


@pytest.fixture
def new_database(servers: EmbeddedServers, settings: Settings) -> Iterator[Engine]:
    """A database without tables."""
    name = f"older_{uuid4().hex[:8]}"
    with create_unbounded(settings, name="tests").connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(f"CREATE DATABASE {name}"))
    engine = create_engine(servers.database_url.replace("/linewatch?", f"/{name}?"), poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def older_database(new_database: Engine) -> Engine:
    """A database of revision 0004, with inspections in two partitions."""
    migrate(new_database, "0004")
    with new_database.begin() as connection:
        for moment in (dt.datetime.now(dt.UTC), LATER):
            connection.execute(INSERT, {"id": partitions.first_id_of(moment)})
    return new_database


def test_inspections_before_and_during_a_migration_enter_the_feed_once(new_database: Engine) -> None:
    before, during = (partitions.first_id_of(LATER + dt.timedelta(hours=hour)) for hour in (1, 2))
    for revision, inspection_id in (("0001", before), ("0002", during)):
        migrate(new_database, revision)
        with new_database.begin() as connection:
            connection.execute(INSERT, {"id": inspection_id})
            connection.execute(text("UPDATE inspections SET finished_at = now() WHERE id = :id"), {"id": inspection_id})
    migrate(new_database)
    with new_database.begin() as connection:
        entries = connection.execute(text("SELECT inspection_id FROM feed_unnumbered ORDER BY 1")).scalars().all()
    assert entries == [before, during]


def test_reviews_before_and_during_a_migration_get_their_recipe(older_database: Engine) -> None:
    reviewed = partitions.first_id_of(LATER)
    insert = text("""
        INSERT INTO reviews (inspection_id, verdict, reviewer, reason, actor) VALUES (:id, 'ok', 'Jo', 'dust', 'test')
    """)
    removed = partitions.first_id_of(LATER - dt.timedelta(days=1))
    with older_database.begin() as connection:
        for inspection_id in (reviewed, removed):
            connection.execute(insert, {"id": inspection_id})
    migrate(older_database)
    with older_database.begin() as connection:
        connection.execute(insert, {"id": reviewed})  # by an api of the previous version
        rows = connection.execute(text("SELECT inspection_id, recipe_id FROM reviews ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [(reviewed, 1), (removed, None), (reviewed, 1)]


def test_the_review_queue_is_complete_after_a_migration(older_database: Engine) -> None:
    """It holds earlier inspections that wait, and those that workers and apis of the previous version add or review."""
    insert = text("""
        INSERT INTO inspections (id, recipe_id, priority, metadata, image_day, image_sha256, status, reasons,
            timings_ms, verdict, anomaly_score, error_code)
        VALUES (:id, 1, 'live', '{}', now(), '', :status, '{}', '{}', :verdict, :score, :error)
    """)
    completed: dict[str, Any] = {"status": "completed", "verdict": "review", "score": 0.5, "error": None}
    failed: dict[str, Any] = {"status": "failed", "verdict": None, "score": None, "error": "poison"}
    review = text("""
        INSERT INTO reviews (inspection_id, verdict, reviewer, reason, actor) VALUES (:id, 'ok', 'Jo', 'dust', 'test')
    """)
    ids = [partitions.first_id_of(LATER + dt.timedelta(minutes=minute)) for minute in range(1, 9)]
    with older_database.begin() as connection:
        for inspection_id, outcome in zip(ids[:4], (completed, completed, failed, completed), strict=True):
            connection.execute(insert, {"id": inspection_id, **outcome})
        connection.execute(review, {"id": ids[0]})
    migrate(older_database)
    with older_database.begin() as connection:
        for inspection_id, outcome in zip(ids[4:], (completed, {**completed, "verdict": "ok"}, failed, completed),
                                          strict=True):  # fmt: skip
            connection.execute(insert, {"id": inspection_id, **outcome})
        for inspection_id in (ids[3], ids[7]):
            connection.execute(review, {"id": inspection_id})
        waiting = connection.execute(text("SELECT inspection_id FROM review_queue ORDER BY 1")).scalars().all()
    assert waiting == [ids[1], ids[4], ids[6]]


def invalid_indexes(engine: Engine) -> list[str]:
    query = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready"
    with engine.connect() as connection:
        return list(connection.execute(text(query)).scalars())


def test_an_index_is_built_while_inspections_are_written(older_database: Engine) -> None:
    first, second = (partitions.first_id_of(LATER + dt.timedelta(hours=hour)) for hour in (1, 2))
    with ThreadPoolExecutor(1) as pool, older_database.connect() as line:
        line.execute(text(str(INSERT).replace("INTO inspections", "INTO inspections_default")), {"id": first})
        migrating = pool.submit(migrate, older_database)
        wait_for_a_build(older_database)
        with older_database.begin() as other:
            other.execute(text("SET LOCAL lock_timeout = '2s'"))
            other.execute(INSERT, {"id": second})
        assert not migrating.done()
        line.commit()
        migrating.result(60)
    assert invalid_indexes(older_database) == []
    test_migrations_create_exactly_the_declared_tables(older_database)


def wait_for_a_build(engine: Engine) -> None:
    """Wait until an index is being built concurrently."""
    query = text("SELECT count(*) FROM pg_stat_progress_create_index WHERE command = 'CREATE INDEX CONCURRENTLY'")
    deadline = time.monotonic() + 30
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(query).scalar_one():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_an_interrupted_build_of_an_index_is_completed(older_database: Engine) -> None:
    with older_database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text("CREATE INDEX ix_inspections_review_id ON ONLY inspections (id) WHERE verdict = 'review'")
        )
        connection.execute(text("CREATE INDEX inspections_default_review_id_idx ON inspections_default (id)"))
    assert invalid_indexes(older_database) == ["ix_inspections_review_id"]
    migrate(older_database)
    assert invalid_indexes(older_database) == []
    test_migrations_create_exactly_the_declared_tables(older_database)


def test_a_migration_that_gets_no_lock_is_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migrations.__main__.PAUSE_SECONDS", 0.1)
    failures = [LockNotAvailable("canceling statement due to lock timeout")]

    def upgrade(config: Config, revision: str) -> None:
        if failures:
            raise OperationalError("ALTER TABLE", {}, failures.pop())

    monkeypatch.setattr(command, "upgrade", upgrade)
    migrate(engine)
    assert failures == []
    monkeypatch.setattr("migrations.__main__.PATIENCE_SECONDS", -1.0)
    failures.append(LockNotAvailable("canceling statement due to lock timeout"))
    with pytest.raises(MigrationError, match="lock timeout"):
        migrate(engine)


def test_partitions_of_the_next_months_are_created_once(engine: Engine) -> None:
    later = dt.datetime(2031, 11, 20, tzinfo=dt.UTC)
    created = partitions.ensure(engine, now=later)
    assert created == ["inspections_2031_11", "inspections_2031_12", "inspections_2032_01", "inspections_2032_02"]
    assert partitions.ensure(engine, now=later) == []
    test_migrations_create_exactly_the_declared_tables(engine)


def partition_of(connection: Connection, inspection_id: UUID) -> str:
    query = text("SELECT tableoid::regclass::text FROM inspections WHERE id = :id")
    return str(connection.execute(query, {"id": inspection_id}).scalar_one())


def test_rows_written_with_a_fast_clock_move_to_their_partition(engine: Engine) -> None:
    ahead, further = partitions.first_id_of(LATER), partitions.first_id_of(LATER + dt.timedelta(days=400))
    with engine.begin() as connection:
        for inspection_id in (ahead, further):
            connection.execute(INSERT, {"id": inspection_id})
        entries = connection.execute(text("SELECT count(*) FROM feed_unnumbered")).scalar_one()
        assert partition_of(connection, ahead) == "inspections_default"
    assert len(partitions.ensure(engine, now=LATER)) == 4
    with engine.begin() as connection:
        assert partition_of(connection, ahead) == "inspections_2032_05"
        assert partition_of(connection, further) == "inspections_default"
        assert connection.execute(text("SELECT count(*) FROM feed_unnumbered")).scalar_one() == entries


def test_a_long_query_delays_a_new_partition_but_no_upload(
    engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "TRIES", 1)
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT", "200ms")
    with create_unbounded(settings, name="reader").connect() as reader:
        reader.execute(text("SELECT count(*) FROM inspections"))  # holds its locks until the transaction ends
        assert partitions.ensure(engine, now=LATER) == []
        with engine.begin() as line:
            line.execute(INSERT, {"id": partitions.first_id_of(LATER)})
            assert partition_of(line, partitions.first_id_of(LATER)) == "inspections_default"
    assert len(partitions.ensure(engine, now=LATER)) > 0


def test_two_processes_create_each_partition_once(engine: Engine) -> None:
    with ThreadPoolExecutor(2) as pool:
        created = [*pool.map(lambda _: partitions.ensure(engine, now=LATER), range(2))]
    assert len({*created[0], *created[1]}) == len(created[0]) + len(created[1]) == 4


def test_a_row_is_in_the_partition_of_its_month(engine: Engine) -> None:
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
