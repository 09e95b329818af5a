"""Checks of the store: writable, room on its disk and how long it lasts, and the archives."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, text

from core.settings import Settings
from core.storage.moving_store import MovingStore
from core.storage.stores import open_store
from core.system.store_usage import Disk, disk
from linewatch.server.doctor.findings import Finding, Level

_TREND_DAYS = 7
_SOON_DAYS = 14
_BUCKET_REMEDY = "check the AWS_* variables, LINEWATCH_STORE_URL, the rights to put objects, and LINEWATCH_SCRATCH"


def check_store(settings: Settings) -> list[Finding]:
    """Check that a file can be written durably and, while the store moves, that the old one can be listed."""
    missing = [url for url in _urls(settings) if _is_missing(url)]
    if missing:
        remedy = "create it, or change LINEWATCH_STORE_URL or LINEWATCH_STORE_READ_ALSO"
        return [Finding("store", "error", f"the folder {_folder(url)} does not exist", remedy) for url in missing]
    try:
        store = open_store(settings)
        store.check()
    except OSError as error:
        remedy = _BUCKET_REMEDY if settings.store_url.startswith("s3:") else "check its permissions and the free space"
        found = f"{_shown(settings.store_url)} cannot be written: {_reason(error)}"
        return [Finding("store", "error", found, remedy)]
    findings = [Finding("store", "ok", f"{_shown(settings.store_url)} can be written")]
    return findings + _check_old(store) if isinstance(store, MovingStore) else findings


def _check_old(store: MovingStore) -> list[Finding]:
    try:
        next(store.old.files(), None)
    except OSError as error:
        found = f"the store that it moves from cannot be read: {_reason(error)}"
        return [Finding("store", "error", found, "check LINEWATCH_STORE_READ_ALSO, and the rights to read it")]
    return [Finding("store", "note", "it is moving", "run `linewatch move-store` to copy all files")]


def _urls(settings: Settings) -> list[str]:
    also = settings.store_read_also
    return [settings.store_url] if also is None else [settings.store_url, also]


def _is_missing(url: str) -> bool:
    return url.startswith("file:") and not _folder(url).is_dir()


def _folder(url: str) -> Path:
    return Path(unquote(urlsplit(url).path))


def _shown(url: str) -> str:
    return str(_folder(url)) if url.startswith("file:") else url


def _reason(error: OSError) -> str:
    return error.strerror or f"{error}"


def read_disk(settings: Settings) -> Disk | None:
    """Return the size and the free space of the store's disk; None if it cannot be read. Creates no folder."""
    if any(map(_is_missing, _urls(settings))):
        return None
    try:
        return disk(open_store(settings), settings.min_free_bytes)
    except OSError:
        return None


def check_disk(settings: Settings, connection: Connection | None) -> list[Finding]:
    """Check the free space of the store's disk and, if the database can be read, how many days it lasts.

    With a bucket it is the disk of the scratch folder, which images only pass through.
    """
    space = read_disk(settings)
    if space is None or not space.bytes:
        return []  # the check of the store says why
    if space.of == "scratch":
        connection = None
    daily = None if connection is None else _bytes_per_day(connection)
    is_removed = connection is not None and _has_retention(connection)
    share = space.free_bytes / space.bytes
    found = f"{space.free_bytes / 1e9:.1f} of {space.bytes / 1e9:.1f} GB free ({share:.0%})"
    found += (
        " for the scratch folder of the bucket"
        if space.of == "scratch"
        else _trend(space, daily, is_removed=is_removed)
    )
    days = _days_left(space, daily)
    if not space.is_low and (days is None or days > _SOON_DAYS):
        return [Finding("disk", "ok", found)]
    level: Level = "error" if space.is_full else "warning"
    least = f"{space.min_free_bytes / 1e9:.1f} GB"
    return [Finding("disk", level, found, f"make room: with less than {least} uploads are refused (docs/retention.md)")]


def _bytes_per_day(connection: Connection) -> float:
    """Return the mean size of the images of the last whole days, or of those since the first image."""
    mean = connection.execute(
        text("""
            SELECT sum(bytes) / greatest(1, today - min(day))
            FROM store_days, (SELECT CAST(now() AT TIME ZONE 'UTC' AS date) AS today) AS _
            WHERE day >= today - CAST(:days AS integer) AND day < today GROUP BY today
        """),
        {"days": _TREND_DAYS},
    ).scalar()
    return 0.0 if mean is None else float(mean)


def _days_left(space: Disk, daily: float | None) -> float | None:
    return space.free_bytes / daily if daily else None


def _has_retention(connection: Connection) -> bool:
    query = text("SELECT EXISTS (SELECT FROM recipes WHERE retention <> 'null')")
    return bool(connection.execute(query).scalar_one())


def _trend(space: Disk, daily: float | None, *, is_removed: bool) -> str:
    days = _days_left(space, daily)
    if daily is None or days is None:
        return ""
    uncounted = ", and for more with what the retention of recipes removes" if is_removed else ""
    return f"; images of {daily / 1e9:.2f} GB a day came in the last week: room for {days:.0f} days{uncounted}"


def check_archives(settings: Settings) -> list[Finding]:
    """Check from this machine whether each archive root can be listed."""
    from core.storage.archive_location import ArchiveLocation
    from core.storage.archive_roots import Archives, ArchiveUnavailable

    def check(root: ArchiveLocation) -> Finding:
        try:
            root.check()
        except ArchiveUnavailable as unavailable:
            remedy = "create or mount it where scoring and io workers run, or change LINEWATCH_ARCHIVE_ROOTS"
            return Finding("archive", "error", str(unavailable), remedy)
        return Finding("archive", "ok", f"{root.url} can be listed")

    return [check(root) for root in Archives.of(settings).roots]
