"""`/v1/audit-events`: who changed what, and when. It needs the scope `admin`."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.requests.parameters import Label, Limit, Moment
from api.responses.access import AuditEvent, AuditEventPage
from api.responses.problems import refuses
from api.services import Context
from core.access import audit
from core.access.audit import Cursor, Filters
from core.errors import Code

router = APIRouter(prefix="/v1/audit-events", tags=["access"])


class _Listing(BaseModel):
    """The query of the listing. `since` is inclusive, `until` exclusive."""

    actor: Annotated[Label | None, Query(description="for example `key:0123456789ab`")] = None
    action: Annotated[Label | None, Query(description="for example `model.activated`")] = None
    subject: Annotated[Label | None, Query(description="for example `recipe:ring`")] = None
    since: Moment | None = None
    until: Moment | None = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("", responses=refuses(Code.INVALID_CURSOR))
def list_audit_events(listing: Annotated[_Listing, Query()], services: Context) -> AuditEventPage:
    """List audit events, newest first: changes of recipes, models, keys and so on, reviews, and sign-ins."""
    after = None if listing.cursor is None else Cursor.parse(listing.cursor)
    filters = Filters(**listing.model_dump(exclude={"cursor", "limit"}))
    with services.transaction() as connection:
        events, following = audit.list_page(connection, filters, after=after, limit=listing.limit)
    return AuditEventPage(
        items=[AuditEvent.of(event) for event in events], next_cursor=None if following is None else str(following)
    )
