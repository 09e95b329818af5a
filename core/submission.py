"""Accepting images: rows for what lies durably in the store, many submissions in one transaction."""

import datetime as dt
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert, text
from sqlalchemy.dialects.postgresql import insert as upsert

from core import batches, endpoints, inspections, recipes
from core.errors import Code, Refused
from core.events import Callback
from core.inspections import Inspection
from core.pictures import Header
from core.recipes import Recipe
from core.tables import images, work


@dataclass(frozen=True)
class StoredImage:
    """An image that is on stable storage."""

    day: dt.date
    sha256: bytes
    size: int
    header: Header


@dataclass(frozen=True)
class NewInspection:
    """One image and what came with it. `deadline_ms` counts from the commit, by the database's clock."""

    image: StoredImage
    recipe: str
    priority: str = "live"
    batch_id: UUID | None = None
    external_id: str | None = None
    part_id: str | None = None
    view: str | None = None
    lot_id: str | None = None
    line_id: str | None = None
    station_id: str | None = None
    captured_at: dt.datetime | None = None
    deadline_ms: int | None = None
    callback_url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Submission:
    """What one request brings: one inspection, or a burst that becomes a batch of its own."""

    inspections: Sequence[NewInspection]
    as_batch: bool = False
    callback_url: str | None = None  # of the batch that it becomes

    @property
    def callback_urls(self) -> set[str]:
        """The addresses that want to be called, of the batch and of its inspections."""
        return {url for url in (self.callback_url, *(one.callback_url for one in self.inspections)) if url is not None}


@dataclass(frozen=True)
class Accepted:
    """What one submission became, in the order of its inspections."""

    inspections: list[Inspection]
    recipe_ids: list[int]
    batch_id: UUID | None


def accept(connection: Connection, submissions: Sequence[Submission]) -> list[Accepted | Refused]:
    """Enter the submissions; one that is refused leaves nothing behind and harms none of the others."""
    known = recipes.named(connection, {one.recipe for sub in submissions for one in sub.inspections})
    joined = {one.batch_id for sub in submissions for one in sub.inspections if one.batch_id is not None}
    states = batches.lock_states(connection, joined) if joined else {}
    wanted = {url for sub in submissions for url in sub.callback_urls}
    callbacks = endpoints.callbacks(connection, wanted) if wanted else {}
    refusals = [_refusal(sub, known, states, callbacks) for sub in submissions]
    entering = [sub for sub, refused in zip(submissions, refusals, strict=True) if refused is None]

    ids, now = _draw_ids(connection, sum(len(sub.inspections) + sub.as_batch for sub in entering))
    plan: list[tuple[Submission, UUID | None, list[UUID]]] = []
    for sub in entering:
        batch_id = ids.pop(0) if sub.as_batch else None
        plan.append((sub, batch_id, ids[: len(sub.inspections)]))
        del ids[: len(sub.inspections)]
    _insert(connection, plan, known, callbacks, now)

    views = inspections.by_ids(connection, [one for _, _, own in plan for one in own])
    accepted = iter(
        Accepted([views[one] for one in own], [known[new.recipe].id for new in sub.inspections], batch_id)
        for sub, batch_id, own in plan
    )
    return [next(accepted) if refused is None else refused for refused in refusals]


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that takes no images now."""
    if recipe.state == "archived":
        raise Refused(Code.INVALID_TRANSITION, f"Recipe {recipe.name!r} is archived and takes no images.")
    if recipe.active_version_id is None and recipe.without_model == "refuse":
        raise Refused(
            Code.RECIPE_WITHOUT_MODEL,
            f"Recipe {recipe.name!r} has no active model version. Train or import one, or let its inspections "
            'wait for one: PATCH /v1/recipes/NAME with {"without_model": "wait"}.',
        )


def _refusal(
    submission: Submission, known: dict[str, Recipe], states: dict[UUID, str], callbacks: dict[str, Callback]
) -> Refused | None:
    for url in submission.callback_urls - callbacks.keys():
        return endpoints.unregistered(url)
    try:
        for one in submission.inspections:
            if one.recipe not in known:
                raise recipes.unknown(one.recipe)
            check_recipe(known[one.recipe])
            if one.batch_id is not None:
                _check_joined(one.batch_id, states)
    except Refused as refused:
        return refused
    return None


def _check_joined(batch_id: UUID, states: dict[UUID, str]) -> None:
    if batch_id not in states:
        raise batches.unknown(batch_id)
    if states[batch_id] != "open":
        raise Refused(
            Code.INVALID_TRANSITION, f"Batch {batch_id} is {states[batch_id]}; only an open one can be filled."
        )


def _draw_ids(connection: Connection, number: int) -> tuple[list[UUID], dt.datetime]:
    """New ids, in order, and the time of the transaction, both by the database's clock."""
    rows = connection.execute(text("SELECT uuidv7() FROM generate_series(1, :number)"), {"number": number})
    return list(rows.scalars()), connection.execute(text("SELECT now()")).scalar_one()


def _insert(
    connection: Connection,
    plan: Sequence[tuple[Submission, UUID | None, list[UUID]]],
    known: dict[str, Recipe],
    callbacks: dict[str, Callback],
    now: dt.datetime,
) -> None:
    image_rows: dict[tuple[dt.date, bytes], dict[str, Any]] = {}
    work_rows: list[dict[str, Any]] = []
    sizes: Counter[UUID] = Counter()
    for sub, own_batch, ids in plan:
        if own_batch is not None:
            batches.create(connection, own_batch, closed=True, callback=callbacks.get(sub.callback_url or ""))
        for one, inspection_id in zip(sub.inspections, ids, strict=True):
            batch_id = own_batch or one.batch_id
            if batch_id is not None:
                sizes[batch_id] += 1
            image_rows[one.image.day, one.image.sha256] = _image_row(one.image)
            callback = callbacks.get(one.callback_url or "")
            work_rows.append(_work_row(one, inspection_id, known[one.recipe].id, batch_id, now) | _called(callback))
    if work_rows:
        # In one order, so that two groups that bring the same images cannot wait for each other.
        ordered = [image_rows[key] for key in sorted(image_rows)]
        connection.execute(upsert(images).on_conflict_do_nothing(), ordered)
        connection.execute(insert(work), work_rows)
    if sizes:
        batches.enlarge(connection, sizes)


def _called(callback: Callback | None) -> dict[str, Any]:
    return {
        "callback_endpoint_id": callback.endpoint_id if callback else None,
        "callback_url": callback.url if callback else None,
    }


def _image_row(image: StoredImage) -> dict[str, Any]:
    return {
        "day": image.day,
        "sha256": image.sha256,
        "media_type": image.header.media_type,
        "width": image.header.width,
        "height": image.header.height,
        "bytes": image.size,
    }


def _work_row(
    one: NewInspection, inspection_id: UUID, recipe_id: int, batch_id: UUID | None, now: dt.datetime
) -> dict[str, Any]:
    return {
        "id": inspection_id,
        "recipe_id": recipe_id,
        "priority": one.priority,
        "batch_id": batch_id,
        "external_id": one.external_id,
        "part_id": one.part_id,
        "view": one.view,
        "lot_id": one.lot_id,
        "line_id": one.line_id,
        "station_id": one.station_id,
        "metadata": one.metadata,
        "captured_at": one.captured_at,
        "created_at": now,
        "deadline_at": None if one.deadline_ms is None else now + dt.timedelta(milliseconds=one.deadline_ms),
        "image_day": one.image.day,
        "image_sha256": one.image.sha256,
    }
