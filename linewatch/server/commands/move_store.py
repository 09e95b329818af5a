"""`linewatch move-store`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linewatch.cli.options import data_directory_option
from linewatch.cli.terminal import remark

if TYPE_CHECKING:
    from core.storage.moving_store import Copied

_REPORT_SECONDS = 10.0


@click.command("move-store")
@data_directory_option
def move_store(data: Path | None) -> None:
    """Copy every file from LINEWATCH_STORE_READ_ALSO to LINEWATCH_STORE_URL, while the system runs.

    Restart all processes with both settings first: then they write to the new store only, and read from both. What was
    copied is skipped, so you can repeat the command. The old store is left as it is.
    """
    from core.storage.moving_store import MovingStore, copy_all
    from core.storage.stores import open_store
    from linewatch.server.commands.server_settings import settings_of

    settings = settings_of(data)
    store = open_store(settings)
    if not isinstance(store, MovingStore):
        raise click.UsageError("set LINEWATCH_STORE_READ_ALSO to the old store and LINEWATCH_STORE_URL to the new one")
    reported_at = time.monotonic()

    def report(copied: "Copied") -> None:
        nonlocal reported_at
        if time.monotonic() > reported_at + _REPORT_SECONDS:
            reported_at = time.monotonic()
            remark(_describe(copied))

    store.new.check()
    remark(f"{_describe(copy_all(store.old, store.new, progress=report))}. All files are in {settings.store_url}.")


def _describe(copied: "Copied") -> str:
    return f"copied {copied.files} files ({copied.bytes / 1e6:.1f} MB), {copied.present} were there already"
