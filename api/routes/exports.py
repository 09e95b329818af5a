"""`/v1/inspections/export`: the listing as one file."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.exports import DOWNLOAD_SLOT, FILE, FileFormat, send
from api.responses.downloads import Download
from api.responses.problems import refuses
from api.routes.inspections import ListingFilters
from api.services import Context
from core.documents import exports
from core.documents.exports import Format
from core.errors import Code

router = APIRouter(prefix="/v1/inspections", tags=["inspections"])


class _Export(ListingFilters):
    """The filters of a listing, and the kind of file."""

    format: FileFormat = Format.CSV


@router.get("/export", response_class=Download, responses=FILE | refuses(Code.BUSY), dependencies=[DOWNLOAD_SLOT])
async def export_inspections(wanted: Annotated[_Export, Query()], services: Context) -> Download:
    """Inspections as one file, newest first, with the filters of the listing; of any length.

    One flat row each: the fields of an Inspection, the newest review, `metadata` as JSON text. Times are UTC. What is
    accepted during the download is not in it. If the database goes away meanwhile, or the client takes nothing for a
    minute, the answer breaks off without its last chunk. 503 `busy` while others download as many files as there may
    be at a time.
    """
    name = "-".join(filter(None, ("inspections", wanted.recipe)))
    return await send(services, exports.pages(services.engine, wanted.filters()), exports.COLUMNS, wanted.format, name)
