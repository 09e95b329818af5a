"""`/v1/inspections/export`: the listing as one file."""

import datetime as dt
from collections.abc import AsyncIterator
from itertools import chain
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from api.context import Context
from api.downloads import Download
from api.problems import refuses
from api.routes.inspections import ListingFilters
from api.schemas import binary
from core import exports
from core.errors import Code
from core.exports import Format

router = APIRouter(prefix="/v1/inspections", tags=["inspections"])

_FILE = binary(*(kind.partition(";")[0] for kind in exports.MEDIA_TYPES.values()))
_FILE[200]["description"] = "The file, in chunks. One that breaks off before its last chunk is not whole."


class _Export(ListingFilters):
    """The filters of a listing, and the kind of file."""

    format: Annotated[Format, Field(description="CSV (RFC 4180, UTF-8, a header line) or Parquet (zstd)")] = Format.CSV


async def _place(services: Context) -> AsyncIterator[None]:
    """Held until the file is sent, or its client has gone."""
    with services.downloads.place():
        yield


@router.get("/export", response_class=Download, responses=_FILE | refuses(Code.BUSY), dependencies=[Depends(_place)])
async def export_inspections(wanted: Annotated[_Export, Query()], services: Context) -> Download:
    """Inspections as one file, newest first, with the filters of the listing; of any length.

    One flat row each: the fields of an Inspection, the newest review, `metadata` as JSON text. Times are UTC. What is
    accepted during the download is not in it. If the database goes away meanwhile, or the client takes nothing for a
    minute, the answer breaks off without its last chunk. 503 `busy` while others download as many files as there may
    be at a time.
    """
    pages = exports.pages(services.engine, wanted.filters())
    first = await services.downloads.step(pages)  # while the answer has not begun, a refusal still has its status
    assert first is not None  # noqa: S101 - there is a first page, even when it is empty
    name = "-".join(filter(None, ("inspections", wanted.recipe, f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}")))
    return Download(
        services.downloads.stream(exports.WRITERS[wanted.format](chain([first], pages))),
        media_type=exports.MEDIA_TYPES[wanted.format],
        headers={
            "Content-Disposition": f'attachment; filename="{name}.{wanted.format}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )
