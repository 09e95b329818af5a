"""Webhook deliveries: list them with their tries, and send them again."""

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
    """The query of a listing."""

    state: State | None = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("/v1/webhook-endpoints/{endpoint_id}/deliveries", responses=refuses(Code.INVALID_CURSOR))
def list_deliveries(
    endpoint_id: UUID, listing: Annotated[_Listing, Query()], services: Context, is_admin: IsAdmin
) -> DeliveryPage:
    """List the deliveries of an endpoint, newest first, with all tries. Only the scope `admin` gets complete URLs."""
    before = decode_cursor(listing.cursor)
    with services.transaction() as connection:
        endpoints.get(connection, endpoint_id)
        items, following = deliveries.list_page(
            connection, endpoint_id, state=listing.state, before=before, limit=listing.limit
        )
    documents = [Delivery.of(delivery, with_path=is_admin) for delivery in items]
    return DeliveryPage(items=documents, next_cursor=encode_cursor(following))


@router.post("/v1/webhook-endpoints/{endpoint_id}/test", status_code=202, responses=refuses(Code.INVALID_TRANSITION))
def send_test(endpoint_id: UUID, services: Context) -> Delivery:
    """Send an `endpoint.test` event to an endpoint, whatever its `events` are. The delivery shows the outcome.

    It is signed and retried like any other event. 409 `invalid_transition` if the endpoint is not enabled.
    """
    with services.transaction() as connection:
        endpoints.get(connection, endpoint_id)
        return Delivery.of(deliveries.send_test(connection, endpoint_id))


@router.get("/v1/deliveries/{delivery_id}")
def get_delivery(delivery_id: UUID, services: Context, is_admin: IsAdmin) -> Delivery:
    """Get a delivery with all its tries. Only the scope `admin` gets the complete URL."""
    with services.transaction() as connection:
        return Delivery.of(deliveries.get(connection, delivery_id), with_path=is_admin)


@router.post("/v1/deliveries/{delivery_id}/replay", status_code=202, responses=refuses(Code.INVALID_TRANSITION))
def replay_delivery(delivery_id: UUID, services: Context) -> Delivery:
    """Send a delivery again, under the same `webhook-id`. A pending delivery is tried immediately.

    Events that were sent as a group are sent again as a group. 409 `invalid_transition` if the endpoint is not enabled.
    """
    with services.transaction() as connection:
        return Delivery.of(deliveries.replay(connection, delivery_id))
