"""Webhooks on the receiving side: verify a request and read its events.

The signatures are those of Standard Webhooks (https://www.standardwebhooks.com): `v1`, HMAC-SHA256.
"""

import base64
import binascii
import datetime as dt
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from msgspec import ValidationError

from linewatch.errors import WebhookInvalid
from linewatch.types.base import Result
from linewatch.types.drift import DriftEpisode
from linewatch.types.rescoring import RescoreRun
from linewatch.types.results import Batch, Inspection, ModelVersion

_DATA: Mapping[str, type[Inspection | Batch | RescoreRun | ModelVersion | DriftEpisode]] = {
    "inspection.completed": Inspection,
    "inspection.failed": Inspection,
    "inspection.reviewed": Inspection,
    "batch.completed": Batch,
    "rescore_run.progress": RescoreRun,
    "rescore_run.completed": RescoreRun,
    "rescore_run.failed": RescoreRun,
    "model.activated": ModelVersion,
    "drift.detected": DriftEpisode,
}
_GROUP = "group"


class WebhookEvent(Result, frozen=True):
    """Something that happened.

    Attributes:
        id: the same on every attempt, so that you can detect duplicates.
        type: such as `inspection.completed`.
        timestamp: when it happened.
        data: an `Inspection`, `Batch`, `RescoreRun`, `ModelVersion` or `DriftEpisode`, by `type`; the plain JSON of
            other types.
    """

    id: str
    type: str
    timestamp: dt.datetime
    data: Inspection | Batch | RescoreRun | ModelVersion | DriftEpisode | dict[str, Any]

    @property
    def events(self) -> list["WebhookEvent"]:
        """A list of this event."""
        return [self]


class WebhookGroup(Result, frozen=True):
    """Several events in one request: `data` holds the events, each with its own id."""

    id: str
    type: str
    timestamp: dt.datetime
    data: list[WebhookEvent]

    @property
    def events(self) -> list[WebhookEvent]:
        """All events of the group."""
        return self.data


def verify_webhook(
    body: bytes, headers: Mapping[str, str], secret: str, *, tolerance: float = 300
) -> WebhookEvent | WebhookGroup:
    """Verify a webhook's signature and age, and return its events.

    Example:
        for event in verify_webhook(body, headers, secret).events:
            print(event.id, event.type, event.data)

    `data` is an `Inspection` for `inspection.*`, a `Batch` for `batch.completed`, a `RescoreRun` for `rescore_run.*`, a
    `ModelVersion` for `model.activated`, a `DriftEpisode` for `drift.detected`. Every other type, also one that a newer
    system adds, has a dict with its plain JSON; `endpoint.test` has an `endpoint_id` and a `message`. Check `type`
    before you use `data`.

    Args:
        body: the bytes as you received them: JSON that was parsed and serialised again has another signature.
        headers: the request's headers; the case of their names does not matter.
        secret: `whsec_…`, as shown when you created the endpoint or rotated its secret.
        tolerance: the largest difference between your clock and the sender's, in seconds, either way.

    Raises:
        WebhookInvalid: a header is missing, no signature matches, it is too old or too new, or it cannot be read.
        ValueError: `secret` is not a webhook secret.
    """
    key = _key(secret)
    lower = {name.lower(): value for name, value in headers.items()}
    message_id, sent, signatures = (
        _header(lower, name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    signed = f"{message_id}.{sent}.".encode() + body
    if not any(_matches(key, signed, signature) for signature in signatures.split()):
        raise WebhookInvalid("no signature matches: is the secret that of this endpoint?")
    _check_age(sent, tolerance)
    return _read(message_id, body)


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("secret: this is not the secret of a webhook endpoint, which looks like whsec_…")
    return key


def _header(headers: Mapping[str, str], name: str) -> str:
    if not headers.get(name):
        raise WebhookInvalid(f"the request has no header {name}, so it is not a webhook")
    return headers[name]


def _matches(key: bytes, signed: bytes, signature: str) -> bool:
    """Return whether the signature is valid. Compares in constant time."""
    version, _, text = signature.partition(",")
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    return version == "v1" and hmac.compare_digest(expected, text.encode(errors="replace"))


def _check_age(sent: str, tolerance: float) -> None:
    if not (sent.isascii() and sent.isdigit()):
        raise WebhookInvalid("the webhook-timestamp is not a number of seconds")
    age = time.time() - int(sent)
    if abs(age) > tolerance:
        when = f"{age:.0f} s ago" if age > 0 else f"{-age:.0f} s in the future"
        raise WebhookInvalid(f"the webhook was sent {when}: it was delayed, or a clock is wrong")


class _Envelope(Result, frozen=True):
    """The fields of every webhook."""

    id: str
    type: str
    timestamp: dt.datetime
    data: dict[str, Any] | list[dict[str, Any]]


def _read(message_id: str, body: bytes) -> WebhookEvent | WebhookGroup:
    try:
        envelope = _Envelope.from_document({"id": message_id, **json.loads(body)})
        if envelope.type != _GROUP:
            return _event(envelope)
        events = [_event(_Envelope.from_document(event)) for event in envelope.data]
        return WebhookGroup(envelope.id, envelope.type, envelope.timestamp, events)
    except (ValueError, TypeError, ValidationError) as error:
        raise WebhookInvalid(f"the webhook cannot be read: {error}") from error


def _event(envelope: _Envelope) -> WebhookEvent:
    if not isinstance(envelope.data, dict):
        raise TypeError(f"the data of {envelope.type} is a list")
    kind = _DATA.get(envelope.type)
    data = envelope.data if kind is None else kind.from_document(envelope.data)
    return WebhookEvent(envelope.id, envelope.type, envelope.timestamp, data)
