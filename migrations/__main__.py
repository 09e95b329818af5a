"""`python -m migrations`: upgrade the database schema to the newest version. Safe to run twice at once."""

import sys
import time
from importlib.metadata import version
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from core import partitions
from core.database import create_unbounded
from core.settings import settings_or_exit
from migrations import compatibility

FOLDER = Path(__file__).parent
OLDEST_SERVER = 180000  # uuidv7() is new in PostgreSQL 18
PATIENCE_SECONDS, PAUSE_SECONDS = 60.0, 3.0  # the line goes on in the pauses between tries


class MigrationError(Exception):
    """The migration failed. The message is one line with the reason."""


def migrate(engine: Engine, revision: str = "head") -> str:
    """Upgrade the schema to a revision, then create missing partitions.

    A schema of a newer release that this one works with is left as it is, so that going back one release needs nothing.

    Returns:
        What was done, in a sentence.

    Raises:
        MigrationError: a migration failed and was rolled back, those before it stay; or a newer release has migrated
            the database, and this one does not work with its schema.
    """
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    try:
        with engine.connect() as connection:
            server = connection.execute(text("SELECT current_setting('server_version_num')::int")).scalar_one()
            if server < OLDEST_SERVER:
                raise MigrationError(f"PostgreSQL 18 or newer is needed; the server is {server // 10000}")
            before = _revision(connection)
            if before is None or _is_known(config, before):
                connection.rollback()
                config.attributes["connection"] = connection
                _upgrade(config, revision)
                outcome = _describe(before, _revision(connection))
            else:
                outcome = _accept_newer(connection, before)
        partitions.ensure(engine)
    except CommandError as error:
        raise MigrationError(f"this version of Linewatch does not know the schema: {error}") from error
    except DBAPIError as error:
        raise MigrationError(_reason(error)) from error
    return outcome


def _revision(connection: Connection) -> str | None:
    """Return the revision of the schema; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def _is_known(config: Config, revision: str) -> bool:
    return revision in {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}


def _describe(before: str | None, after: str | None) -> str:
    if before == after:
        return "The database is up to date."
    former = "an empty database" if before is None else f"schema {before}"
    return f"The database was upgraded from {former} to schema {after}."


def _accept_newer(connection: Connection, revision: str) -> str:
    """Check that this release works with a schema that it does not know."""
    origin, release = compatibility.read(connection), version("linewatch")
    if origin is None or origin.revision != revision:
        raise MigrationError(
            f"a newer version of Linewatch has written the database (schema {revision}): install that, or the newest"
        )
    if not origin.allows(release):
        raise MigrationError(
            f"Linewatch {origin.migrated_by} has written the database, which works with {origin.oldest_release} and "
            f"newer, and this is {release}: install Linewatch {origin.migrated_by} or newer, or restore a backup from "
            "before the upgrade"
        )
    return f"Linewatch {origin.migrated_by} has migrated the database. Linewatch {release} works with its schema."


def _reason(error: DBAPIError) -> str:
    reason = str(error.orig).strip().splitlines()[0]
    if isinstance(error.orig, LockNotAvailable | DeadlockDetected):
        return (
            f"a table was in use for {PATIENCE_SECONDS:.0f} s ({reason}): end long queries on the database, and "
            "migrate again; the system goes on as before"
        )
    return reason


def _upgrade(config: Config, revision: str) -> None:
    """Run the migrations. One that does not get the locks of its tables is tried again for a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            command.upgrade(config, revision)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable | DeadlockDetected) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


def main() -> int:
    """Migrate the database of the settings, and say what was done. Exits with 2 if a setting is invalid.

    Returns:
        0, or 1 if it failed.
    """
    engine = create_unbounded(settings_or_exit(), name="migrate")
    try:
        print(migrate(engine))
    except MigrationError as error:
        print(f"linewatch: the database cannot be migrated: {error}", file=sys.stderr)
        return 1
    finally:
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
