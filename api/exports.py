"""Tables as files: what all exports have in common, whatever their rows are."""

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
FILE[200]["description"] = "The file, in chunks. One that breaks off before its last chunk is not whole."


async def _place(services: Context) -> AsyncIterator[None]:
    """Held until the file is sent, or its client has gone."""
    with services.downloads.place():
        yield


PLACE = Depends(_place)
"""The dependency of every route that answers with `send`."""


async def send(
    services: Services, pages: Iterator[Page], columns: Sequence[Column], kind: Format, name: str
) -> Download:
    """Pages as one file, of any length; the moment is added to its name. There is a first page, even an empty one."""
    first = await services.downloads.step(pages)  # while the answer has not begun, a refusal still has its status
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
