"""Deliveries of webhooks: list them with their tries, and send them again."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.requests.parameters import Limit, decode_cursor, encode_cursor
from api.responses.problems import refuses
from api.responses.schemas import Delivery, DeliveryPage
from api.services import Context, IsAdmin
from core.delivery import deliveries, endpoints
from core.delivery.deliveries import State
from core.errors import Code

router = APIRouter(tags=["webhooks"])


class _Listing(BaseModel):
    """The filter of a listing, its cursor and its size."""

    state: State | None = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("/v1/webhook-endpoints/{endpoint_id}/deliveries", responses=refuses(Code.INVALID_CURSOR))
def list_deliveries(
    endpoint_id: UUID, listing: Annotated[_Listing, Query()], services: Context, is_admin: IsAdmin
) -> DeliveryPage:
    """The deliveries of an endpoint, newest first, with every try. URLs are complete for the scope `admin` only."""
    before = decode_cursor(listing.cursor)
    with services.transaction() as connection:
        endpoints.get(connection, endpoint_id)
        items, following = deliveries.list_page(
            connection, endpoint_id, state=listing.state, before=before, limit=listing.limit
        )
    shown = [Delivery.of(delivery, with_path=is_admin) for delivery in items]
    return DeliveryPage(items=shown, next_cursor=encode_cursor(following))


@router.post("/v1/webhook-endpoints/{endpoint_id}/test", status_code=202, responses=refuses(Code.INVALID_TRANSITION))
def send_test(endpoint_id: UUID, services: Context) -> Delivery:
    """Send an `endpoint.test` to an endpoint, whatever its events. The delivery shows the outcome.

    It is signed and tried like any other. For an endpoint that is not enabled the answer is 409 `invalid_transition`.
    """
    with services.transaction() as connection:
        endpoints.get(connection, endpoint_id)
        return Delivery.of(deliveries.send_test(connection, endpoint_id))


@router.get("/v1/deliveries/{delivery_id}")
def get_delivery(delivery_id: UUID, services: Context, is_admin: IsAdmin) -> Delivery:
    """One delivery, with every try. Its URL is complete for the scope `admin` only."""
    with services.transaction() as connection:
        return Delivery.of(deliveries.get(connection, delivery_id), with_path=is_admin)


@router.post("/v1/deliveries/{delivery_id}/replay", status_code=202, responses=refuses(Code.INVALID_TRANSITION))
def replay_delivery(delivery_id: UUID, services: Context) -> Delivery:
    """Send a delivery again, under the same `webhook-id`; one that waits for its next try is tried at once.

    What was sent as a group is sent again as that group. 409 `invalid_transition` while its endpoint is not enabled.
    """
    with services.transaction() as connection:
        return Delivery.of(deliveries.replay(connection, delivery_id))
