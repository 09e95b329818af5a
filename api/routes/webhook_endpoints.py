"""`/v1/webhook-endpoints`: registering who is called, for what, and with which secret."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.context import Actor, Context
from api.fields import Description, RecipeName, Url
from api.problems import refuses
from api.schemas import NewWebhookEndpoint, RotatedSecret, WebhookEndpoint, WebhookEndpointList
from core import endpoints
from core.errors import Code
from core.events import EventType

router = APIRouter(prefix="/v1/webhook-endpoints", tags=["webhooks"])


def _can_be_asked_for(event: EventType) -> EventType:
    if event is EventType.ENDPOINT_TEST:
        raise ValueError("endpoint.test is sent on request only")
    return event


def _once_each(names: list[str]) -> list[str]:
    return sorted({str(name) for name in names})


Events = Annotated[
    list[Annotated[EventType, AfterValidator(_can_be_asked_for)]],
    Field(max_length=len(EventType), description="none for an endpoint that is there for callbacks only"),
    AfterValidator(_once_each),
]
Recipes = Annotated[
    list[RecipeName],
    Field(min_length=1, max_length=1000, description="names, which need not exist yet; null for all"),
    AfterValidator(_once_each),
]
GroupSize = Annotated[int, Field(ge=1, le=1000, description="how many events one request may bring")]
GroupDelay = Annotated[int, Field(ge=0, le=60_000, description="how long an event may wait for others")]


class _New(BaseModel):
    """An endpoint to register."""

    model_config = ConfigDict(extra="forbid")

    url: Url
    events: Events
    recipes: Recipes | None = None
    description: Description = ""
    max_group_size: GroupSize = 1
    max_group_delay_ms: GroupDelay = 0


class _Changes(BaseModel):
    """What to change of an endpoint. What is left out stays; null stands for all recipes, elsewhere for no change."""

    model_config = ConfigDict(extra="forbid")

    url: Url | None = None
    events: Events | None = None
    recipes: Recipes | None = None
    description: Description | None = None
    state: Literal["enabled", "disabled"] | None = None
    max_group_size: GroupSize | None = None
    max_group_delay_ms: GroupDelay | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The columns to set."""
        recipes = {"recipes": self.recipes} if "recipes" in self.model_fields_set else {}
        return self.model_dump(exclude_none=True, exclude={"state"}) | recipes


@router.get("")
def list_endpoints(services: Context) -> WebhookEndpointList:
    """All endpoints, oldest first, without their secrets."""
    with services.transaction() as connection:
        return WebhookEndpointList(items=[WebhookEndpoint.of(one) for one in endpoints.list_all(connection)])


@router.post("", status_code=201, responses=refuses(Code.WEBHOOK_TARGET_REFUSED))
def create(new: _New, response: Response, services: Context, actor: Actor) -> NewWebhookEndpoint:
    """Register an address that `LINEWATCH_WEBHOOK_ALLOW` allows. The answer holds the secret, which is shown once."""
    services.allowed.check(new.url)
    with services.transaction() as connection:
        made = endpoints.create(connection, actor=actor, **new.model_dump())
    response.headers["Location"] = f"/v1/webhook-endpoints/{made.id}"
    return NewWebhookEndpoint.of(made, secret=made.secret.get_secret_value())


@router.get("/{endpoint_id}")
def get(endpoint_id: UUID, services: Context) -> WebhookEndpoint:
    """One endpoint, without its secret."""
    with services.transaction() as connection:
        return WebhookEndpoint.of(endpoints.get(connection, endpoint_id))


@router.patch("/{endpoint_id}", responses=refuses(Code.WEBHOOK_TARGET_REFUSED))
def change(endpoint_id: UUID, changes: _Changes, services: Context, actor: Actor) -> WebhookEndpoint:
    """Change an endpoint. Disabling it cancels what is still to be delivered; enabling it clears its failures."""
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
def delete(endpoint_id: UUID, services: Context, actor: Actor) -> None:
    """Delete an endpoint and cancel what is still to be delivered to it."""
    with services.transaction() as connection:
        endpoints.delete(connection, endpoint_id, actor=actor)


@router.post("/{endpoint_id}/rotate-secret")
def rotate_secret(endpoint_id: UUID, services: Context, actor: Actor) -> RotatedSecret:
    """A new secret, which is shown once. Calls are signed with both until the previous one expires, after 24 hours."""
    with services.transaction() as connection:
        rotated = endpoints.rotate_secret(connection, endpoint_id, actor=actor)
    return RotatedSecret.of(
        rotated, secret=rotated.secret.get_secret_value(), previous_secret_until=rotated.previous_secret_until
    )
