"""`python -m migrations`: upgrade the database schema to the newest version. Safe to run twice at once."""

import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from core import partitions
from core.database import create_unbounded
from core.settings import settings_or_exit

OLDEST_SERVER = 180000  # uuidv7() is new in PostgreSQL 18


class MigrationError(Exception):
    """The migration failed. The message is one line with the reason."""


def migrate(engine: Engine) -> None:
    """Upgrade the schema, then create missing partitions.

    Raises:
        MigrationError: an upgrade that fails is rolled back.
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
            command.upgrade(config, "head")
        partitions.ensure(engine)
    except CommandError as error:
        raise MigrationError(f"this version of Linewatch does not know the schema: {error}") from error
    except DBAPIError as error:
        raise MigrationError(str(error.orig).strip().splitlines()[0]) from error


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
