"""`linewatch backup`: save the database and the store while the system runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from linewatch.cli.options import FOLDER_OR_FILE, data_directory_option, json_option
from linewatch.cli.terminal import print_fields, print_json, remark
from linewatch.server.commands.copy_progress import CopyProgress

if TYPE_CHECKING:
    from core.backup.folder import BackupFolder
    from core.backup.pruning import Pruned
    from core.backup.saving import Saved
    from core.settings import Settings

_NAMED = 20


@click.command("backup")
@click.argument("directory", type=FOLDER_OR_FILE, help="The folder of the backups, preferably on another machine.")
@click.option(
    "--keep", type=click.IntRange(min=1), help="Delete older backups afterwards, and keep this many.  [default: all]"
)
@data_directory_option
@json_option
def backup(directory: Path, keep: int | None, data: Path | None, as_json: bool) -> None:
    """Save the database and the store while the system runs.

    If `linewatch up` does not run on the data directory, its database is started meanwhile. A later backup to the same
    folder copies only the files that are new. Exits with 1 if the store has lost files that the database refers to; the
    backup then holds everything else.
    """
    from core.backup.folder import BackupFolder
    from core.backup.pruning import prune
    from linewatch.server.commands.server_settings import started_servers

    folder = BackupFolder(directory.expanduser())
    with started_servers(data) as settings, folder.locked(for_writing=True):
        saved = _save(settings, folder)
        pruned = None if keep is None else prune(folder, keep=keep)
    _print(saved, pruned, folder.incomplete, as_json)
    if saved.manifest.lost:
        raise click.exceptions.Exit(1)


def _save(settings: "Settings", folder: "BackupFolder") -> "Saved":
    from core.backup.saving import save
    from core.database import create_unbounded
    from core.storage.stores import open_store
    from linewatch.server.embedded.binaries import client_program

    pg_dump = client_program("pg_dump")
    engine = create_unbounded(settings, name="backup")
    try:
        with CopyProgress() as progress:
            return save(engine, open_store(settings), folder, pg_dump=pg_dump, on_progress=progress.update)
    finally:
        engine.dispose()


def _print(saved: "Saved", pruned: "Pruned | None", incomplete: list[Path], as_json: bool) -> None:
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
        "backups_deleted": pruned.backups if pruned else [],
        "bytes_deleted": pruned.bytes if pruned else 0,
    }
    if as_json:
        print_json({**summary, "rows": manifest.rows})
    else:
        print_fields({name: len(value) if isinstance(value, list) else value for name, value in summary.items()})
    for key in manifest.removed[:_NAMED]:
        remark(f"{key} was removed during the backup, and its row with it.")
    for key in manifest.lost[:_NAMED]:
        remark(f"{key} is missing or damaged in the store, but the database refers to it: restore it from a backup.")
    for path in incomplete:
        remark(f"{path} is an earlier backup that was not finished: delete it.")
