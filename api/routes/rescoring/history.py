"""`/v1/inspections/{id}/rescores`: what re-scoring runs and challengers found for an inspection."""

from uuid import UUID

from fastapi import APIRouter

from api.requests.parameters import Limit, decode_cursor, encode_cursor
from api.responses.problems import refuses
from api.responses.related_inspections import InspectionRescorePage
from api.services import Context
from core.errors import Code
from core.inspection import inspections
from core.rescoring.reports import history
from core.rescoring.reports.documents import InspectionRescore

router = APIRouter(prefix="/v1/inspections/{inspection_id}/rescores", tags=["re-scoring"])


@router.get("", responses=refuses(Code.INVALID_CURSOR))
def list_inspection_rescores(
    inspection_id: UUID, services: Context, cursor: str | None = None, limit: Limit = 100
) -> InspectionRescorePage:
    """List the results that re-scoring runs and challengers have for an inspection, the newest run first.

    They change nothing in the inspection itself. An inspection that no run has scored has no items.
    """
    with services.transaction() as connection:
        inspections.get(connection, inspection_id)
        items, following = history.list_page(connection, inspection_id, before=decode_cursor(cursor), limit=limit)
    return InspectionRescorePage(
        items=[InspectionRescore.from_rescore(rescore) for rescore in items], next_cursor=encode_cursor(following)
    )
