"""`linewatch backup`: save the database and the store while the system runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from linewatch.cli.options import FOLDER_OR_FILE, data_directory_option, json_option
from linewatch.cli.terminal import print_fields, print_json, remark
from linewatch.server.commands.copy_progress import CopyProgress

if TYPE_CHECKING:
    from core.backup.saving import Saved

_NAMED = 20


@click.command("backup")
@click.argument("directory", type=FOLDER_OR_FILE, help="The folder of the backups, preferably on another machine.")
@data_directory_option
@json_option
def backup(directory: Path, data: Path | None, as_json: bool) -> None:
    """Save the database and the store while the system runs.

    A later backup to the same folder copies only the files that are new. Exits with 1 if the store has lost files that
    the database refers to; the backup then holds everything else.
    """
    from core.backup.folder import BackupFolder
    from core.backup.saving import save
    from core.database import create_unbounded
    from core.storage.image_store import Store
    from linewatch.server.commands.server_settings import settings_of
    from linewatch.server.embedded.binaries import client_program

    settings = settings_of(data)
    folder = BackupFolder(directory.expanduser())
    engine = create_unbounded(settings, name="backup")
    try:
        with CopyProgress() as progress:
            store = Store(settings.store_url)
            saved = save(engine, store, folder, pg_dump=client_program("pg_dump"), on_progress=progress.update)
    finally:
        engine.dispose()
    _print(saved, folder.incomplete, as_json)
    if saved.manifest.lost:
        raise click.exceptions.Exit(1)


def _print(saved: "Saved", incomplete: list[Path], as_json: bool) -> None:
    manifest, copies = saved.manifest, saved.copies
    summary = {
        "backup": str(saved.path),
        "created_at": manifest.created_at.isoformat(),
        "database_bytes": manifest.database.bytes,
        "files": copies.copied + copies.kept,
        "files_copied": copies.copied,
        "bytes_copied": copies.copied_bytes,
        "removed": manifest.removed,
        "lost": manifest.lost,
    }
    if as_json:
        print_json({**summary, "rows": manifest.rows})
    else:
        print_fields(summary | {"removed": len(manifest.removed), "lost": len(manifest.lost)})
    for key in manifest.removed[:_NAMED]:
        remark(f"{key} was removed during the backup, and its row with it.")
    for key in manifest.lost[:_NAMED]:
        remark(f"{key} is missing or damaged in the store, but the database refers to it: restore it from a backup.")
    for path in incomplete:
        remark(f"{path} was not finished: delete it unless another backup is writing it.")
