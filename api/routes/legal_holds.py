"""`/v1/legal-holds`: keep everything of a lot or a part, whatever the retention of its recipe says."""

import datetime as dt
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api.requests.parameters import Label, Limit, Reason, decode_cursor, encode_cursor
from api.responses.problems import refuses
from api.services import Actor, Context
from core.errors import Code
from core.retention import holds

router = APIRouter(prefix="/v1/legal-holds", tags=["retention"])

State = Literal["active", "released"]


class LegalHold(BaseModel):
    """A hold on a lot or on a part, of all recipes. The last three fields are null while it is active."""

    id: UUID
    lot_id: str | None
    part_id: str | None
    reason: str
    actor: str = Field(description="who set it")
    created_at: dt.datetime
    released_at: dt.datetime | None
    released_by: str | None
    release_reason: str | None

    @classmethod
    def of(cls, hold: holds.Hold) -> Self:
        return cls(**vars(hold))


class LegalHoldPage(BaseModel):
    """One page of holds, newest first. `next_cursor` is null on the last page."""

    items: list[LegalHold]
    next_cursor: str | None


class NewLegalHold(BaseModel):
    """A hold to set: on a lot or on a part."""

    model_config = ConfigDict(extra="forbid")

    lot_id: Label | None = None
    part_id: Label | None = None
    reason: Reason


class HoldRelease(BaseModel):
    """Why a hold ends."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason


@router.get("", responses=refuses(Code.INVALID_CURSOR))
def list_legal_holds(
    services: Context,
    state: Annotated[State | None, Query(description="without it, all holds")] = None,
    lot_id: Label | None = None,
    part_id: Label | None = None,
    cursor: str | None = None,
    limit: Limit = 100,
) -> LegalHoldPage:
    """List legal holds, newest first. With `lot_id` and `part_id`, list the holds on either of them."""
    with services.transaction() as connection:
        items, following = holds.list_page(
            connection, state=state, lot_id=lot_id, part_id=part_id, before=decode_cursor(cursor), limit=limit
        )
    return LegalHoldPage(items=[LegalHold.of(hold) for hold in items], next_cursor=encode_cursor(following))


@router.post("", status_code=201)
def set_legal_hold(new: NewLegalHold, response: Response, services: Context, actor: Actor) -> LegalHold:
    """Set a hold on a lot or a part. Once you get the response, nothing of it is removed until the hold is released.

    It keeps the inspections with this `lot_id` or `part_id`, their reviews and their images. Images that were removed
    before stay removed.
    """
    with services.transaction() as connection:
        hold = holds.add(connection, **dict(new), actor=actor)
    response.headers["Location"] = f"/v1/legal-holds/{hold.id}"
    return LegalHold.of(hold)


@router.get("/{hold_id}")
def get_legal_hold(hold_id: UUID, services: Context) -> LegalHold:
    """Get a legal hold."""
    with services.transaction() as connection:
        return LegalHold.of(holds.get(connection, hold_id))


@router.post("/{hold_id}/release", responses=refuses(Code.INVALID_TRANSITION))
def release_legal_hold(hold_id: UUID, release: HoldRelease, services: Context, actor: Actor) -> LegalHold:
    """Release a hold. What it kept goes by the `retention` of its recipe, unless another hold keeps it."""
    with services.transaction() as connection:
        return LegalHold.of(holds.release(connection, hold_id, reason=release.reason, actor=actor))
