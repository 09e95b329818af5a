"""Accept images that are already in the store: insert their rows, many submissions in one transaction."""

import datetime as dt
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from itertools import islice
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, text

from core.delivery import endpoints
from core.errors import Code, Refused
from core.feed.events import Callback
from core.inspection import inspections
from core.inspection.inspections import Inspection
from core.intake import idempotency, insertion
from core.intake.idempotency import Key, KeyedRequest, KeyedResult, fingerprint
from core.intake.image_decoding import Header
from core.intake.insertion import Inserted
from core.models import recipes
from core.models.recipes import Recipe
from core.queue import batches
from core.queue.batches import Batch


@dataclass(frozen=True)
class StoredImage:
    """An image that is durably stored."""

    day: dt.date
    sha256: bytes
    size: int
    header: Header


@dataclass(frozen=True)
class NewInspection:
    """One image with its fields. `deadline_ms` counts from the start of the transaction, by the database's clock."""

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
    """The inspections of one request. With `as_batch` they become a batch, which stays open if it has no images.

    Attributes:
        callback_url: of the batch.
        keyed_request: the idempotency key and fingerprint, if the request has a key.
        api_key: the prefix of the API key of the request; None without authentication.
        trace_context: the trace of the request goes on from here; None if it is not traced.
    """

    inspections: Sequence[NewInspection]
    as_batch: bool = False
    callback_url: str | None = None
    keyed_request: KeyedRequest | None = None
    api_key: str | None = None
    trace_context: str | None = None

    @property
    def callback_urls(self) -> set[str]:
        """The callback URLs of the batch and of its inspections."""
        urls = (self.callback_url, *(inspection.callback_url for inspection in self.inspections))
        return {url for url in urls if url is not None}

    def with_key(self, key: Key, errors: Sequence[Mapping[str, Any]] = ()) -> Self:
        """A copy with an idempotency key; `errors` are the refused parts of the request, as in the answer."""
        fields = {name: value for name, value in vars(self).items() if name not in _NOT_CONTENT}
        request = fields | {"refused": [error["external_id"] for error in errors]}
        digest = fingerprint("submission", request, _for_fingerprint)
        return replace(self, keyed_request=KeyedRequest(key, digest, {"errors": list(errors)}))


_NOT_CONTENT = ("keyed_request", "api_key", "trace_context")
"""What may differ between a request and its repetition."""


def _for_fingerprint(value: Any) -> Any:
    """Convert a value to JSON. An image is identified by its hash alone, because a retry may come on another day."""
    if isinstance(value, StoredImage):
        return value.sha256.hex()
    return vars(value) if is_dataclass(value) else str(value)


