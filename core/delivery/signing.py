"""Signatures of webhooks, by the specification Standard Webhooks 1.0 (standardwebhooks.com)."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, not one


def headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message: `webhook-id`, `webhook-timestamp` and `webhook-signature`.

    Args:
        secrets: each `whsec_<base64>`. The message is signed with all of them, for receivers that still have the
            previous secret and for those that have the new one.
        message_id: the same on every try of a message.
        timestamp: the time of this try, in seconds since 1970.
        body: the bytes that are sent.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode() for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))
