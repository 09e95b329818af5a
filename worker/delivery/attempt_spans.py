"""The span of a try to send a webhook, in the trace of what caused its event. The receiver continues the trace.

A group of events continues the trace of its first traced event, and links to the others.
"""

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from core.delivery.deliveries import Outcome
from core.delivery.sending import Message, ReceiverAnswer
from core.tracing import traces

if TYPE_CHECKING:
    from core.tracing.exporting import Span


def trace_id(message: Message) -> str | None:
    """Return the id of the trace that a message continues."""
    return traces.trace_id(next(iter(_contexts(message)), None))


def begin(message: Message, url: str) -> "Span | None":
    """Begin the span of a try; None if nothing in the message is traced.

    Its attributes have the host of the URL only: the rest may contain a password or a token.
    """
    contexts = _contexts(message)
    if not contexts:
        return None
    parts = urlsplit(url)
    attributes: dict[str, str | int] = {
        "http.request.method": "POST",
        "server.address": parts.hostname or "",
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        "linewatch.event": "group" if message.grouped else message.claims[0].event,
        "linewatch.events": len(message.claims),
        "linewatch.webhook.id": str(message.id),
        "linewatch.endpoint.id": str(message.endpoint_id),
    }
    if message.tries:
        attributes["http.request.resend_count"] = message.tries
    return traces.begin(
        "POST webhook", contexts[0], time.perf_counter(), kind="client", attributes=attributes, links=contexts[1:]
    )


def end(span: "Span | None", answer: ReceiverAnswer | None) -> None:
    """End the span with the answer; without one, the try was abandoned."""
    if span is None:
        return
    outcome = "abandoned" if answer is None else str(answer.outcome)
    attributes: dict[str, str | int] = {"linewatch.outcome": outcome}
    if answer is not None and answer.status is not None:
        attributes["http.response.status_code"] = answer.status
    span.end(time.perf_counter(), attributes=attributes, error=None if outcome == Outcome.DELIVERED else outcome)


def _contexts(message: Message) -> list[str]:
    """The distinct contexts of the events of a message, in their order."""
    return list(dict.fromkeys(claim.trace_context for claim in message.claims if claim.trace_context is not None))
