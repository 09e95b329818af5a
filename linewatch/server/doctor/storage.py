"""Checks of the store: writable, room on its disk and how long it lasts, and the archives."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, text

from core.settings import Settings
from core.system.store_usage import Disk, disk
from linewatch.server.doctor.findings import Finding, Level

_TREND_DAYS = 7
_SOON_DAYS = 14


def folder_of(settings: Settings) -> Path:
    """Return the folder of the store."""
    return Path(unquote(urlsplit(settings.store_url).path))


def check_store(settings: Settings) -> list[Finding]:
    """Check that a file can be written durably."""
    from core.storage.image_store import Store

    folder = folder_of(settings)
    if not folder.is_dir():
        remedy = "create it, or change LINEWATCH_STORE_URL"
        return [Finding("store", "error", f"the folder {folder} does not exist", remedy)]
    try:
        Store(settings.store_url).check()
    except OSError as error:
        remedy = "check its permissions and the free space"
        return [Finding("store", "error", f"{folder} cannot be written: {error.strerror}", remedy)]
    return [Finding("store", "ok", f"{folder} can be written")]


def check_disk(settings: Settings, connection: Connection | None) -> list[Finding]:
    """Check the free space of the store's disk and, if the database can be read, how many days it lasts."""
    space = disk(folder_of(settings), settings.min_free_bytes)
    if space is None or not space.bytes:
        return []  # the check of the store says why
    daily = None if connection is None else _bytes_per_day(connection)
    share = space.free_bytes / space.bytes
    found = f"{space.free_bytes / 1e9:.1f} of {space.bytes / 1e9:.1f} GB free ({share:.0%})" + _trend(space, daily)
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


def _trend(space: Disk, daily: float | None) -> str:
    days = _days_left(space, daily)
    if daily is None or days is None:
        return ""
    return f"; images of {daily / 1e9:.2f} GB a day came in the last week: room for {days:.0f} days"


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
