"""Restore a backup: first the files, each with its checksum verified, then the database in one transaction.

An interrupted restore leaves an empty database, and can be run again. Files that are there already are kept.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from sqlalchemy import Connection, Engine

from core.backup import BackupError, database
from core.backup.files import Copies, Copy, File, copy_files
from core.backup.folder import Backup, BackupFolder, record_of
from core.backup.manifest import Manifest
from core.backup.saving import OnProgress, list_images
from core.feed import feed
from core.storage.image_store import Store

_NAMED = 3  # files named in an error


def check_target(engine: Engine, *, replace: bool) -> None:
    """Check that a backup can be restored into a database.

    Raises:
        BackupError: a process of Linewatch uses it, or it is not empty and should not be replaced.
    """
    with engine.connect() as connection:
        _check_target(connection, replace=replace)


def _check_target(connection: Connection, *, replace: bool) -> None:
    if running := database.other_processes(connection):
        raise BackupError(f"Linewatch is running on this database ({', '.join(running)}): stop it first")
    if not replace and database.is_used(connection):
        raise BackupError(
            "the database is not empty: restore into an empty one, or delete what it holds now with --replace"
        )


def check_backup(backup: Backup) -> Manifest:
    """Verify the checksums of the dump and of the list of images, and return the manifest.

    Raises:
        BackupError: a file is missing or damaged.
    """
    manifest = backup.read_manifest()
    for file, record in ((backup.dump, manifest.database), (backup.image_list, manifest.image_list)):
        if not file.is_file():
            raise BackupError(f"{file} is missing: name another backup with --name")
        if record_of(file) != record:
            raise BackupError(f"{file} is damaged (wrong checksum): name another backup with --name")
    return manifest


def restore_files(
    folder: BackupFolder, backup: Backup, manifest: Manifest, store: Store, *, skip_damaged: bool,
    on_progress: OnProgress,
) -> Copies:  # fmt: skip
    """Copy the files of a backup into the store.

    Args:
        skip_damaged: whether to go on without files that are missing or damaged in the backup.

    Raises:
        BackupError: files are missing or damaged in the backup.
        OSError: the store cannot be written.
    """
    copies, total = Copies(), manifest.images + len(manifest.files)

    def record(copy: Copy) -> None:
        copies.add(copy)
        on_progress("files", copies.total, total)

    copy_files(folder.store(), store, _files_of(backup, manifest), record, verify_kept=True)
    if (bad := [*copies.missing, *copies.damaged]) and not skip_damaged:
        raise BackupError(
            f"{len(bad)} files are missing or damaged in {folder.path}/store, such as {', '.join(bad[:_NAMED])}: "
            "use another copy of the backup, or go on without them with --skip-damaged; the database was not touched"
        )
    return copies


def _files_of(backup: Backup, manifest: Manifest) -> Iterator[File]:
    """Yield the files of a backup, without those that it never had."""
    absent = {*manifest.removed, *manifest.lost}
    others = (File(key, record.bytes, record.sha256) for key, record in manifest.files.items())
    return (file for file in chain(list_images(backup), others) if file.key not in absent)


def restore_database(
    engine: Engine, backup: Backup, manifest: Manifest, *, pg_restore: Path, replace: bool
) -> dict[str, int]:
    """Replace the database by the backup's, and return the number of rows of each table.

    Raises:
        BackupError: see `check_target`; `pg_restore` failed, or the numbers of rows differ from those of the backup.
    """
    with engine.begin() as connection:
        database.lock_all(connection)
        _check_target(connection, replace=replace)  # a system may have been started while files were copied
        database.drop_all(connection)
    database.load(pg_restore, engine, backup.dump)
    with engine.connect() as connection:
        rows = database.count_rows(connection)
    if wrong := [name for name in rows.keys() | manifest.rows if rows.get(name) != manifest.rows.get(name)]:
        raise BackupError(f"the restored tables {', '.join(sorted(wrong))} differ from the backup: restore it again")
    return rows


def begin_epoch(engine: Engine) -> None:
    """Begin the feed's new epoch, and let the planner know the tables. The schema must be of this version."""
    with engine.begin() as connection:
        feed.number_entries(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
