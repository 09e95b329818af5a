"""Events: what a webhook endpoint can ask for. They are written as deliveries, in the transaction that causes them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, text


class EventType(StrEnum):
    """What can happen. `endpoint.test` is sent on request only."""

    INSPECTION_COMPLETED = "inspection.completed"
    INSPECTION_FAILED = "inspection.failed"
    INSPECTION_REVIEWED = "inspection.reviewed"
    BATCH_COMPLETED = "batch.completed"
    RESCORE_RUN_PROGRESS = "rescore_run.progress"
    RESCORE_RUN_COMPLETED = "rescore_run.completed"
    RESCORE_RUN_FAILED = "rescore_run.failed"
    MODEL_ACTIVATED = "model.activated"
    ENDPOINT_TEST = "endpoint.test"


@dataclass(frozen=True)
class Callback:
    """An address of a registered endpoint's origin that one inspection or batch asked to be called at."""

    endpoint_id: UUID
    url: str


@dataclass(frozen=True)
class Event:
    """Something that happened to something.

    Attributes:
        subject_id: of the inspection, batch, run or model version; its document is made when it is sent.
        recipe_ids: the recipes that it is about, for endpoints that ask for some only.
    """

    type: EventType
    subject_id: str
    recipe_ids: Sequence[int]
    callback: Callback | None = None


_SUBSCRIBED = """event.type = ANY (endpoint.events) AND (endpoint.recipes IS NULL OR EXISTS (
    SELECT FROM recipes WHERE event.recipe_ids @> to_jsonb(recipes.id) AND recipes.name = ANY (endpoint.recipes)
))"""

_EMIT = text(f"""
WITH event AS (
    SELECT * FROM unnest(
        CAST(:types AS text[]), CAST(:subjects AS text[]), CAST(:recipes AS jsonb[]),
        CAST(:callback_endpoints AS uuid[]), CAST(:callback_urls AS text[])
    ) AS _(type, subject_id, recipe_ids, callback_endpoint_id, callback_url)
), wanted AS (
    SELECT event.type, event.subject_id, endpoint.id, CAST(NULL AS text) AS callback_url, endpoint.max_group_delay_ms
    FROM event JOIN webhook_endpoints AS endpoint ON endpoint.state = 'enabled' AND {_SUBSCRIBED}
    UNION ALL
    SELECT event.type, event.subject_id, endpoint.id, event.callback_url, 0
    FROM event JOIN webhook_endpoints AS endpoint
      ON endpoint.state = 'enabled' AND endpoint.id = event.callback_endpoint_id
    WHERE endpoint.url <> event.callback_url OR NOT ({_SUBSCRIBED})
)
INSERT INTO deliveries (endpoint_id, event, subject_id, callback_url, next_try_at)
SELECT id, type, subject_id, callback_url, now() + max_group_delay_ms * interval '1 millisecond' FROM wanted
""")  # noqa: S608 - the condition is a constant of ours


def emit(connection: Connection, events: Sequence[Event]) -> int:
    """Write one delivery for each enabled endpoint that asked for it, and for each callback; returns how many.

    A callback to the very address of an endpoint that gets the event anyway is not a second delivery.
    """
    if not events:
        return 0
    return connection.execute(
        _EMIT,
        {
            "types": [one.type for one in events],
            "subjects": [one.subject_id for one in events],
            "recipes": [json.dumps(list(one.recipe_ids)) for one in events],
            "callback_endpoints": [one.callback.endpoint_id if one.callback else None for one in events],
            "callback_urls": [one.callback.url if one.callback else None for one in events],
        },
    ).rowcount
