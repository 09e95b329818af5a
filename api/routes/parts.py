"""`/v1/parts`: one verdict for a part with several images."""

from fastapi import APIRouter

from api.requests.parameters import Label, RecipeName
from api.responses.schemas import Part
from api.services import Context
from core.inspection import parts

router = APIRouter(prefix="/v1/parts", tags=["parts"])


@router.get("/{part_id:path}")
def get_part(part_id: Label, services: Context, recipe: RecipeName | None = None, lot_id: Label | None = None) -> Part:
    """Get a part: the newest inspection of each recipe and view, and the verdict based on them.

    The id is the rest of the path and may contain slashes.
    """
    with services.transaction() as connection:
        return Part.of(parts.get(connection, part_id, recipe=recipe, lot_id=lot_id))
