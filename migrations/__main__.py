"""`python -m migrations`: upgrade the database schema to the newest version. Safe to run twice at once."""

import sys
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from psycopg.errors import LockNotAvailable
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError

from core import partitions
from core.database import create_unbounded
from core.settings import settings_or_exit

OLDEST_SERVER = 180000  # uuidv7() is new in PostgreSQL 18
PATIENCE_SECONDS, PAUSE_SECONDS = 60.0, 3.0  # the line goes on in the pauses between tries


class MigrationError(Exception):
    """The migration failed. The message is one line with the reason."""


def migrate(engine: Engine, revision: str = "head") -> None:
    """Upgrade the schema to a revision, then create missing partitions.

    Raises:
        MigrationError: a migration failed and was rolled back; those before it stay.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    try:
        with engine.connect() as connection:
            version = connection.execute(text("SELECT current_setting('server_version_num')::int")).scalar_one()
            if version < OLDEST_SERVER:
                raise MigrationError(f"PostgreSQL 18 or newer is needed; the server is {version // 10000}.")
            connection.rollback()
            config.attributes["connection"] = connection
            _upgrade(config, revision)
        partitions.ensure(engine)
    except CommandError as error:
        raise MigrationError(f"this version of Linewatch does not know the schema: {error}") from error
    except DBAPIError as error:
        raise MigrationError(str(error.orig).strip().splitlines()[0]) from error


def _upgrade(config: Config, revision: str) -> None:
    """Run the migrations. One that gets no lock of a table, because of a long query, is tried again for a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            command.upgrade(config, revision)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable) or time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)
        else:
            return


def main() -> int:
    """Migrate the database of the settings. Returns 1 if that fails; exits with 2 if a setting is invalid."""
    engine = create_unbounded(settings_or_exit(), name="migrate")
    try:
        migrate(engine)
    except MigrationError as error:
        print(f"linewatch: the database cannot be migrated: {error}", file=sys.stderr)
        return 1
    finally:
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