@dataclass(frozen=True)
class Accepted:
    """The answer to a submission, or to the first one under its key, in the state at acceptance.

    Attributes:
        inspections: in the order of submission.
        recipe_ids: likewise; empty if replayed.
        detail: stored with the key.
        replayed: whether it was accepted earlier, so that nothing was inserted now.
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
    """Insert the submissions. A refused submission inserts nothing and does not affect the others.

    The inspections are marked as published; the caller must publish them after the commit.
    """
    new_ids, now = _new_ids(connection, submissions)
    outcomes = idempotency.insert_keys(
        connection, [(sub.keyed_request, subjects) for sub, subjects in zip(submissions, new_ids, strict=True)]
    )
    new_inspections = [new for sub in submissions for new in sub.inspections]
    recipes_by_name = recipes.by_names(connection, {new.recipe for new in new_inspections})
    joined_batch_ids = {new.batch_id for new in new_inspections if new.batch_id is not None}
    batch_states = batches.lock_states(connection, joined_batch_ids) if joined_batch_ids else {}
    urls = {url for sub in submissions for url in sub.callback_urls}
    callbacks = endpoints.callbacks(connection, urls) if urls else {}

    plan: list[tuple[Submission, list[UUID]]] = []
    refused_keys: list[Key] = []
    for number, (sub, outcome) in enumerate(zip(submissions, outcomes, strict=True)):
        if isinstance(outcome, Refused) or outcome.replayed:
            continue
        refused = _refusal(sub, recipes_by_name, batch_states, callbacks)
        if refused is None:
            plan.append((sub, outcome.subjects))
        else:
            outcomes[number] = refused
            refused_keys += [sub.keyed_request.key] if sub.keyed_request else []
    idempotency.delete_keys(connection, refused_keys)
    inserted = _insert(connection, plan, recipes_by_name, callbacks, now)
    return _answers(connection, submissions, outcomes, recipes_by_name, inserted)


def _answers(
    connection: Connection,
    submissions: Sequence[Submission],
    outcomes: Sequence[KeyedResult | Refused],
    recipes_by_name: Mapping[str, Recipe],
    inserted: Mapping[UUID, Inspection],
) -> list[Accepted | Refused]:
    """The answer to each submission. Those of replays are read from the stored rows."""
    sizes: dict[UUID, int] = {}
    replayed: list[UUID] = []
    for sub, outcome in zip(submissions, outcomes, strict=True):
        if isinstance(outcome, KeyedResult):
            if outcome.replayed:
                replayed += outcome.subjects[sub.as_batch :]
            if sub.as_batch:
                sizes[outcome.subjects[0]] = len(outcome.subjects) - 1
    stored = inspections.by_ids(connection, replayed) if replayed else {}
    answered_batches = batches.as_first_answered(connection, sizes) if sizes else {}

    def answer(sub: Submission, outcome: KeyedResult) -> Accepted:
        subjects = outcome.subjects[sub.as_batch :]
        batch = answered_batches[outcome.subjects[0]] if sub.as_batch else None
        if outcome.replayed:
            first_answers = [inspections.as_first_answered(stored[subject]) for subject in subjects]
            return Accepted(first_answers, [], batch, outcome.detail, replayed=True)
        recipe_ids = [recipes_by_name[new.recipe].id for new in sub.inspections]
        return Accepted([inserted[subject] for subject in subjects], recipe_ids, batch, outcome.detail, replayed=False)

    return [
        outcome if isinstance(outcome, Refused) else answer(sub, outcome)
        for sub, outcome in zip(submissions, outcomes, strict=True)
    ]


def check_recipe(recipe: Recipe) -> None:
    """Refuse if the recipe does not accept images now."""
    if recipe.state == "archived":
        raise Refused(Code.INVALID_TRANSITION, f"Recipe {recipe.name!r} is archived and does not accept images.")
    if recipe.active_version_id is None and recipe.without_model == "refuse":
        raise Refused(
            Code.RECIPE_WITHOUT_MODEL,
            f"Recipe {recipe.name!r} has no active model version. Train or import one, or let inspections "
            'wait for a model version: PATCH /v1/recipes/NAME with {"without_model": "wait"}.',
        )


def _refusal(
    submission: Submission,
    recipes_by_name: dict[str, Recipe],
    batch_states: dict[UUID, str],
    callbacks: dict[str, Callback],
) -> Refused | None:
    for url in submission.callback_urls - callbacks.keys():
        return endpoints.unregistered(url)
    try:
        for new in submission.inspections:
            if new.recipe not in recipes_by_name:
                raise recipes.unknown_recipe(new.recipe)
            check_recipe(recipes_by_name[new.recipe])
            if new.batch_id is not None:
                _check_open(new.batch_id, batch_states)
    except Refused as refused:
        return refused
    return None


def _check_open(batch_id: UUID, batch_states: dict[UUID, str]) -> None:
    if batch_id not in batch_states:
        raise batches.unknown_batch(batch_id)
    state = batch_states[batch_id]
    if state != "open":
        raise Refused(Code.INVALID_TRANSITION, f"Batch {batch_id} is {state}; images can be added only to an open one.")


def _new_ids(connection: Connection, submissions: Sequence[Submission]) -> tuple[list[list[UUID]], dt.datetime]:
    """New ids for each submission, and the start of the transaction, both by the database's clock.

    The id of the batch, if there is one, comes first, then those of the inspections.
    """
    sizes = [sub.as_batch + len(sub.inspections) for sub in submissions]
    query = text("SELECT uuidv7() AS id, now() AS now FROM generate_series(1, :number)")
    rows = connection.execute(query, {"number": sum(sizes)}).all()
    ids = iter([row.id for row in rows])
    return [list(islice(ids, size)) for size in sizes], rows[0].now


def _insert(
    connection: Connection,
    plan: Sequence[tuple[Submission, list[UUID]]],
    recipes_by_name: Mapping[str, Recipe],
    callbacks: Mapping[str, Callback],
    now: dt.datetime,
) -> dict[UUID, Inspection]:
    """Insert the accepted submissions. Returns their inspections by id."""
    queued: dict[UUID, tuple[NewInspection, UUID | None]] = {}
    rows: list[dict[str, Any]] = []
    sizes: Counter[UUID] = Counter()
    for sub, subjects in plan:
        new_batch_id = subjects[0] if sub.as_batch else None
        if new_batch_id is not None:
            callback = callbacks.get(sub.callback_url or "")
            batches.create(connection, new_batch_id, closed=bool(sub.inspections), callback=callback)
        for new, inspection_id in zip(sub.inspections, subjects[sub.as_batch :], strict=True):
            batch_id = new_batch_id or new.batch_id
            if batch_id is not None:
                sizes[batch_id] += 1
            queued[inspection_id] = new, batch_id
            callback = callbacks.get(new.callback_url or "")
            recipe_id = recipes_by_name[new.recipe].id
            rows.append(_row(new, sub, inspection_id, recipe_id, batch_id, callback, now))
    inserted = insertion.insert(connection, rows) if rows else {}
    if sizes:
        batches.add_to_totals(connection, sizes)
    return {
        inspection_id: _queued(inspection_id, new, batch_id, inserted[inspection_id], now)
        for inspection_id, (new, batch_id) in queued.items()
    }


def image_row(image: StoredImage) -> dict[str, Any]:
    """The row of a stored image in the table `images`."""
    return {"day": image.day, "sha256": image.sha256, **_image_columns(image)}


def _image_columns(image: StoredImage) -> dict[str, Any]:
    return {
        "media_type": image.header.media_type,
        "width": image.header.width,
        "height": image.header.height,
        "bytes": image.size,
    }


def _row(
    new: NewInspection,
    submission: Submission,
    inspection_id: UUID,
    recipe_id: int,
    batch_id: UUID | None,
    callback: Callback | None,
    now: dt.datetime,
) -> dict[str, Any]:
    """The row for `insertion.insert`, without the columns that are null: they need not be sent."""
    row = {
        "id": inspection_id,
        "recipe_id": recipe_id,
        "priority": new.priority,
        "batch_id": batch_id,
        "external_id": new.external_id,
        "part_id": new.part_id,
        "view": new.view,
        "lot_id": new.lot_id,
        "line_id": new.line_id,
        "station_id": new.station_id,
        "metadata": new.metadata,
        "captured_at": new.captured_at,
        "deadline_at": None if new.deadline_ms is None else now + dt.timedelta(milliseconds=new.deadline_ms),
        "callback_endpoint_id": None if callback is None else callback.endpoint_id,
        "callback_url": None if callback is None else callback.url,
        "image_day": new.image.day,
        "image_sha256": new.image.sha256,
        "api_key": submission.api_key,
        "trace_context": submission.trace_context,
        **_image_columns(new.image),
    }
    return {name: value for name, value in row.items() if value is not None}


def _queued(
    inspection_id: UUID, new: NewInspection, batch_id: UUID | None, inserted: Inserted, now: dt.datetime
) -> Inspection:
    """A new inspection, as `inspections.by_ids` would read it from its row."""
    return inspections.queued(
        id=inspection_id,
        recipe=new.recipe,
        priority=new.priority,
        batch_id=batch_id,
        external_id=new.external_id,
        part_id=new.part_id,
        view=new.view,
        lot_id=new.lot_id,
        line_id=new.line_id,
        station_id=new.station_id,
        metadata=inserted.metadata,
        image_day=new.image.day,
        image_sha256=new.image.sha256,
        image_media_type=new.image.header.media_type,
        image_width=new.image.header.width,
        image_height=new.image.header.height,
        image_bytes=new.image.size,
        captured_at=inserted.captured_at,
        deadline_at=inserted.deadline_at,
        created_at=now,
    )
