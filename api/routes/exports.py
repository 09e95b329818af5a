"""`/v1/inspections/export`: download inspections as a file."""

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
    """The filters of the listing, and the file format."""

    format: FileFormat = Format.CSV


@router.get("/export", response_class=Download, responses=FILE | refuses(Code.BUSY), dependencies=[DOWNLOAD_SLOT])
async def export_inspections(query: Annotated[_Export, Query()], services: Context) -> Download:
    """Download inspections as one file, newest first, with the filters of the listing. The size is not limited.

    Each inspection is one flat row: the fields of an Inspection, the decisive review, and `metadata` as JSON text.
    Times are UTC. Inspections accepted during the download are not included. If the database becomes unavailable, or
    you read nothing for a minute, the response ends without its last chunk. 503 `busy` while the maximum number of
    exports is running.
    """
    name = "-".join(filter(None, ("inspections", query.recipe)))
    return await send(services, exports.pages(services.engine, query.filters()), exports.COLUMNS, query.format, name)
