"""`linewatch restore`: restore a backup of `linewatch backup` into an empty installation."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import SecretStr

from linewatch.cli.failures import CommandFailed
from linewatch.cli.options import FOLDER_OR_FILE, data_directory_option, json_option
from linewatch.cli.terminal import print_fields, print_json, remark
from linewatch.server.commands.copy_progress import CopyProgress

if TYPE_CHECKING:
    from core.backup.folder import Backup, BackupFolder
    from core.backup.manifest import Manifest
    from core.settings import Settings

_NAMED = 20


@click.command("restore")
@click.argument("directory", type=FOLDER_OR_FILE, help="The folder of `linewatch backup`.")
@click.option("--name", help="Which backup, such as 20270131T020000.000Z.  [default: the newest complete one]")
@click.option("--replace", is_flag=True, help="Delete what the database holds now.")
@click.option("--skip-damaged", is_flag=True, help="Go on without files that are missing or damaged in the backup.")
@data_directory_option
@json_option
def restore(
    directory: Path, name: str | None, replace: bool, skip_damaged: bool, data: Path | None, as_json: bool
) -> None:
    """Restore a backup into an empty installation.

    Stop the system first. Start it again afterwards: work that was in flight is finished, and readers of the feed get
    the cursor to continue from.
    """
    from core.backup.folder import BackupFolder
    from core.backup.restoring import check_backup

    folder = BackupFolder(directory.expanduser())
    with folder.locked(for_writing=False), ExitStack() as stack:
        chosen = folder.find(name)
        manifest = check_backup(chosen)
        _check_schema(manifest)
        settings = stack.enter_context(_installation(data))
        summary = _restore(settings, folder, chosen, manifest, replace=replace, skip_damaged=skip_damaged)
    if as_json:
        print_json(summary)
        return
    print_fields({name: value for name, value in summary.items() if name not in ("rows", "skipped")})
    remark("Restored. Start the system now, for example with `linewatch up`.")


def _check_schema(manifest: "Manifest") -> None:
    from migrations.revisions import known_revisions

    if manifest.schema_version not in known_revisions():
        raise CommandFailed(
            f"the backup was written by Linewatch {manifest.linewatch}, whose schema {manifest.schema_version} this "
            "version does not know: upgrade Linewatch first"
        )


@contextmanager
def _installation(data: Path | None) -> "Iterator[Settings]":
    """Yield the settings of the installation; start the embedded servers unless the settings name others."""
    from core.settings import settings
    from linewatch.server.commands.server_settings import settings_of
    from linewatch.server.embedded.data import absolute, private_folder
    from linewatch.server.embedded.servers import EmbeddedServers
    from linewatch.server.up import default_data_directory

    if os.environ.get("LINEWATCH_DATABASE_URL"):
        yield settings_of(data)
        return
    folder = absolute(default_data_directory() if data is None else data)
    with EmbeddedServers(folder) as servers:
        embedded: dict[str, object] = {"database_url": SecretStr(servers.database_url)}
        if "LINEWATCH_STORE_URL" not in os.environ:
            embedded["store_url"] = private_folder(folder / "store").as_uri()
        elif "LINEWATCH_SCRATCH" not in os.environ:
            embedded["scratch"] = private_folder(folder / "scratch")
        yield settings().model_copy(update=embedded)


def _restore(
    settings: "Settings", folder: "BackupFolder", chosen: "Backup", manifest: "Manifest", *, replace: bool,
    skip_damaged: bool,
) -> dict[str, object]:  # fmt: skip
    """Restore the files, then the database. Returns what was restored, as JSON."""
    from core.backup import restoring
    from core.database import create_unbounded
    from core.storage.stores import open_store
    from linewatch.server.embedded.binaries import client_program
    from migrations.__main__ import migrate

    pg_restore = client_program("pg_restore")
    engine = create_unbounded(settings, name="restore")
    try:
        restoring.check_target(engine, replace=replace)
        with CopyProgress() as progress:
            store = open_store(settings)
            copies = restoring.restore_files(
                folder, chosen, manifest, store, skip_damaged=skip_damaged, on_progress=progress.update
            )
            progress.update("database", 0, None)
            rows = restoring.restore_database(engine, chosen, manifest, pg_restore=pg_restore, replace=replace)
        migrate(engine)
        restoring.begin_epoch(engine)
    finally:
        engine.dispose()
    skipped = [*copies.missing, *copies.damaged]
    for key in skipped[:_NAMED]:
        remark(f"{key} is missing or damaged in the backup: it was not restored.")
    for key in manifest.lost[:_NAMED]:
        remark(f"{key} was missing or damaged already when the backup was made.")
    return {
        "backup": str(chosen.path),
        "created_at": manifest.created_at.isoformat(),
        "files": copies.copied + copies.kept,
        "files_copied": copies.copied,
        "bytes_copied": copies.copied_bytes,
        "skipped": skipped,
        "inspections": rows["inspections"],
        "in_flight": rows["work"],
        "rows": rows,
    }
