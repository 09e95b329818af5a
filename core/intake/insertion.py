"""Insert accepted inspections and their images: one statement for any number of them.

The rows are sent as one JSON document. That costs the client and PostgreSQL less than a parameter for each value, and
less than an array for each column.
"""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

_WORK = {
    "id": "uuid",
    "recipe_id": "bigint",
    "priority": "text",
    "batch_id": "uuid",
    "external_id": "text",
    "part_id": "text",
    "view": "text",
    "lot_id": "text",
    "line_id": "text",
    "station_id": "text",
    "metadata": "jsonb",
    "captured_at": "timestamptz",
    "deadline_at": "timestamptz",
    "callback_endpoint_id": "uuid",
    "callback_url": "text",
    "image_day": "date",
    "image_sha256": "bytea",
    "api_key": "text",
    "trace_context": "text",
}
_IMAGE = {"media_type": "text", "width": "int", "height": "int", "bytes": "bigint"}

# The images are sorted, so that two groups with the same images cannot deadlock.
_INSERT = text(f"""
WITH new AS MATERIALIZED (
    SELECT * FROM json_to_recordset(CAST(:rows AS json))
    AS _({", ".join(f"{name} {kind}" for name, kind in (_WORK | _IMAGE).items())})
), stored AS (
    INSERT INTO images (day, sha256, media_type, width, height, bytes)
    SELECT DISTINCT ON (image_day, image_sha256) image_day, image_sha256, media_type, width, height, bytes
    FROM new ORDER BY image_day, image_sha256
    ON CONFLICT DO NOTHING
), queued AS (
    INSERT INTO work ({", ".join(_WORK)}, published_at) SELECT {", ".join(_WORK)}, now() FROM new
)
SELECT id, metadata, captured_at, deadline_at FROM new
""")  # noqa: S608 - the names are constants


@dataclass(frozen=True)
class Inserted:
    """The columns of an inserted inspection whose stored value may differ in form from the value that was sent."""

    metadata: dict[str, Any]
    captured_at: dt.datetime | None
    deadline_at: dt.datetime | None


def insert(connection: Connection, rows: Sequence[dict[str, Any]]) -> dict[UUID, Inserted]:
    """Insert inspections, marked as published, and those of their images that are not stored yet.

    Args:
        rows: the columns of `work` and, of the image, `media_type`, `width`, `height` and `bytes`. A column that is
            left out is null; `metadata` is not.
    """
    document = json.dumps(rows, default=_for_json, ensure_ascii=False)
    return {
        row.id: Inserted(row.metadata, row.captured_at, row.deadline_at)
        for row in connection.execute(_INSERT, {"rows": document})
    }


def _for_json(value: UUID | dt.date | bytes) -> str:
    """Return a value in the form in which PostgreSQL reads it."""
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    return value.isoformat() if isinstance(value, dt.date) else str(value)
