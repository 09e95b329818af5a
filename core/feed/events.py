"""Events that webhook endpoints subscribe to. Each is written as deliveries in the transaction that causes it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, text

from core.tracing import traces


class EventType(StrEnum):
    """The types of events. `endpoint.test` is sent only on request."""

    INSPECTION_COMPLETED = "inspection.completed"
    INSPECTION_FAILED = "inspection.failed"
    INSPECTION_REVIEWED = "inspection.reviewed"
    BATCH_COMPLETED = "batch.completed"
    RESCORE_RUN_PROGRESS = "rescore_run.progress"
    RESCORE_RUN_COMPLETED = "rescore_run.completed"
    RESCORE_RUN_FAILED = "rescore_run.failed"
    MODEL_ACTIVATED = "model.activated"
    DRIFT_DETECTED = "drift.detected"
    ENDPOINT_TEST = "endpoint.test"


@dataclass(frozen=True)
class Callback:
    """The callback URL of an inspection or batch, and the endpoint with the same origin that signs its deliveries."""

    endpoint_id: UUID
    url: str


@dataclass(frozen=True)
class Event:
    """An event on an inspection, batch, re-scoring run, model version or episode of drift: its subject.

    Attributes:
        subject_id: the id of the subject, whose document is created when the event is sent.
        recipe_ids: the recipes of the subject, for endpoints that subscribe to certain recipes.
        trace_context: where the trace of its deliveries goes on from; by default from the current span.
    """

    type: EventType
    subject_id: str
    recipe_ids: Sequence[int]
    callback: Callback | None = None
    trace_context: str | None = field(default_factory=traces.current_context)


_SUBSCRIBED = """event.type = ANY (endpoint.events) AND (endpoint.recipes IS NULL OR EXISTS (
    SELECT FROM recipes WHERE event.recipe_ids @> to_jsonb(recipes.id) AND recipes.name = ANY (endpoint.recipes)
))"""

_EMIT = text(f"""
WITH event AS (
    SELECT * FROM unnest(
        CAST(:types AS text[]), CAST(:subjects AS text[]), CAST(:recipes AS jsonb[]),
        CAST(:callback_endpoints AS uuid[]), CAST(:callback_urls AS text[]), CAST(:trace_contexts AS text[])
    ) AS _(type, subject_id, recipe_ids, callback_endpoint_id, callback_url, trace_context)
), wanted AS (
    SELECT event.type, event.subject_id, endpoint.id, CAST(NULL AS text) AS callback_url, endpoint.max_group_delay_ms,
        event.trace_context
    FROM event JOIN webhook_endpoints AS endpoint ON endpoint.state = 'enabled' AND {_SUBSCRIBED}
    UNION ALL
    SELECT event.type, event.subject_id, endpoint.id, event.callback_url, 0, event.trace_context
    FROM event JOIN webhook_endpoints AS endpoint
      ON endpoint.state = 'enabled' AND endpoint.id = event.callback_endpoint_id
    WHERE endpoint.url <> event.callback_url OR NOT ({_SUBSCRIBED})
)
INSERT INTO deliveries (endpoint_id, event, subject_id, callback_url, next_try_at, trace_context)
SELECT id, type, subject_id, callback_url, now() + max_group_delay_ms * interval '1 millisecond', trace_context
FROM wanted
""")  # noqa: S608 - the condition is a constant


def emit(connection: Connection, events: Sequence[Event]) -> int:
    """Write a delivery for each enabled endpoint that subscribes to an event, and for each callback.

    A callback to the URL of an endpoint that receives the event anyway adds no second delivery.

    Returns:
        The number of deliveries.
    """
    if not events:
        return 0
    return connection.execute(
        _EMIT,
        {
            "types": [event.type for event in events],
            "subjects": [event.subject_id for event in events],
            "recipes": [json.dumps(list(event.recipe_ids)) for event in events],
            "callback_endpoints": [event.callback.endpoint_id if event.callback else None for event in events],
            "callback_urls": [event.callback.url if event.callback else None for event in events],
            "trace_contexts": [event.trace_context for event in events],
        },
    ).rowcount
