"""The manifest of a backup. It is written last: a folder without one is not a backup."""

import datetime as dt
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION: Final = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]


class FileRecord(BaseModel):
    """The size and the SHA-256 of a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: Count
    sha256: Sha256


class Manifest(BaseModel):
    """What a backup holds.

    Attributes:
        created_at: the time of the snapshot, by the database's clock.
        linewatch, postgresql: the versions that wrote it.
        schema_version: the revision of the schema.
        database: the dump of the database.
        image_list: the list of the images; its lines are day, SHA-256 and size.
        images: how many images are in the list.
        files: model bundles and reports of trainings, by their store keys.
        removed: store keys of files that were removed between the snapshot and the copy, with their rows.
        lost: store keys of files that the store lacks or has with a wrong checksum, though the database refers to them.
        rows: the number of rows of each table, partitions included.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = FORMAT_VERSION
    created_at: dt.datetime
    linewatch: str
    postgresql: str
    schema_version: str
    database: FileRecord
    image_list: FileRecord
    images: Count
    files: dict[str, FileRecord]
    removed: list[str]
    lost: list[str]
    rows: dict[str, Count]
