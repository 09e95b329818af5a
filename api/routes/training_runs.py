"""`/v1/recipes/{name}/training-runs`: trainings in a worker, from uploaded images or from inspections."""

import asyncio
import re
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import func, select

from api.requests.idempotency import IdempotencyKey, replays, set_replayed
from api.requests.parameters import Limit, RecipePath, Wait, decode_cursor, encode_cursor, items_of_files
from api.requests.uploads import Form, RefusedPart, is_form
from api.responses.problems import STATUS, refuses
from api.responses.schemas import AddedTrainingImages, BatchError, TrainingRunPage
from api.services import Actor, Context, Services
from core.errors import Code, Refused
from core.intake import idempotency
from core.intake.idempotency import Key, KeyedRequest, fingerprint
from core.queue.broker import TRAINING_QUEUE, Task
from core.queue.finishing import Finished
from core.storage.image_store import image_key, training_report_key
from core.training_runs import images, runs
from core.training_runs.documents import TrainingRun
from core.training_runs.images import LABEL, NewImage
from core.training_runs.requests import TrainingRequest
from core.training_runs.runs import GOOD, Run

router = APIRouter(prefix="/v1/recipes/{name}/training-runs", tags=["training"], responses=refuses(Code.RECIPE_UNKNOWN))

_CHANGED = refuses(Code.NOT_FOUND, Code.INVALID_TRANSITION)
_LABEL_SCHEMA = {
    "type": "string",
    "pattern": LABEL,
    "description": "`good` to train on (the default), `test/good` or `test/<type>` to judge with",
}
_IMAGES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "label": _LABEL_SCHEMA,
                        "items": {
                            "type": "string",
                            "description": 'JSON object: file names to `{"label": …}` of these images',
                        },
                    },
                }
            }
        },
    }
}
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}
_PAGE = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    "X-Content-Type-Options": "nosniff",
}


@router.post(
    "",
    status_code=201,
    responses=refuses(Code.IDEMPOTENCY_MISMATCH, Code.IDEMPOTENCY_IN_FLIGHT) | replays(201),
)
async def create_training_run(
    name: RecipePath,
    request: TrainingRequest,
    response: Response,
    services: Context,
    actor: Actor,
    idempotency_key: IdempotencyKey,
) -> TrainingRun:
    """Create an open training run. Add images with `POST …/{id}/images`, name inspections to learn from, or both, and
    then start it with `POST …/{id}/start`.
    """
    with services.in_flight.hold(actor, idempotency_key) as key:
        run, replayed = await asyncio.to_thread(_create, services, name, request, actor, key)
    set_replayed(response, replayed=replayed)
    response.headers["Location"] = f"/v1/recipes/{name}/training-runs/{run.id}"
    return TrainingRun.from_run(run)


def _create(services: Services, name: str, request: TrainingRequest, actor: str, key: Key | None) -> tuple[Run, bool]:
    """Create a run. The second value is true if the key already created it."""
    content = {"recipe": name, **request.model_dump(mode="json")}
    use = None if key is None else KeyedRequest(key, fingerprint("training_run", content))
    with services.transaction() as connection:
        run_id = connection.execute(select(func.uuidv7())).scalar_one()
        [key_use] = idempotency.insert_keys(connection, [(use, [run_id])])
        if isinstance(key_use, Refused):
            raise key_use
        if key_use.replayed:
            return runs.as_first_answered(runs.by_id(connection, key_use.subjects[0])), True
        return runs.create(connection, name, request, actor=actor, run_id=run_id), False


class _Listing(BaseModel):
    """The query of a listing."""

    status: Literal["open", "queued", "running", "completed", "failed", "cancelled"] | None = None
    cursor: str | None = None
    limit: Limit = 20


@router.get("", responses=refuses(Code.INVALID_CURSOR))
def list_training_runs(name: RecipePath, listing: Annotated[_Listing, Query()], services: Context) -> TrainingRunPage:
    """List the training runs of a recipe, newest first."""
    with services.transaction() as connection:
        items, following = runs.list_page(
            connection, name, state=listing.status, before=decode_cursor(listing.cursor), limit=listing.limit
        )
    return TrainingRunPage(items=[TrainingRun.from_run(run) for run in items], next_cursor=encode_cursor(following))


@router.get("/{run_id}")
async def get_training_run(name: RecipePath, run_id: UUID, services: Context, wait: Wait = 0) -> TrainingRun:
    """Get a run, its progress and its result. `wait` waits until it is final."""
    load = partial(_load, services, name)
    return TrainingRun.from_run(await services.long_polls.final("training_run", run_id, wait, load))


def _load(services: Services, name: str, run_id: UUID) -> Run:
    with services.transaction() as connection:
        return runs.get(connection, name, run_id)


