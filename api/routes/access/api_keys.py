"""`/v1/api-keys`: list, create and revoke API keys. Each of these requests needs the scope `admin`."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from api.requests.parameters import Moment, Name
from api.responses.access import ApiKey, ApiKeyList, NewApiKey
from api.responses.problems import refuses
from api.services import Actor, Context
from core.access import keys
from core.errors import Code

router = APIRouter(prefix="/v1/api-keys", tags=["access"])

MAX_RATE = 1_000_000


class ApiKeyRequest(BaseModel):
    """An API key to create."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[Name, Field(description="the person or system that will use the key")]
    scopes: Annotated[list[Literal["submit", "read", "admin"]], Field(min_length=1, max_length=len(keys.SCOPES))]
    expires_at: Annotated[Moment | None, Field(description="null for a key that never expires")] = None
    requests_per_minute: Annotated[
        int | None, Field(ge=1, le=MAX_RATE, description="the rate limit in each api process; null for none")
    ] = None


@router.get("")
def list_api_keys(services: Context) -> ApiKeyList:
    """List all keys, oldest first, without their secrets, including those that were revoked or have expired."""
    with services.transaction() as connection:
        return ApiKeyList(items=[ApiKey.of(key) for key in keys.list_all(connection)])


@router.post("", status_code=201)
def create_api_key(new: ApiKeyRequest, response: Response, services: Context, actor: Actor) -> NewApiKey:
    """Create a key. Only this response contains its text, `key`."""
    with services.transaction() as connection:
        key, text = keys.create(
            connection,
            new.name,
            new.scopes,
            actor=actor,
            expires_at=new.expires_at,
            requests_per_minute=new.requests_per_minute,
        )
    response.headers["Cache-Control"] = "no-store"
    return NewApiKey.of(key, key=text)


@router.delete("/{prefix}", status_code=204, responses=refuses(Code.OWN_API_KEY, Code.LAST_ADMIN_KEY))
def revoke_api_key(prefix: Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")], services: Context, actor: Actor) -> None:
    """Revoke a key and end its sessions. It stops working within seconds, and stays in the list.

    409 `own_api_key` for the key of this request, 409 `last_admin_key` for the last usable key with the scope `admin`:
    `linewatch keys revoke` on the server revokes these, too.
    """
    with services.transaction() as connection:
        keys.check_others_remain(connection, prefix, actor=actor)
        keys.revoke(connection, prefix, actor=actor)
