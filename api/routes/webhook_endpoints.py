"""`/v1/webhook-endpoints`: register endpoints, their events and their secrets."""

from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.requests.parameters import Description, OrLeftOut, RecipeName, Url
from api.responses.problems import refuses
from api.responses.schemas import NewWebhookEndpoint, RotatedSecret, WebhookEndpoint, WebhookEndpointList
from api.services import Actor, Context, IsAdmin
from core.delivery import endpoints
from core.errors import Code
from core.feed.events import EventType

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"])


def _can_be_subscribed(event: EventType) -> EventType:
    if event is EventType.ENDPOINT_TEST:
        raise ValueError("endpoint.test is sent on request only")
    return event


AnyName = TypeVar("AnyName", bound=str)


def _deduplicate(names: list[AnyName]) -> list[AnyName]:
    return sorted(set(names))


Events = Annotated[
    list[Annotated[EventType, AfterValidator(_can_be_subscribed)]],
    Field(max_length=len(EventType), description="empty for an endpoint that only receives callbacks"),
    AfterValidator(_deduplicate),
]
Recipes = Annotated[
    list[RecipeName],
    Field(min_length=1, max_length=1000, description="names, which need not exist yet; null for all recipes"),
    AfterValidator(_deduplicate),
]
GroupSize = Annotated[int, Field(ge=1, le=1000, description="the maximum number of events in one call")]
GroupDelay = Annotated[int, Field(ge=0, le=60_000, description="how long an event may wait to be grouped with others")]


class WebhookEndpointRegistration(BaseModel):
    """An endpoint to register."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Events
    recipes: Recipes | None = None
    description: Description = ""
    max_group_size: GroupSize = 1
    max_group_delay_ms: GroupDelay = 0


class WebhookEndpointChanges(BaseModel):
    """Changes to an endpoint. Omitted fields keep their values. Only `recipes` may be null: all recipes."""

    model_config = ConfigDict(extra="forbid")

    url: OrLeftOut[Url] = None
    events: OrLeftOut[Events] = None
    recipes: Recipes | None = None
    description: OrLeftOut[Description] = None
    state: OrLeftOut[Literal["enabled", "disabled"]] = None
    max_group_size: OrLeftOut[GroupSize] = None
    max_group_delay_ms: OrLeftOut[GroupDelay] = None

    @property
    def settings(self) -> dict[str, Any]:
        """The columns to set."""
        return self.model_dump(mode="json", exclude_unset=True, exclude={"state"})


@router.get("")
def list_webhook_endpoints(services: Context, is_admin: IsAdmin) -> WebhookEndpointList:
    """List all endpoints, oldest first, without their secrets. Only the scope `admin` gets complete URLs."""
    with services.transaction() as connection:
        items = [WebhookEndpoint.of(endpoint, with_path=is_admin) for endpoint in endpoints.list_all(connection)]
    return WebhookEndpointList(items=items)


@router.post("", status_code=201, responses=refuses(Code.WEBHOOK_TARGET_REFUSED))
def create_webhook_endpoint(
    new: WebhookEndpointRegistration, response: Response, services: Context, actor: Actor
) -> NewWebhookEndpoint:
    """Register an endpoint. `LINEWATCH_WEBHOOK_ALLOW` must allow its URL. Only this response contains the secret."""
    services.allowed.check(new.url)
    with services.transaction() as connection:
        created = endpoints.create(connection, actor=actor, **new.model_dump(mode="json"))
    response.headers["Location"] = f"/v1/webhook-endpoints/{created.id}"
    return NewWebhookEndpoint.of(created, secret=created.secret.get_secret_value())


@router.get("/{endpoint_id}")
def get_webhook_endpoint(endpoint_id: UUID, services: Context, is_admin: IsAdmin) -> WebhookEndpoint:
    """Get an endpoint, without its secret. Only the scope `admin` gets the complete URL."""
    with services.transaction() as connection:
        return WebhookEndpoint.of(endpoints.get(connection, endpoint_id), with_path=is_admin)


@router.patch("/{endpoint_id}", responses=refuses(Code.WEBHOOK_TARGET_REFUSED))
def change_webhook_endpoint(
    endpoint_id: UUID, changes: WebhookEndpointChanges, services: Context, actor: Actor
) -> WebhookEndpoint:
    """Change an endpoint. Disabling it cancels its pending deliveries; enabling it clears its failures."""
    if changes.url is not None:
        services.allowed.check(changes.url)
    with services.transaction() as connection:
        if changes.state == "disabled":
            endpoints.disable(connection, endpoint_id, f"disabled by {actor}", actor=actor)
        elif changes.state == "enabled":
            endpoints.enable(connection, endpoint_id, actor=actor)
        if changes.settings:
            endpoints.change(connection, endpoint_id, actor=actor, **changes.settings)
        return WebhookEndpoint.of(endpoints.get(connection, endpoint_id))


@router.delete("/{endpoint_id}", status_code=204)
def delete_webhook_endpoint(endpoint_id: UUID, services: Context, actor: Actor) -> None:
    """Delete an endpoint and cancel its pending deliveries."""
    with services.transaction() as connection:
        endpoints.delete(connection, endpoint_id, actor=actor)


@router.post("/{endpoint_id}/rotate-secret")
def rotate_secret(endpoint_id: UUID, services: Context, actor: Actor) -> RotatedSecret:
    """Create a new secret, which only this response contains.

    Calls are signed with both secrets until the previous one expires, after 24 hours.
    """
    with services.transaction() as connection:
        rotated = endpoints.rotate_secret(connection, endpoint_id, actor=actor)
    return RotatedSecret.of(
        rotated, secret=rotated.secret.get_secret_value(), previous_secret_until=rotated.previous_secret_until
    )
