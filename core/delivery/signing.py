"""Signatures of webhooks, as the specification Standard Webhooks 1.0 has them (standardwebhooks.com)."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, not one


def headers(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message: `webhook-id`, `webhook-timestamp` and `webhook-signature`.

    Args:
        secrets: each `whsec_<base64>`; the message is signed with every one, so that a receiver that still has the
            previous secret and one that has the new one both find theirs.
        message_id: the same on every try of a message.
        timestamp: of this try, in seconds since 1970.
        body: the bytes that are sent.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    signatures = [base64.b64encode(hmac.digest(_key(one), signed, hashlib.sha256)).decode() for one in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(SECRET_PREFIX))
