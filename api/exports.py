"""Exports: tables as CSV or Parquet files. Shared by all export routes."""

import datetime as dt
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import chain
from typing import Annotated

from fastapi import Depends
from pydantic import Field

from api.responses.downloads import Download
from api.responses.schemas import binary
from api.services import Context, Services
from core.documents import exports
from core.documents.exports import Column, Format, Page

FileFormat = Annotated[Format, Field(description="CSV (RFC 4180, UTF-8, a header line) or Parquet (zstd)")]
FILE = binary(*(kind.partition(";")[0] for kind in exports.MEDIA_TYPES.values()))
FILE[200]["description"] = "The file, in chunks. Without the last chunk the download is incomplete."


async def _download_slot(services: Context) -> AsyncIterator[None]:
    """Occupy a download slot until the file is sent or the client disconnects."""
    with services.downloads.slot():
        yield


DOWNLOAD_SLOT = Depends(_download_slot)
"""A dependency that every route that responds with `send` needs."""


async def send(
    services: Services, pages: Iterator[Page], columns: Sequence[Column], kind: Format, name: str
) -> Download:
    """Stream pages as one file of any length, with the current time in its name. `pages` yields at least one page."""
    first = await services.downloads.step(pages)  # before the response starts: an error still sets its status
    assert first is not None  # noqa: S101 - see above
    return Download(
        services.downloads.stream(exports.WRITERS[kind](chain([first], pages), columns)),
        media_type=exports.MEDIA_TYPES[kind],
        headers={
            "Content-Disposition": f'attachment; filename="{name}-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.{kind}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )
