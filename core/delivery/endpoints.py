"""Webhook endpoints: URLs, events and secrets. States: `enabled ⇄ disabled`, and finally `deleted`.

The database creates secrets, so that they are never parameters of statements, which appear in errors and logs. When an
endpoint leaves `enabled`, its pending deliveries become `cancelled` in the same transaction.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import Connection, Row, insert, literal_column, select, text, update
from sqlalchemy.sql.functions import now

from core.access import audit
from core.delivery.allowed_targets import Origin, TargetRefused
from core.delivery.tables import webhook_endpoints
from core.errors import Code, Refused
from core.feed.events import Callback

PREVIOUS_SECRET_HOURS = 24
"""How long requests are also signed with the previous secret."""

# Three UUIDs have 366 random bits, from the source that pgcrypto uses; SHA-256 reduces them to 32 bytes.
_RANDOM = " || ".join(["uuid_send(gen_random_uuid())"] * 3)
_NEW_SECRET: Any = literal_column(f"'whsec_' || encode(sha256({_RANDOM}), 'base64')")


@dataclass(frozen=True)
class Endpoint:
    """A URL that receives events.

    Attributes:
        events: the types that it receives; empty if it only receives callbacks.
        recipes: names of the recipes whose events it receives; None for all.
        disabled_because: the reason as a text; None while it is enabled.
        max_group_size: the most events in one request.
        max_group_delay_ms: how long an event may wait for others, in milliseconds.
        failing_since: when the current series of failures began; None without failures.
    """

    id: UUID
    url: str
    events: list[str]
    recipes: list[str] | None
    description: str
    state: str
    disabled_because: str | None
    secret: SecretStr
    previous_secret: SecretStr | None
    previous_secret_until: dt.datetime | None
    max_group_size: int
    max_group_delay_ms: int
    failing_since: dt.datetime | None
    created_at: dt.datetime
    updated_at: dt.datetime


def _endpoint(row: Row[*tuple[Any, ...]]) -> Endpoint:
    secrets = {"secret": SecretStr(row.secret)}
    secrets["previous_secret"] = row.previous_secret and SecretStr(row.previous_secret)
    return Endpoint(**{**row._mapping, **secrets})


def _require(row: Row[*tuple[Any, ...]] | None, endpoint_id: UUID) -> Endpoint:
    if row is None:
        raise Refused(Code.NOT_FOUND, f"There is no webhook endpoint {endpoint_id}.")
    return _endpoint(row)


_SELECT = select(webhook_endpoints).where(webhook_endpoints.c.state != "deleted").order_by(webhook_endpoints.c.id)


def list_all(connection: Connection) -> list[Endpoint]:
    """All endpoints that are not deleted, oldest first."""
    return [_endpoint(row) for row in connection.execute(_SELECT)]


def get(connection: Connection, endpoint_id: UUID) -> Endpoint:
    """One endpoint.

    Raises:
        Refused: NOT_FOUND if it does not exist or was deleted.
    """
    return _require(connection.execute(_SELECT.where(webhook_endpoints.c.id == endpoint_id)).one_or_none(), endpoint_id)


def by_ids(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, Endpoint]:
    """The endpoints with these ids that are not deleted."""
    rows = connection.execute(_SELECT.where(webhook_endpoints.c.id.in_(list(ids))))
    return {row.id: _endpoint(row) for row in rows}


def create(connection: Connection, url: str, *, actor: str, **settings: Any) -> Endpoint:
    """Insert an endpoint with `events` and, optionally, `recipes`, `description`, `max_group_size` and
    `max_group_delay_ms`.

    Check beforehand that its URL may be called (`core.delivery.allowed_targets`): that resolves names, which no
    transaction should wait for.
    """
    row = connection.execute(
        insert(webhook_endpoints).values(url=url, secret=_NEW_SECRET, **settings).returning(*webhook_endpoints.c)
    ).one()
    _audit(connection, "created", row.id, actor, url=url, **settings)
    return _endpoint(row)


def change(connection: Connection, endpoint_id: UUID, *, actor: str, **changes: Any) -> Endpoint:
    """Change settings of `create`.

    Raises:
        Refused: NOT_FOUND.
    """
    changed = _update(connection, endpoint_id, **changes)
    _audit(connection, "changed", endpoint_id, actor, **changes)
    return changed


def enable(connection: Connection, endpoint_id: UUID, *, actor: str) -> Endpoint:
    """`disabled → enabled`, without recorded failures. Events from now on are delivered. An enabled endpoint stays.

    Pending deliveries are cancelled: their transactions saw the endpoint enabled and committed after it was disabled.
    """
    row = connection.execute(
        update(webhook_endpoints)
        .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.state == "disabled")
        .values(state="enabled", disabled_because=None, failing_since=None, updated_at=now())
        .returning(webhook_endpoints.c.id)
    ).one_or_none()
    if row is not None:
        cancelled = _cancel_pending(connection, endpoint_id)
        _audit(connection, "enabled", endpoint_id, actor, cancelled_deliveries=cancelled)
    return get(connection, endpoint_id)


def disable(connection: Connection, endpoint_id: UUID, because: str, *, actor: str = "worker") -> bool:
    """`enabled → disabled`; cancels its pending deliveries. Returns False, and changes nothing, if it was not enabled.

    The endpoint is locked before its deliveries: change deliveries in the same transaction only afterwards.
    """
    row = connection.execute(
        update(webhook_endpoints)
        .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.state == "enabled")
        .values(state="disabled", disabled_because=because, updated_at=now())
        .returning(webhook_endpoints.c.id)
    ).one_or_none()
    if row is None:
        return False
    cancelled = _cancel_pending(connection, endpoint_id)
    _audit(connection, "disabled", endpoint_id, actor, because=because, cancelled_deliveries=cancelled)
    return True


def delete(connection: Connection, endpoint_id: UUID, *, actor: str) -> None:
    """To `deleted`, from any other state. Cancels pending deliveries and erases the secrets; the history is kept."""
    _update(connection, endpoint_id, state="deleted", secret="", previous_secret=None, previous_secret_until=None)
    cancelled = _cancel_pending(connection, endpoint_id)
    _audit(connection, "deleted", endpoint_id, actor, cancelled_deliveries=cancelled)


def rotate_secret(connection: Connection, endpoint_id: UUID, *, actor: str) -> Endpoint:
    """Create a new secret. The previous one is also used for `PREVIOUS_SECRET_HOURS`; older ones no longer."""
    rotated = _update(
        connection,
        endpoint_id,
        secret=_NEW_SECRET,
        previous_secret=webhook_endpoints.c.secret,
        previous_secret_until=now() + dt.timedelta(hours=PREVIOUS_SECRET_HOURS),
    )
    _audit(connection, "secret_rotated", endpoint_id, actor)
    return rotated


def signing_secrets(endpoint: Endpoint) -> list[str]:
    """The secrets to sign with, the newest first: each is `whsec_` and the base64 of 32 random bytes."""
    secrets = [endpoint.secret.get_secret_value()]
    until = endpoint.previous_secret_until
    if endpoint.previous_secret is not None and until is not None and dt.datetime.now(dt.UTC) < until:
        secrets.append(endpoint.previous_secret.get_secret_value())
    return secrets


def callbacks(connection: Connection, urls: Iterable[str]) -> dict[str, Callback]:
    """The callbacks of URLs that have the origin of an enabled endpoint; its secret signs the calls.

    Of several endpoints with that origin, one with the same URL is chosen, else the oldest.
    """
    enabled = connection.execute(
        select(webhook_endpoints.c.id, webhook_endpoints.c.url)
        .where(webhook_endpoints.c.state == "enabled")
        .order_by(webhook_endpoints.c.id)
    ).all()
    origins = [(_origin(row.url), row) for row in enabled]
    found: dict[str, Callback] = {}
    for url in urls:
        origin = _origin(url)
        matching = [row for row_origin, row in origins if origin is not None and row_origin == origin]
        if matching:
            exact = [row for row in matching if row.url == url]
            found[url] = Callback((exact or matching)[0].id, url)
    return found


def callback(connection: Connection, url: str) -> Callback:
    """The callback to one URL.

    Raises:
        Refused: CALLBACK_UNREGISTERED if no enabled endpoint has its origin.
    """
    found = callbacks(connection, [url])
    if url not in found:
        raise unregistered(url)
    return found[url]


def unregistered(url: str) -> Refused:
    """Return the refusal of a callback to an origin that no enabled endpoint has."""
    origin = _origin(url)
    location = f"{origin.scheme}://{origin.host} at port {origin.port}" if origin else "this URL"
    return Refused(
        Code.CALLBACK_UNREGISTERED,
        f"callback_url: no enabled webhook endpoint is registered for {location}; register one with "
        "POST /v1/webhook-endpoints.",
    )


def _origin(url: str) -> Origin | None:
    try:
        return Origin.of(url)
    except TargetRefused:  # no endpoint has such a URL
        return None


def _update(connection: Connection, endpoint_id: UUID, **values: Any) -> Endpoint:
    row = connection.execute(
        update(webhook_endpoints)
        .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.state != "deleted")
        .values(**values, updated_at=now())
        .returning(*webhook_endpoints.c)
    ).one_or_none()
    return _require(row, endpoint_id)


def _cancel_pending(connection: Connection, endpoint_id: UUID) -> int:
    """`pending → cancelled` for all deliveries of an endpoint; returns how many."""
    return connection.execute(
        text("""
            WITH pending AS (
                SELECT id FROM deliveries WHERE endpoint_id = :id AND state = 'pending' ORDER BY id FOR UPDATE
            )
            UPDATE deliveries SET state = 'cancelled', finished_at = now() FROM pending WHERE deliveries.id = pending.id
        """),
        {"id": endpoint_id},
    ).rowcount


def _audit(connection: Connection, action: str, endpoint_id: UUID, actor: str, **detail: Any) -> None:
    audit.record(
        connection,
        actor=actor,
        action=f"webhook_endpoint.{action}",
        subject=f"webhook_endpoint:{endpoint_id}",
        **detail,
    )
