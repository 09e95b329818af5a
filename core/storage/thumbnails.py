"""Thumbnails in the store: made when somebody looks at an image, and deleted when nobody has for a while."""

import datetime as dt
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Self

from core.models.bit_depths import BitDepth
from core.storage.image_store import GREY_SUFFIX, THUMBNAILS, Store, grey_key, image_key, thumbnail_key

KEPT_DAYS = 30
"""Thumbnails of images that were uploaded longer ago are kept for `KEPT_SECONDS` only."""
KEPT_SECONDS = 24 * 3600.0

_OF_A_DAY = re.compile(rf"{THUMBNAILS}/\d{{4}}/\d{{2}}/\d{{2}}/[^/]+")

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

    Only those of old images are listed, and they are no more than were looked at since yesterday.

    Args:
        today: the day in UTC.
        at_most: how many files to delete.

    Returns:
        How many were deleted.
    """
    old = list(islice(_old_files(store, today - dt.timedelta(days=KEPT_DAYS)), at_most))
    # The copies last: if a thumbnail is there, so is its copy.
    deleted = store.delete(key for key in old if not key.endswith(GREY_SUFFIX))
    return deleted + store.delete(key for key in old if key.endswith(GREY_SUFFIX))


def _old_files(store: Store, before: dt.date) -> Iterator[str]:
    """Yield the keys that may be deleted, of days before a day, oldest first; a grey copy follows its thumbnail."""
    made_before = time.time() - KEPT_SECONDS
    end = f"{THUMBNAILS}/{before:%Y/%m/%d}"
    kept = ""
    for file in store.files(THUMBNAILS):
        if file.key >= end:
            return
        if not _OF_A_DAY.fullmatch(file.key) or file.key == grey_key(kept):
            continue
        if file.modified_at < made_before:
            yield file.key
        elif file.key.endswith(".jpg"):
            kept = file.key
