"""`linewatch migrate`."""

from linewatch.cli.options import DataDirectory
from linewatch.cli.terminal import remark


def migrate(data: DataDirectory = None) -> None:
    """Bring the database to this version.

    Safe to run twice at once.
    """
    from core.database import create_unbounded
    from linewatch.server.commands.server_settings import settings_of
    from migrations.__main__ import migrate as to_head

    engine = create_unbounded(settings_of(data), name="migrate")
    try:
        to_head(engine)
    finally:
        engine.dispose()
    remark("The database is up to date.")
