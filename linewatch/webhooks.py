"""Webhooks on the side that receives them: whether a request is from the system, and what it says.

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

from pydantic import ValidationError

from linewatch.errors import WebhookInvalid
from linewatch.types.rescoring import RescoreRun
from linewatch.types.results import Batch, Inspection, ModelVersion, Result

_DATA: Mapping[str, type[Result]] = {
    "inspection.completed": Inspection,
    "inspection.failed": Inspection,
    "inspection.reviewed": Inspection,
    "batch.completed": Batch,
    "rescore_run.progress": RescoreRun,
    "rescore_run.completed": RescoreRun,
    "rescore_run.failed": RescoreRun,
    "model.activated": ModelVersion,
}
_GROUP = "group"


class WebhookEvent(Result):
    """Something that happened.

    Attributes:
        id: the same on every attempt, so that you can detect duplicates.
        type: such as `inspection.completed`.
        timestamp: when it happened.
        data: an `Inspection`, `Batch`, `RescoreRun` or `ModelVersion`, as the type says; of other types the plain JSON.
    """

    id: str
    type: str
    timestamp: dt.datetime
    data: Inspection | Batch | RescoreRun | ModelVersion | dict[str, Any]

    @property
    def events(self) -> list["WebhookEvent"]:
        """This one alone."""
        return [self]


class WebhookGroup(Result):
    """Several events in one request; `data` are they, each with an id of its own."""

    id: str
    type: str
    timestamp: dt.datetime
    data: list[WebhookEvent]

    @property
    def events(self) -> list[WebhookEvent]:
        """All of them."""
        return self.data


def verify_webhook(
    body: bytes, headers: Mapping[str, str], secret: str, *, tolerance: float = 300
) -> WebhookEvent | WebhookGroup:
    """Verify a webhook's signature and age, and return its events.

    Example:
        for event in verify_webhook(body, headers, secret).events:
            print(event.id, event.type, event.data)

    `data` is an `Inspection` for `inspection.*`, a `Batch` for `batch.completed`, a `ModelVersion` for
    `model.activated`. Every other type carries a dict, its plain JSON: `endpoint.test` an `endpoint_id` and a
    `message`, and so do types that a newer system adds. Look at `type` before you reach into `data`.

    Args:
        body: as it was received, byte by byte: JSON that was parsed and written again has another signature.
        headers: of the request; the case of their names does not matter.
        secret: `whsec_…`, as it was shown when the endpoint was created or its secret was rotated.
        tolerance: seconds by which this machine's clock may differ from the sender's, either way.

    Raises:
        WebhookInvalid: a header is missing, no signature fits, it was sent at another time, or it cannot be read.
        ValueError: the secret is none.
    """
    key = _key(secret)
    given = {name.lower(): value for name, value in headers.items()}
    message_id, sent, signatures = (
        _header(given, name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
    )
    if not any(_fits(key, f"{message_id}.{sent}.".encode() + body, one) for one in signatures.split()):
        raise WebhookInvalid("no signature of the webhook fits: is the secret that of this endpoint?")
    _in_time(sent, tolerance)
    return _read(message_id, body)


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError("secret: not the secret of a webhook endpoint, which looks like whsec_…")
    return key


def _header(given: Mapping[str, str], name: str) -> str:
    if not given.get(name):
        raise WebhookInvalid(f"the request has no header {name}: it is no webhook")
    return given[name]


def _fits(key: bytes, signed: bytes, signature: str) -> bool:
    """Whether the signature is right, compared in constant time."""
    version, _, text = signature.partition(",")
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
    return version == "v1" and hmac.compare_digest(expected, text.encode(errors="replace"))


def _in_time(sent: str, tolerance: float) -> None:
    if not (sent.isascii() and sent.isdigit()):
        raise WebhookInvalid("the webhook-timestamp is no number of seconds")
    late = time.time() - int(sent)
    if abs(late) > tolerance:
        when = f"{late:.0f} s ago" if late > 0 else f"{-late:.0f} s in the future"
        raise WebhookInvalid(f"the webhook was sent {when}: it was held back, or a clock is wrong")


def _read(message_id: str, body: bytes) -> WebhookEvent | WebhookGroup:
    try:
        said = {"id": message_id, **json.loads(body)}
        if said["type"] != _GROUP:
            return _event(said)
        return WebhookGroup.model_validate({**said, "data": [_event(one) for one in said["data"]]})
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise WebhookInvalid(f"the webhook cannot be read: {error}") from error


def _event(said: Mapping[str, Any]) -> WebhookEvent:
    kind = _DATA.get(said["type"])
    data = said["data"] if kind is None else kind.model_validate(said["data"])
    return WebhookEvent.model_validate({**said, "data": data})
