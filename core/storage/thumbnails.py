"""Thumbnails in the store: made when somebody looks at an image, and deleted when nobody has for a while."""

import datetime as dt
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from core.models.bit_depths import BitDepth
from core.storage.image_store import GREY_SUFFIX, THUMBNAILS, Store, grey_key, image_key, thumbnail_key

KEPT_DAYS = 30
"""Thumbnails of images that were uploaded longer ago are kept for `KEPT_SECONDS` only."""
KEPT_SECONDS = 24 * 3600.0

_DAY = re.compile(r"\d{4}/\d{2}/\d{2}")

Message = tuple[str, str, BitDepth | None]
"""A `ThumbnailSource` in a message: the day, the SHA-256 in hexadecimal, and the bit depth."""


@dataclass(frozen=True)
class ThumbnailSource:
    """A stored image and how its grey levels are scaled for people.

    Attributes:
        day, sha256: where the image is.
        bit_depth: see `core.vision.input.bit_depth.decode_visible`; None for formats of 8 bits.
    """

    day: dt.date
    sha256: bytes
    bit_depth: BitDepth | None

    @property
    def image_key(self) -> str:
        return image_key(self.day, self.sha256)

    @property
    def key(self) -> str:
        """Store key of the thumbnail."""
        return thumbnail_key(self.day, self.sha256, self.bit_depth)

    @property
    def grey_key(self) -> str:
        """Store key of the grey copy; if the thumbnail is there, so is the copy."""
        return grey_key(self.key)

    def to_message(self) -> Message:
        return self.day.isoformat(), self.sha256.hex(), self.bit_depth

    @classmethod
    def from_message(cls, message: Message) -> Self:
        day, sha256, bit_depth = message
        return cls(dt.date.fromisoformat(day), bytes.fromhex(sha256), bit_depth)


def expire(store: Store, *, today: dt.date, at_most: int) -> int:
    """Delete thumbnails of old images. If somebody looks at such an image again, its thumbnail is made again.

    Only the folders of old images are read, and they hold no more than was looked at since yesterday.

    Args:
        today: the day in UTC.
        at_most: how many files to delete.

    Returns:
        How many were deleted.
    """
    made_before = time.time() - KEPT_SECONDS
    deleted = 0
    for folder in _old_folders(store.root / THUMBNAILS, today - dt.timedelta(days=KEPT_DAYS)):
        with suppress(FileNotFoundError):  # another process has deleted the folder
            deleted += _delete_files(folder, made_before, at_most - deleted)
        with suppress(OSError):  # it holds newer files
            folder.rmdir()
    return deleted


def _delete_files(folder: Path, made_before: float, at_most: int) -> int:
    deleted = 0
    for file in sorted(folder.iterdir()):
        if deleted == at_most:
            break
        if file.suffix == GREY_SUFFIX and file.with_suffix("").exists():
            continue  # a grey copy is deleted after its thumbnail, which sorts before it
        with suppress(FileNotFoundError):  # another process has deleted it
            if file.stat().st_mtime < made_before:
                file.unlink()
                deleted += 1
    return deleted


def _old_folders(root: Path, before: dt.date) -> Iterator[Path]:
    """Yield the folders of days before a day, oldest first."""
    for folder in sorted(root.glob("*/*/*")):
        day = folder.relative_to(root).as_posix()
        if _DAY.fullmatch(day) and day < f"{before:%Y/%m/%d}":
            yield folder
