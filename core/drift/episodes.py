"""Episodes of drift: each is announced once, when it begins, with the webhook event `drift.detected`.

    no episode ── the light is `drift` ──► open ── the light is `none` ──► ended

While the light is `watch`, an open episode stays open, so that a light that wavers announces nothing twice. Another
active version ends it. The row and the deliveries are written in one transaction, so a restart repeats nothing.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, text

from core.documents.payloads import Document, Loader
from core.drift.documents import DriftEpisode, DriftSummary
from core.feed import events
from core.feed.events import Event, EventType
from core.models.recipes import Recipe

MAX_LISTED = 100


def update(connection: Connection, recipe: Recipe, summary: DriftSummary) -> UUID | None:
    """Begin or end the episode of a recipe, as its light says; returns the id of an episode that has begun.

    Of several concurrent callers, one begins it.
    """
    connection.execute(
        text("""
            UPDATE drift_episodes SET ended_at = now()
            WHERE recipe_id = :recipe_id AND ended_at IS NULL
              AND (:is_over OR model_version_id IS DISTINCT FROM :version_id)
        """),
        {
            "recipe_id": recipe.id,
            "version_id": recipe.active_version_id,
            "is_over": summary.light == "none" and summary.day is not None,
        },
    )
    if summary.light != "drift":
        return None
    episode_id: UUID | None = connection.execute(
        text("""
            INSERT INTO drift_episodes (recipe_id, model_version_id, summary)
            VALUES (:recipe_id, :version_id, CAST(:summary AS jsonb))
            ON CONFLICT (recipe_id) WHERE ended_at IS NULL DO NOTHING RETURNING id
        """),
        {
            "recipe_id": recipe.id,
            "version_id": recipe.active_version_id,
            "summary": summary.model_dump_json(),
        },
    ).scalar()
    if episode_id is not None:
        events.emit(connection, [Event(EventType.DRIFT_DETECTED, str(episode_id), [recipe.id])])
    return episode_id


def overlapping(connection: Connection, recipe_id: int, since: dt.datetime, until: dt.datetime) -> list[DriftEpisode]:
    """Return the episodes of a recipe that overlap a time range, newest first, at most `MAX_LISTED`."""
    rows = connection.execute(
        text("""
            SELECT id, summary, began_at, ended_at FROM drift_episodes
            WHERE recipe_id = :recipe_id AND began_at < :until AND (ended_at IS NULL OR ended_at >= :since)
            ORDER BY id DESC LIMIT :at_most
        """),
        {"recipe_id": recipe_id, "since": since, "until": until, "at_most": MAX_LISTED},
    )
    return [_episode(row) for row in rows]


def _episode(row: Row[Any]) -> DriftEpisode:
    return DriftEpisode(id=row.id, began_at=row.began_at, ended_at=row.ended_at, **row.summary)


def _load(connection: Connection, ids: set[str]) -> dict[str, Document]:
    rows = connection.execute(
        text("SELECT id, summary, began_at, ended_at FROM drift_episodes WHERE id = ANY(CAST(:ids AS uuid[]))"),
        {"ids": list(ids)},
    )
    return {str(row.id): _episode(row).model_dump(mode="json") for row in rows}


LOADERS: Final[Mapping[str, Loader]] = {EventType.DRIFT_DETECTED: _load}
"""Loads the documents for the events of drift; see `core.documents.payloads.load_documents`."""


def recipes_to_judge(connection: Connection) -> list[str]:
    """Return the names of the recipes with an active version that have parts of today or yesterday (UTC)."""
    rows: Any = connection.execute(
        text("""
            SELECT name FROM recipes WHERE active_version_id IS NOT NULL AND EXISTS (
                SELECT FROM drift_days WHERE recipe_id = recipes.id
                  AND day >= CAST(now() AT TIME ZONE 'UTC' AS date) - 1
            ) ORDER BY name
        """)
    ).scalars()
    return list(rows)
