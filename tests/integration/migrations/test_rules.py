"""What every migration since 0010 keeps: the system goes on while it runs, and the release before works after it.

The rules are checked on the statements that PostgreSQL gets, so they hold for a new migration, too.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from linewatch.server.embedded.servers import EmbeddedServers
from migrations.__main__ import migrate
from tests.fixtures.later_migrations import later_release

FIRST = "0009"
"""The rules hold for what comes after this revision."""

REMOVALS: Mapping[str, str] = {}
"""Revisions that remove what earlier releases needed, each with the first release that works without it. That must also
be the `OLDEST_RELEASE` of `migrations.compatibility`."""

SMALL = {"api_keys", "model_versions", "recipes", "thresholds", "webhook_endpoints"}
"""Tables of up to some thousand rows, which are read in a moment."""

REMOVAL = re.compile(
    r"\b(DROP (TABLE|COLUMN|TRIGGER|FUNCTION|DEFAULT)|RENAME|SET NOT NULL|TRUNCATE|ALTER COLUMN \S+ (SET DATA )?TYPE)\b"
)
FILES = (
    "SELECT relname, relfilenode FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
)


@dataclass
class Migration:
    """What one migration did.

    Attributes:
        statements: each with its `lock_timeout`.
        files: the file of each table that was there before.
        rewritten: the tables of which it has written a new file.
    """

    statements: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)
    rewritten: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """Return what is against the rules."""
        found = [f"writes all of {table} anew" for table in self.rewritten]
        for statement, lock_timeout in self.statements:
            found += [f"{fault}: {statement}" for fault in self._faults_of(statement, lock_timeout)]
        return found

    def _faults_of(self, statement: str, lock_timeout: str) -> Iterator[str]:
        if not re.match("ALTER|CREATE|DROP|LOCK|INSERT|UPDATE|DELETE|TRUNCATE", statement):
            return
        if lock_timeout != "1s" and "INDEX CONCURRENTLY" not in statement:
            yield "waits for locks, and lets others wait"
        if not statement.startswith("CREATE") and REMOVAL.search(statement):
            yield "removes what the release before may need"
        if re.search("ADD COLUMN .* NOT NULL", statement) and "DEFAULT" not in statement:
            yield "adds a column that the release before does not fill"
        index = re.match(r"CREATE (?:UNIQUE )?INDEX (?:IF NOT EXISTS )?\S+ ON (?!ONLY )(\S+)", statement)
        if index and index[1] in self.files:
            yield "stops writes while it builds an index"
        constraint = re.match(
            r"ALTER TABLE (?:ONLY )?(\S+) ADD (?:CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN)\b", statement
        )
        if constraint and constraint[1] in self.files.keys() - SMALL and "NOT VALID" not in statement:
            yield "stops writes while it reads a table"


def record(engine: Engine) -> dict[str, Migration]:
    """Record what the migrations do from now on, by revision."""
    by_revision: dict[str, Migration] = {}
    current = Migration()

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, cursor: Any, statement: str, *_: object) -> None:
        nonlocal current
        raw, statement = cursor.connection, " ".join(statement.split())
        if not current.files:
            current.files = dict(raw.execute(FILES).fetchall())
        done = re.match("UPDATE alembic_version SET version_num='(.+?)'", statement)
        if done is None:
            current.statements.append((statement, raw.execute("SHOW lock_timeout").fetchone()[0]))
            return
        files = dict(raw.execute(FILES).fetchall())
        current.rewritten = [name for name, file in current.files.items() if files.get(name, file) != file]
        by_revision[done[1]] = current
        current = Migration()

    return by_revision


@pytest.fixture(scope="module")
def migrations(execute_sql: Callable[[str], None], servers: EmbeddedServers) -> Iterator[dict[str, Migration]]:
    """The migrations since 0010, by revision."""
    name = "rules_of_migrations"
    execute_sql(f"CREATE DATABASE {name}")
    engine = create_engine(make_url(servers.database_url).set(database=name), poolclass=NullPool)
    migrate(engine, FIRST)
    recorded = record(engine)
    migrate(engine)
    engine.dispose()
    yield recorded
    execute_sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_all_migrations_keep_the_rules(migrations: dict[str, Migration]) -> None:
    assert {"0010", "0011", "0015"} <= migrations.keys()
    assert sum(len(each.statements) for each in migrations.values()) > 100
    assert {revision: each.faults() for revision, each in migrations.items() if revision not in REMOVALS} == {
        revision: [] for revision in migrations if revision not in REMOVALS
    }


def test_the_rules_find_faults(engine: Engine, tmp_path: Path) -> None:
    faults = {
        "ALTER TABLE work ADD COLUMN line text NOT NULL": "adds a column that the release before does not fill",
        "ALTER TABLE work DROP COLUMN api_key": "removes what the release before may need",
        "ALTER TABLE work RENAME COLUMN part_id TO part": "removes what the release before may need",
        "ALTER TABLE images ALTER COLUMN width TYPE bigint": "removes what the release before may need",
        "CREATE INDEX ix_images_width ON images (width)": "stops writes while it builds an index",
        "CREATE UNIQUE INDEX ix_work_part ON work (part)": "stops writes while it builds an index",
        "ALTER TABLE images ADD CONSTRAINT ck_width CHECK (width > 0)": "stops writes while it reads a table",
    }
    allowed = [
        "ALTER TABLE batches ADD COLUMN note text NOT NULL DEFAULT $$none$$",
        "ALTER TABLE batches ADD CONSTRAINT ck_note CHECK (note <> $$$$) NOT VALID",
        "CREATE TABLE notes (id bigint PRIMARY KEY, note text NOT NULL)",
        "CREATE INDEX ix_notes_note ON notes (note)",
    ]
    recorded = record(engine)
    with later_release(tmp_path / "later", *faults, *allowed, "SET LOCAL lock_timeout = 0", "DELETE FROM notes"):
        migrate(engine)
    assert recorded["later"].faults() == [
        "writes all of images anew",
        *(f"{fault}: {statement}" for statement, fault in faults.items()),
        "waits for locks, and lets others wait: DELETE FROM notes",
    ]