@router.post(
    "/{run_id}/images",
    openapi_extra=_IMAGES,
    responses=refuses(
        Code.EMPTY_BODY,
        Code.INVALID_TRANSITION,
        Code.IMAGE_TOO_LARGE,
        Code.TOO_MANY_IMAGES,
        Code.UNSUPPORTED_MEDIA_TYPE,
        Code.MULTIPLE_FRAMES,
        Code.REQUEST_TIMEOUT,
        Code.STORE_FULL,
        Code.STORE_UNAVAILABLE,
    ),
)
async def add_training_images(
    name: RecipePath, run_id: UUID, request: Request, services: Context
) -> AddedTrainingImages:
    """Add images to an open run: a form with many parts `images`, as many as a batch may have.

    A refused image appears in `errors` and does not affect the others. An image that the run has already is not added
    again, so you can repeat a request.
    """
    if not is_form(request):
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, "Send the images as multipart/form-data, in parts named `images`.")
    services.group_commit.space.check()
    await asyncio.to_thread(_check_open, services, name, run_id)
    limit = services.settings.max_batch_images
    async with services.receiver.form(request, image="images", max_images=limit) as form:
        new_images = _labelled(form)
        added = await services.receiver.in_thread(lambda: _add(services, name, run_id, form, new_images))
    errors = [_error(image.file_name, image.refused) for image in form.images if isinstance(image, RefusedPart)]
    for new, label in added.conflicts:
        detail = f"The run has this image already, with the label {label!r}. Create a new run to change it."
        errors.append(_error(new.name, Refused(Code.INVALID_FIELD, detail)))
    run = await asyncio.to_thread(_load, services, name, run_id)
    return AddedTrainingImages(added=added.added, duplicates=added.duplicates, errors=errors, images=run.images)


def _check_open(services: Services, name: str, run_id: UUID) -> None:
    with services.transaction() as connection:
        images.check_open(connection, name, run_id)


def _labelled(form: Form) -> list[NewImage]:
    """The received images of a form, with their labels.

    Raises:
        Refused: INVALID_FIELD for an unknown field or a wrong label; EMPTY_BODY without an image; the code of the first
            refused image if all were refused.
    """
    fields = dict(form.fields)
    items = items_of_files(fields.pop("items", "{}"))
    common = _check_label(fields.pop("label", GOOD))
    if fields:
        raise Refused(Code.INVALID_FIELD, f"{min(fields)}: not a field of this form; it takes images, label and items.")
    if not form.images:
        raise Refused(Code.EMPTY_BODY, "The form has no images: send them in parts named `images`.")
    labels = {file_name: _label_of(item, common) for file_name, item in items.items()}
    if unmatched := sorted(labels.keys() - {image.file_name for image in form.images}):
        raise Refused(Code.INVALID_FIELD, f"items: no image has the file name {unmatched[0]!r}.")
    if not form.received:
        first = next(image for image in form.images if isinstance(image, RefusedPart))
        reason = f"None of the {len(form.images)} image(s) was accepted: {first.refused.detail}"
        raise Refused(first.refused.code, reason)
    return [
        NewImage(received.image, labels.get(received.file_name or "", common), _storable(received.file_name))
        for received in form.received
    ]


def _label_of(item: dict[str, Any], common: str) -> str:
    if unknown := sorted(item.keys() - {"label"}):
        raise Refused(Code.INVALID_FIELD, f"items: {unknown[0]!r} is not a field of an image; it takes label.")
    return _check_label(item.get("label", common))


def _check_label(label: Any) -> str:
    if not isinstance(label, str) or re.fullmatch(LABEL, label) is None:
        raise Refused(Code.INVALID_FIELD, "label: must be good, test/good or test/ and the type of a defect.")
    return label


def _storable(file_name: str | None) -> str | None:
    """A file name without what PostgreSQL cannot store, of limited length."""
    return file_name and file_name.replace("\x00", "?")[-200:]


def _add(services: Services, name: str, run_id: UUID, form: Form, new_images: list[NewImage]) -> images.Added:
    """Publish the images in the store, durably, and add them to the run."""
    keys = [image_key(received.image.day, received.image.sha256) for received in form.received]
    services.store.publish(zip((received.staged for received in form.received), keys, strict=True))
    with services.transaction() as connection:
        return images.add(connection, name, run_id, new_images)


def _error(file_name: str | None, refused: Refused) -> BatchError:
    return BatchError(
        external_id=_storable(file_name),
        code=refused.code,
        detail=refused.detail,
        status=STATUS[refused.code].value,
    )


@router.post("/{run_id}/start", responses=_CHANGED)
def start_training_run(name: RecipePath, run_id: UUID, services: Context, actor: Actor) -> TrainingRun:
    """Start an open run: a training worker trains it as soon as it is free.

    The new version becomes `ready` once a worker has checked it, as an uploaded one does.
    """
    with services.transaction() as connection:
        run = runs.start(connection, name, run_id, actor=actor)
    services.publisher.call(Task.TRAIN, queue=TRAINING_QUEUE)
    return TrainingRun.from_run(run)


@router.post("/{run_id}/cancel", responses=_CHANGED)
def cancel_training_run(name: RecipePath, run_id: UUID, services: Context, actor: Actor) -> TrainingRun:
    """Cancel a run that has not ended. Its worker stops within about a second."""
    with services.transaction() as connection:
        run = runs.cancel(connection, name, run_id, actor=actor)
    services.publisher.notify(Finished([], [], [run.id]))
    return TrainingRun.from_run(run)


@router.get("/{run_id}/report", response_class=Response, responses=_HTML | _CHANGED)
def get_training_report(name: RecipePath, run_id: UUID, services: Context) -> Response:
    """Get the report of a completed run, a self-contained page: the false-reject rate, detection, examples, and what
    the version would have changed. 409 `invalid_transition` if the run is not completed.
    """
    run = _load(services, name, run_id)
    if run.state != "completed":
        raise Refused(
            Code.INVALID_TRANSITION, f"Training run {run_id} is {run.state}; only a completed one has a report."
        )
    try:
        page = services.store.read(training_report_key(run_id))
    except FileNotFoundError:
        raise Refused(Code.NOT_FOUND, f"The report of training run {run_id} went with its model version.") from None
    return Response(page, media_type="text/html; charset=utf-8", headers=_PAGE)
