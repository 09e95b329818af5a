"""`linewatch migrate`."""

from pathlib import Path

import click

from linewatch.cli.options import data_directory_option
from linewatch.cli.terminal import remark


@click.command("migrate")
@data_directory_option
def migrate(data: Path | None) -> None:
    """Upgrade the database to this version.

    Running it several times at once is safe, and so is running it while the system works.
    """
    from core.database import create_unbounded
    from linewatch.server.commands.server_settings import settings_of
    from migrations.__main__ import migrate as to_head

    engine = create_unbounded(settings_of(data), name="migrate")
    try:
        outcome = to_head(engine)
    finally:
        engine.dispose()
    remark(outcome)
