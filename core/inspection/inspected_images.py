"""The images of inspections: where they are, and which good parts were inspected about the same time."""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, and_, func, literal, select, text

from core.errors import Code, Refused
from core.inspection.inspections import unknown_inspection
from core.inspection.review_decisions import decisions
from core.models.bit_depths import BitDepth
from core.tables import images, inspections

NEAR = 100
"""The most good parts on each side of an inspection."""
SEARCHED = 1000
"""Inspections on each side among which good parts are searched. It limits the cost if there are few of them."""

_MAY_BE_DEEP = ("image/png", "image/tiff")
"""The formats that may hold grey of more than 8 bits."""
_COLUMNS = ("id", "image_day", "image_sha256", "model_version_id")


@dataclass(frozen=True)
class InspectedImage:
    """The stored image of an inspection.

    Attributes:
        day, sha256: where it is in the store.
        bit_depth: that of the training images of the version that scored it, by which grey of more than 8 bits is
            scaled for people; None if no version scored it, and for formats of 8 bits.
        final: whether the inspection is final, so that this does not change any more.
        removed_at: when retention removed the file; None while it is stored.
    """

    inspection_id: UUID
    day: dt.date
    sha256: bytes
    bit_depth: BitDepth | None
    final: bool
    removed_at: dt.datetime | None

    def check_stored(self) -> None:
        """Check that the file is still in the store.

        Raises:
            Refused: IMAGE_EXPIRED.
        """
        check_stored(self.removed_at)


def check_stored(removed_at: dt.datetime | None) -> None:
    """Check that an image that was removed then is still in the store.

    Raises:
        Refused: IMAGE_EXPIRED.
    """
    if removed_at is not None:
        raise Refused(
            Code.IMAGE_EXPIRED,
            f"The image was removed on {removed_at:%Y-%m-%d}: its time of retention has ended. The result is kept.",
        )


def check_recorded(connection: Connection, day: dt.date, sha256: bytes) -> None:
    """Check that an image is still in the store.

    Raises:
        Refused: IMAGE_EXPIRED.
    """
    condition = and_(images.c.day == day, images.c.sha256 == sha256, images.c.removed_at.is_(None))
    if connection.execute(select(images.c.day).where(condition)).one_or_none() is None:
        raise Refused(Code.IMAGE_EXPIRED, "The image was removed: its time of retention has ended.")


_IMAGE = text("""
SELECT inspection.*, images.media_type, images.removed_at
FROM (
    SELECT id, recipe_id, view, image_day, image_sha256, model_version_id, false AS final FROM work WHERE id = :id
    UNION ALL
    SELECT id, recipe_id, view, image_day, image_sha256, model_version_id, true FROM inspections WHERE id = :id
) AS inspection
JOIN images ON images.day = inspection.image_day AND images.sha256 = inspection.image_sha256
""")
_BIT_DEPTHS = text("""
SELECT id, CAST(manifest #>> '{preprocessing,bit_depth}' AS integer) AS bit_depth FROM model_versions
WHERE id = ANY(CAST(:ids AS bigint[]))
""")


def _good_parts(inspection: Row[Any], *, newer: bool) -> Select[Any]:
    """Select the good parts after or before an inspection, the nearest first; see `good_parts_near`."""
    column = inspections.c.id
    near = (
        select(*(inspections.c[name] for name in (*_COLUMNS, "view", "verdict")))
        .where(
            inspections.c.recipe_id == inspection.recipe_id,
            column > inspection.id if newer else column < inspection.id,
        )
        .order_by(column.asc() if newer else column.desc())
        .limit(SEARCHED)
        .subquery("near")
    )
    decided = decisions().subquery("decided")
    reviewed = select(decided.c.verdict).where(decided.c.inspection_id == near.c.id).scalar_subquery()
    return (
        select(
            *(near.c[name] for name in _COLUMNS),
            literal(True).label("final"),
            images.c.media_type,
            images.c.removed_at,
        )
        .join(images, and_(images.c.day == near.c.image_day, images.c.sha256 == near.c.image_sha256))
        .where(func.coalesce(reviewed, near.c.verdict) == "ok", near.c.view.is_not_distinct_from(inspection.view))
        .where(images.c.removed_at.is_(None))
        .order_by(near.c.id.asc() if newer else near.c.id.desc())
        .limit(NEAR)
    )


def get(connection: Connection, inspection_id: UUID) -> InspectedImage:
    """Return the image of an inspection, in flight or finished.

    Raises:
        Refused: NOT_FOUND.
    """
    return _images(connection, [_row(connection, inspection_id)])[0]


def good_parts_near(connection: Connection, inspection_id: UUID) -> list[InspectedImage]:
    """Return the good parts that were inspected about the same time, from the nearest on.

    They are inspections of the same recipe and view whose effective verdict is ok: up to `NEAR` older ones and as many
    newer ones, with different images.

    Raises:
        Refused: NOT_FOUND.
    """
    inspection = _row(connection, inspection_id)
    older, newer = (connection.execute(_good_parts(inspection, newer=side)).all() for side in (False, True))
    nearest_first = (row for row in chain.from_iterable(zip_longest(older, newer)) if row is not None)
    return _images(connection, _with_different_images(nearest_first, inspection.image_sha256))


def _row(connection: Connection, inspection_id: UUID) -> Row[Any]:
    row = connection.execute(_IMAGE, {"id": inspection_id}).one_or_none()
    if row is None:
        raise unknown_inspection(connection, inspection_id)
    return row


def _with_different_images(rows: Iterable[Row[Any]], sha256: bytes) -> Iterator[Row[Any]]:
    """Yield the first row of each image, without those of the image `sha256`."""
    seen = {bytes(sha256)}
    for row in rows:
        image = bytes(row.image_sha256)
        if image not in seen:
            seen.add(image)
            yield row


def _images(connection: Connection, rows: Iterable[Row[Any]]) -> list[InspectedImage]:
    rows = list(rows)
    versions = {row.model_version_id for row in rows if row.media_type in _MAY_BE_DEEP} - {None}
    depths = {row.id: row.bit_depth for row in connection.execute(_BIT_DEPTHS, {"ids": list(versions)})}
    return [
        InspectedImage(
            row.id,
            row.image_day,
            bytes(row.image_sha256),
            depths.get(row.model_version_id) if row.media_type in _MAY_BE_DEEP else None,
            row.final,
            row.removed_at,
        )
        for row in rows
    ]
