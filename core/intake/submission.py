"""Accepting images: rows for what lies durably in the store, many submissions in one transaction."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from itertools import islice
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, insert, text
from sqlalchemy.dialects.postgresql import insert as upsert

from core.delivery import endpoints
from core.errors import Code, Refused
from core.feed.events import Callback
from core.inspection import inspections
from core.inspection.inspections import Inspection
from core.intake import idempotency
from core.intake.idempotency import Key, KeyedRequest, KeyedResult, fingerprint
from core.intake.image_decoding import Header
from core.models import recipes
from core.models.recipes import Recipe
from core.queue import batches
from core.queue.batches import Batch
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
    """What one request brings: one inspection, or a burst that becomes a batch; one without images is left open.

    Attributes:
        callback_url: of the batch that it becomes.
        use: of an idempotency key, where the request came under one.
    """

    inspections: Sequence[NewInspection]
    as_batch: bool = False
    callback_url: str | None = None
    use: KeyedRequest | None = None

    @property
    def callback_urls(self) -> set[str]:
        """The addresses that want to be called, of the batch and of its inspections."""
        return {url for url in (self.callback_url, *(one.callback_url for one in self.inspections)) if url is not None}

    def under(self, key: Key, errors: Sequence[Mapping[str, Any]] = ()) -> Self:
        """The same under an idempotency key; `errors` are the rejected parts, as in the answer."""
        own = {name: value for name, value in vars(self).items() if name != "use"}
        asked = own | {"refused": [one["external_id"] for one in errors]}
        return replace(self, use=KeyedRequest(key, fingerprint("submission", asked, _plain), {"errors": list(errors)}))


def _plain(value: Any) -> Any:
    """For a fingerprint: an image is its bytes, on whichever day it arrives."""
    if isinstance(value, StoredImage):
        return value.sha256.hex()
    return vars(value) if is_dataclass(value) else str(value)


@dataclass(frozen=True)
class Accepted:
    """What one submission became, or the first one under its key, as it was when it was accepted.

    Attributes:
        inspections, recipe_ids: in the order in which they were submitted.
        detail: what was kept with the key.
        replayed: whether it was accepted before, and nothing was added now.
    """

    inspections: list[Inspection]
    recipe_ids: list[int]
    batch: Batch | None
    detail: dict[str, Any]
    replayed: bool

    @property
    def batch_id(self) -> UUID | None:
        return None if self.batch is None else self.batch.id


def accept(connection: Connection, submissions: Sequence[Submission]) -> list[Accepted | Refused]:
    """Enter the submissions; one that is refused leaves nothing behind and harms none of the others."""
    drawn, now = _draw_subjects(connection, submissions)
    outcomes = idempotency.enter_keys(connection, [(sub.use, own) for sub, own in zip(submissions, drawn, strict=True)])
    known = recipes.named(connection, {one.recipe for sub in submissions for one in sub.inspections})
    joined = {one.batch_id for sub in submissions for one in sub.inspections if one.batch_id is not None}
    states = batches.lock_states(connection, joined) if joined else {}
    wanted = {url for sub in submissions for url in sub.callback_urls}
    callbacks = endpoints.callbacks(connection, wanted) if wanted else {}

    plan: list[tuple[Submission, list[UUID]]] = []
    refused_keys: list[Key] = []
    for number, (sub, outcome) in enumerate(zip(submissions, outcomes, strict=True)):
        if isinstance(outcome, Refused) or outcome.replayed:
            continue
        refused = _refusal(sub, known, states, callbacks)
        if refused is None:
            plan.append((sub, outcome.subjects))
        else:
            outcomes[number] = refused
            refused_keys += [sub.use.key] if sub.use else []
    idempotency.forget(connection, refused_keys)
    _insert(connection, plan, known, callbacks, now)
    return _answers(connection, submissions, outcomes, known)


def _answers(
    connection: Connection,
    submissions: Sequence[Submission],
    outcomes: Sequence[KeyedResult | Refused],
    known: Mapping[str, Recipe],
) -> list[Accepted | Refused]:
    """What to say to each, read from what is stored: the first answer and its replays are made by the same hands."""
    sizes: dict[UUID, int] = {}
    ids: list[UUID] = []
    for sub, outcome in zip(submissions, outcomes, strict=True):
        if isinstance(outcome, KeyedResult):
            ids += outcome.subjects[sub.as_batch :]
            if sub.as_batch:
                sizes[outcome.subjects[0]] = len(outcome.subjects) - 1
    views = inspections.by_ids(connection, ids) if ids else {}
    opened = batches.as_first_answered(connection, sizes)

    def answer(sub: Submission, outcome: KeyedResult) -> Accepted:
        return Accepted(
            [inspections.as_first_answered(views[one]) for one in outcome.subjects[sub.as_batch :]],
            [] if outcome.replayed else [known[one.recipe].id for one in sub.inspections],
            opened[outcome.subjects[0]] if sub.as_batch else None,
            outcome.detail,
            outcome.replayed,
        )

    return [
        outcome if isinstance(outcome, Refused) else answer(sub, outcome)
        for sub, outcome in zip(submissions, outcomes, strict=True)
    ]


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
                raise recipes.unknown_recipe(one.recipe)
            check_recipe(known[one.recipe])
            if one.batch_id is not None:
                _check_joined(one.batch_id, states)
    except Refused as refused:
        return refused
    return None


def _check_joined(batch_id: UUID, states: dict[UUID, str]) -> None:
    if batch_id not in states:
        raise batches.unknown_batch(batch_id)
    if states[batch_id] != "open":
        raise Refused(
            Code.INVALID_TRANSITION, f"Batch {batch_id} is {states[batch_id]}; only an open one can be filled."
        )


def _draw_subjects(connection: Connection, submissions: Sequence[Submission]) -> tuple[list[list[UUID]], dt.datetime]:
    """New ids for each, of its batch where it has one and then of its inspections; and the transaction's time.

    Both are by the database's clock.
    """
    sizes = [sub.as_batch + len(sub.inspections) for sub in submissions]
    drawing = text("SELECT uuidv7() AS id, now() AS now FROM generate_series(1, :number)")
    rows = connection.execute(drawing, {"number": sum(sizes)}).all()
    ids = iter([row.id for row in rows])
    return [list(islice(ids, size)) for size in sizes], rows[0].now


def _insert(
    connection: Connection,
    plan: Sequence[tuple[Submission, list[UUID]]],
    known: dict[str, Recipe],
    callbacks: dict[str, Callback],
    now: dt.datetime,
) -> None:
    image_rows: dict[tuple[dt.date, bytes], dict[str, Any]] = {}
    work_rows: list[dict[str, Any]] = []
    sizes: Counter[UUID] = Counter()
    for sub, subjects in plan:
        own_batch = subjects[0] if sub.as_batch else None
        if own_batch is not None:
            callback = callbacks.get(sub.callback_url or "")
            batches.create(connection, own_batch, closed=bool(sub.inspections), callback=callback)
        for one, inspection_id in zip(sub.inspections, subjects[sub.as_batch :], strict=True):
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
        batches.add_to_totals(connection, sizes)


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
