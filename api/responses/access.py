"""The JSON documents of sessions, API keys and audit events."""

import datetime as dt
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from core.access import audit, keys


class Session(BaseModel):
    """Who you are, and what you may do."""

    auth: Literal["on", "off"] = Field(description="`off`: everything is allowed without a key or a session")
    actor: str | None = Field(description="as the audit log names you; null if you must sign in")
    name: str | None = Field(description="the name of your API key")
    scopes: list[Literal["submit", "read", "admin"]] = Field(
        description="all that you have; `admin` includes the others"
    )
    csrf_token: str | None = Field(
        description="send it in the header X-CSRF-Token of requests that change something; null without a session"
    )
    expires_at: dt.datetime | None = Field(
        description="when the session ends if you do not use it until then, or when your key expires; null for never"
    )


class ApiKey(BaseModel):
    """An API key without its secret."""

    prefix: str = Field(description="the part of the key between `lw_` and the secret; it identifies the key")
    name: str
    scopes: list[str]
    created_at: dt.datetime
    expires_at: dt.datetime | None = Field(description="null if it never expires")
    last_used_at: dt.datetime | None = Field(description="accurate to about a minute; null if it was never used")
    revoked_at: dt.datetime | None = Field(description="null unless it was revoked")
    requests_per_minute: int | None = Field(description="the rate limit in each api process; null for none")

    @classmethod
    def of(cls, api_key: keys.Key, **further: Any) -> Self:
        fields = {name: getattr(api_key, name) for name in ApiKey.model_fields}
        return cls(**fields, **further)


class NewApiKey(ApiKey):
    """An API key and its text, which is shown only in this response."""

    key: str


class ApiKeyList(BaseModel):
    """All API keys, oldest first, including those that were revoked or have expired."""

    items: list[ApiKey]


class AuditEvent(BaseModel):
    """A change: who (`actor`) did what (`action`) to what (`subject`)."""

    id: int
    at: dt.datetime
    actor: str = Field(description="`key:` and the prefix of an API key, `local` without keys, or a part of the system")
    action: str = Field(description="for example `model.activated`")
    subject: str = Field(description="its kind and its name or id, for example `recipe:ring`")
    detail: dict[str, Any] = Field(description="depends on the action")

    @classmethod
    def of(cls, event: audit.AuditEvent) -> Self:
        return cls(**vars(event))


class AuditEventPage(BaseModel):
    """One page of audit events. `next_cursor` is null on the last page."""

    items: list[AuditEvent]
    next_cursor: str | None
