"""Webhook endpoints: URLs that receive events, and their deliveries."""

import time
from collections.abc import AsyncGenerator, Sequence
from typing import Literal, TypedDict, Unpack
from uuid import UUID

from linewatch.http.request_bodies import as_text
from linewatch.operations.session import Session, url_path
from linewatch.types.results import Delivery, DeliveryPage, Endpoint

_TEST_POLL = 0.2  # seconds


class EndpointChanges(TypedDict, total=False):
    """The fields of a webhook endpoint that can change; absent fields stay. `recipes` None means all."""

    url: str
    events: Sequence[str]
    recipes: Sequence[str] | None
    description: str
    state: Literal["enabled", "disabled"]
    max_group_size: int
    max_group_delay_ms: int


class Endpoints(Session):
    """Operations on webhook endpoints and deliveries."""

    async def endpoints(self) -> list[Endpoint]:
        """All webhook endpoints."""
        return await self._list(Endpoint, url_path("webhook-endpoints"))

    async def endpoint(self, endpoint_id: UUID | str) -> Endpoint:
        """One webhook endpoint."""
        return await self._get(Endpoint, url_path("webhook-endpoints", endpoint_id))

    async def create_endpoint(
        self,
        url: str,
        events: Sequence[str],
        *,
        recipes: Sequence[str] | None = None,
        description: str = "",
        max_group_size: int = 1,
        max_group_delay_ms: int = 0,
    ) -> Endpoint:
        """Register a URL that receives events. Keep the `secret`: `verify_webhook` needs it, and it is not shown again.

        Example:
            endpoint = lw.create_endpoint("https://mes.plant.example/linewatch", ["inspection.completed"])
            print(endpoint.id, endpoint.secret)
            print(lw.test_endpoint(endpoint.id, wait=30).attempts)
            lw.delete_endpoint(endpoint.id)

        Args:
            url: an address that the system may send to (`LINEWATCH_WEBHOOK_ALLOW`).
            events: such as `inspection.completed`, `inspection.failed`, `inspection.reviewed`, `batch.completed`,
                `model.activated`, `drift.detected`; empty for an endpoint that only receives callbacks.
            recipes: only events of these recipes.
            max_group_size: how many events may come in one request.
            max_group_delay_ms: how long an event may wait for others, milliseconds.
        """
        new = {
            "url": url,
            "events": list(events),
            "recipes": list(recipes) if recipes is not None else None,
            "description": description,
            "max_group_size": max_group_size,
            "max_group_delay_ms": max_group_delay_ms,
        }
        return await self._post(Endpoint, url_path("webhook-endpoints"), new)

    async def change_endpoint(self, endpoint_id: UUID | str, **changes: Unpack[EndpointChanges]) -> Endpoint:
        """Change a webhook endpoint; `state="enabled"` enables it again."""
        return await self._patch(Endpoint, url_path("webhook-endpoints", endpoint_id), changes)

    async def delete_endpoint(self, endpoint_id: UUID | str) -> None:
        """Delete a webhook endpoint. Its pending deliveries are not sent."""
        await self._delete(url_path("webhook-endpoints", endpoint_id))

    async def rotate_secret(self, endpoint_id: UUID | str) -> Endpoint:
        """Give a webhook endpoint a new `secret`. Requests are signed with both until `previous_secret_until`."""
        return await self._post(Endpoint, url_path("webhook-endpoints", endpoint_id, "rotate-secret"))

    async def test_endpoint(self, endpoint_id: UUID | str, *, wait: float = 0.0) -> Delivery:
        """Send an event `endpoint.test`. Returns its delivery after the first try or after `wait` seconds."""
        sent = await self._post(Delivery, url_path("webhook-endpoints", endpoint_id, "test"))
        give_up = time.monotonic() + wait
        while not sent.attempts and time.monotonic() < give_up:
            await self._executor.sleep(_TEST_POLL)
            sent = await self.delivery(sent.id)
        return sent

    async def deliveries(
        self,
        endpoint_id: UUID | str,
        *,
        state: Literal["pending", "delivered", "exhausted", "cancelled"] | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[Delivery, None]:
        """The deliveries of a webhook endpoint, newest first, with every try."""
        path = url_path("webhook-endpoints", endpoint_id, "deliveries")
        async for page in self._pages(DeliveryPage, path, {"limit": page_size, **as_text({"state": state})}):
            for delivery in page.items:
                yield delivery

    async def delivery(self, delivery_id: UUID | str) -> Delivery:
        """One delivery, with every try."""
        return await self._get(Delivery, url_path("deliveries", delivery_id))

    async def replay(self, delivery_id: UUID | str) -> Delivery:
        """Send a delivery again, under the same `webhook-id`."""
        return await self._post(Delivery, url_path("deliveries", delivery_id, "replay"))
