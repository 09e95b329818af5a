"""`/v1/inspections/export`: the listing as one file."""

import datetime as dt
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from api.context import Context
from api.routes.inspections import ListingFilters
from core import exports
from core.exports import Format

router = APIRouter(prefix="/v1/inspections", tags=["inspections"])

_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
            for kind in exports.MEDIA_TYPES.values()
        },
        "description": "The file, in chunks. One that breaks off before its last chunk is not whole.",
    }
}


class _Export(ListingFilters):
    """The filters of a listing, and the kind of file."""

    format: Annotated[Format, Field(description="CSV (RFC 4180, UTF-8, a header line) or Parquet (zstd)")] = Format.CSV


@router.get("/export", response_class=StreamingResponse, responses=_FILE)
def export_inspections(wanted: Annotated[_Export, Query()], services: Context) -> StreamingResponse:
    """Inspections as one file, newest first, with the filters of the listing; of any length.

    One flat row each: the fields of an Inspection, the newest review, `metadata` as JSON text. Times are UTC. What is
    accepted during the download is not in it. If the database goes away meanwhile, the answer breaks off without its
    last chunk.
    """
    pages = exports.pages(services.engine, wanted.filters())
    first = next(pages)  # while the answer has not begun, a refusal still has its status
    name = "-".join(filter(None, ("inspections", wanted.recipe, f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}")))
    return StreamingResponse(
        exports.WRITERS[wanted.format](chain([first], pages)),
        media_type=exports.MEDIA_TYPES[wanted.format],
        headers={
            "Content-Disposition": f'attachment; filename="{name}.{wanted.format}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )
