"""Save a backup while the system runs.

The snapshot of the database comes first, then the files that it refers to. An image is stored before its row is
committed and files never change, so every file of the snapshot was complete. Files that are removed before they are
copied are noticed and listed.
"""

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text

from core.backup import BackupError, database
from core.backup.files import Copies, Copy, File, copy_files
from core.backup.folder import Backup, BackupFolder, record_of
from core.backup.manifest import FileRecord, Manifest
from core.storage.image_store import Store, bundle_key, image_key, training_report_key

OnProgress = Callable[[str, int, int | None], None]
"""Called with the current step, how much of it is done, and how much there is (None if unknown)."""

_ASKED_AT_ONCE = 1000
# Retention marks an image whose file it has removed while the row is needed. Older schemas have no such column.
_HAS_FILE = "to_jsonb(images) ->> 'removed_at' IS NULL"


@dataclass(frozen=True)
class Saved:
    """A new backup, and what was copied for it."""

    path: Path
    manifest: Manifest
    copies: Copies


@dataclass
class _Snapshot:
    """What is known about the snapshot."""

    created_at: dt.datetime
    postgresql: str
    schema_version: str
    rows: Mapping[str, int]
    images: int
    """Those in the list of images."""
    others: list[str]
    """Store keys of model bundles and of reports of trainings."""


@dataclass
class _Files:
    """What became of the files of a backup, with records of all but the images, whose keys hold their checksums."""

    copies: Copies = field(default_factory=Copies)
    records: dict[str, FileRecord] = field(default_factory=dict)

    def add(self, copy: Copy) -> None:
        self.copies.add(copy)
        key, size, sha256 = copy.file.key, copy.file.bytes, copy.file.sha256
        is_there = copy.outcome in ("copied", "kept")
        if is_there and size is not None and sha256 is not None and _day_and_sha256(key) is None:
            self.records[key] = FileRecord(bytes=size, sha256=sha256)


def save(engine: Engine, store: Store, folder: BackupFolder, *, pg_dump: Path, on_progress: OnProgress) -> Saved:
    """Save a backup to a folder, which may hold earlier ones: files that they have are not copied again.

    Hold the folder's lock.

    Args:
        engine: without timeouts.
        pg_dump: the program, of the server's version or newer.

    Raises:
        BackupError: the database has no schema, or `pg_dump` failed. The backup stays marked as incomplete.
        OSError: the folder or the store cannot be used. Again, the backup stays marked as incomplete.
    """
    draft = folder.begin()
    known = folder.find(None).read_manifest().files if folder.names else {}
    on_progress("database", 0, None)
    facts = _read_snapshot(engine, draft, pg_dump)
    others = [_known_file(key, known.get(key)) for key in facts.others]
    total = facts.images + len(others)
    files = _Files()

    def record(copy: Copy) -> None:
        files.add(copy)
        on_progress("files", files.copies.total, total)

    copy_files(store, folder.store(), chain(list_images(draft), others), record)
    on_progress("checksums", 0, None)
    removed, lost = _explain(engine, [*files.copies.missing, *files.copies.damaged])
    manifest = Manifest(
        created_at=facts.created_at,
        linewatch=version("linewatch"),
        postgresql=facts.postgresql,
        schema_version=facts.schema_version,
        database=record_of(draft.dump),
        image_list=record_of(draft.image_list),
        images=facts.images,
        files=files.records,
        removed=removed,
        lost=lost,
        rows=dict(facts.rows),
    )
    return Saved(folder.complete(draft, manifest).path, manifest, files.copies)


def list_images(backup: Backup) -> Iterator[File]:
    """Yield the images of a backup."""
    with backup.image_list.open() as lines:
        for line in lines:
            day, sha256, size = line.rstrip("\n").split("\t")
            yield File(image_key(dt.date.fromisoformat(day), bytes.fromhex(sha256)), int(size), sha256)


def _read_snapshot(engine: Engine, draft: Backup, pg_dump: Path) -> _Snapshot:
    """Write the dump and the list of images of one snapshot."""
    with database.snapshot(engine) as (connection, name):
        if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
            raise BackupError("the database is empty: nothing to back up (see `linewatch doctor`)")
        row = connection.execute(
            text("SELECT now(), current_setting('server_version'), version_num FROM alembic_version")
        ).one()
        facts = _Snapshot(
            created_at=row[0],
            postgresql=row[1],
            schema_version=row[2],
            rows=database.count_rows(connection),
            images=_write_image_list(connection, draft),
            others=sorted(_other_keys(connection)),
        )
        database.dump(pg_dump, engine, name, draft.dump)
    return facts


def _other_keys(connection: Connection) -> Iterator[str]:
    """Yield the keys of the model bundles and of the reports of trainings."""
    kept = "version.state <> 'retired'"
    bundles = f"SELECT DISTINCT sha256 FROM model_versions AS version WHERE {kept}"  # noqa: S608 - a constant
    for sha256 in connection.execute(text(bundles)).scalars():
        yield bundle_key(sha256)
    if connection.execute(text("SELECT to_regclass('training_runs')")).scalar_one() is None:  # an older schema
        return
    reports = f"""
        SELECT run.id FROM training_runs AS run JOIN model_versions AS version ON version.id = run.model_version_id
        WHERE run.state = 'completed' AND {kept}
    """  # noqa: S608 - a constant
    for run_id in connection.execute(text(reports)).scalars():
        yield training_report_key(run_id)


def _write_image_list(connection: Connection, draft: Backup) -> int:
    """Write the list of the images that have a file. Returns how many they are."""
    query = f"""
        COPY (SELECT day, encode(sha256, 'hex'), bytes FROM images WHERE {_HAS_FILE} ORDER BY day, images.sha256)
        TO STDOUT
    """  # noqa: S608 - a constant
    driver: Any = connection.connection.driver_connection
    number = 0
    with draft.image_list.open("wb") as file, driver.cursor() as cursor, cursor.copy(query) as rows:
        for block in rows:
            number += bytes(block).count(b"\n")
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return number


def _known_file(key: str, record: FileRecord | None) -> File:
    return File(key, None, None) if record is None else File(key, record.bytes, record.sha256)


def _explain(engine: Engine, keys: list[str]) -> tuple[list[str], list[str]]:
    """Tell apart the keys of files whose rows were removed meanwhile, and those that the database still refers to."""
    if not keys:
        return [], []
    with engine.connect() as connection:
        needed = set(_other_keys(connection))
        images = [key for key in keys if _day_and_sha256(key) is not None]
        for first in range(0, len(images), _ASKED_AT_ONCE):
            needed |= _recorded_images(connection, images[first : first + _ASKED_AT_ONCE])
    return [key for key in keys if key not in needed], [key for key in keys if key in needed]


def _recorded_images(connection: Connection, keys: list[str]) -> set[str]:
    wanted = [found for key in keys if (found := _day_and_sha256(key)) is not None]
    rows = connection.execute(
        text(f"""
            SELECT images.day, images.sha256
            FROM unnest(CAST(:days AS date[]), CAST(:digests AS bytea[])) AS wanted(day, sha256)
            JOIN images ON images.day = wanted.day AND images.sha256 = wanted.sha256 AND {_HAS_FILE}
        """),  # noqa: S608 - a constant
        {"days": [day for day, _ in wanted], "digests": [digest for _, digest in wanted]},
    )
    return {image_key(row.day, row.sha256) for row in rows}


def _day_and_sha256(key: str) -> tuple[dt.date, bytes] | None:
    """Return the day and the digest of the key of an image; None for other keys."""
    day, _, digest = key.rpartition("/")
    try:
        return dt.datetime.strptime(day, "%Y/%m/%d").replace(tzinfo=dt.UTC).date(), bytes.fromhex(digest)
    except ValueError:
        return None
