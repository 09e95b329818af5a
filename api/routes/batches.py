"""`/v1/batches`: many images in one request, or batches that are opened first and filled later."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response

from api.requests.idempotency import IdempotencyKey, replays, set_replayed
from api.requests.image_storing import Upload
from api.requests.parameters import UploadFields, Wait, items_of_files, once_each, parse_json, upload_fields
from api.requests.uploads import Form, Received, RefusedPart, is_form
from api.responses.problems import STATUS, refuses
from api.responses.schemas import BatchError, SubmittedBatch
from api.routes.inspections import UPLOAD_REFUSALS, new_inspection
from api.services import Actor, ApiKey, Context, Services
from core.documents.documents import Batch, Inspection
from core.errors import Code, Refused
from core.intake.idempotency import Key
from core.intake.submission import Accepted
from core.queue import batches, finishing

router = APIRouter(prefix="/v1/batches", tags=["batches"])

_COMMON = UploadFields.model_json_schema()["properties"]
_BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "items": {
                            "type": "string",
                            "description": "JSON object: file names to fields of these images",
                        },
                        **{name: schema for name, schema in _COMMON.items() if name != "batch_id"},
                        "callback_url": {"type": "string", "description": "called once, when the batch is completed"},
                    },
                }
            },
            "application/json": {
                "schema": {"type": "object", "properties": {"callback_url": {"type": ["string", "null"]}}}
            },
        }
    },
    "parameters": [{"name": "callback_url", "in": "query", "required": False, "schema": {"type": "string"}}],
}
_MAX_OPENING_BYTES = 16 * 1024


@router.post("", status_code=202, openapi_extra=_BODY, responses=refuses(*UPLOAD_REFUSALS) | replays(202))
async def submit_batch(
    request: Request,
    response: Response,
    services: Context,
    actor: Actor,
    api_key: ApiKey,
    idempotency_key: IdempotencyKey,
) -> SubmittedBatch:
    """Submit a batch: a form with many parts `images` and the fields that they share. Without images, open a batch, and
    fill it by submitting images with its `batch_id`.

    A refused image appears in `errors` and does not affect the others. `callback_url` is called with
    `batch.completed`. A `callback_url` in `items` is called for the inspection of that image.
    """
    with services.in_flight.hold(actor, idempotency_key) as key:
        if is_form(request):
            accepted, errors = await _submit_form(request, services, key, api_key)
        else:
            accepted, errors = await _open(request, services, await _read_opening(request), key)
    assert accepted.batch is not None  # noqa: S101 - it was submitted as a batch
    set_replayed(response, replayed=accepted.replayed)
    response.headers["Location"] = f"/v1/batches/{accepted.batch.id}"
    return SubmittedBatch(
        **Batch.of(accepted.batch).model_dump(),
        inspections=[Inspection.of(inspection) for inspection in accepted.inspections],
        errors=[BatchError(**error) for error in accepted.detail["errors"]] if accepted.replayed else errors,
    )


async def _submit_form(
    request: Request, services: Services, key: Key | None, api_key: str | None
) -> tuple[Accepted, list[BatchError]]:
    async with services.receiver.form(request, image="images", max_images=services.settings.max_batch_images) as form:
        if not form.images:
            of_images = {name: value for name, value in form.fields.items() if name in UploadFields.model_fields}
            return await _open(request, services, of_images, key)  # they would have no effect
        callback_url = form.fields.pop("callback_url", None)
        callback_url = _callback_url(request, callback_url)
        errors = [_error(image) for image in form.images if isinstance(image, RefusedPart)]
        uploads = _uploads(services, form)
        for recipe, priority in {(upload.new.recipe, upload.new.priority) for upload in uploads}:
            await services.group_commit.check(recipe, priority, key, api_key=api_key)
        if not uploads:
            raise _all_refused(form)
        await services.group_commit.check_callbacks(
            [callback_url, *(upload.new.callback_url for upload in uploads)], key
        )
        accepted = await services.group_commit.submit(
            uploads,
            as_batch=True,
            callback_url=callback_url,
            key=key,
            api_key=api_key,
            errors=[error.model_dump() for error in errors],
        )
        return accepted, errors


def _uploads(services: Services, form: Form) -> list[Upload]:
    common = dict(form.fields)
    items = items_of_files(common.pop("items", "{}"))
    if "batch_id" in common or any("batch_id" in fields for fields in items.values()):
        raise Refused(Code.INVALID_FIELD, "batch_id: not allowed here, because this request creates a new batch.")
    unmatched = sorted(items.keys() - {image.file_name for image in form.images})
    if unmatched:
        raise Refused(Code.INVALID_FIELD, f"items: no image has the file name {unmatched[0]!r}.")
    return [_upload(services, image, common, items.get(image.file_name or "", {})) for image in form.received]


def _upload(services: Services, received: Received, common: Mapping[str, Any], item: Mapping[str, Any]) -> Upload:
    filled_in = {name: value for name, value in item.items() if value != ""}
    fields = upload_fields({"external_id": received.file_name or None, **common, **filled_in})
    return Upload(received.staged, new_inspection(services, received.image, fields))


def _error(part: RefusedPart) -> BatchError:
    return BatchError(
        external_id=part.file_name and part.file_name.replace("\x00", "?"),  # PostgreSQL does not store NUL
        code=part.refused.code,
        detail=part.refused.detail,
        status=STATUS[part.refused.code].value,
    )


def _all_refused(form: Form) -> Refused:
    first = next(image for image in form.images if isinstance(image, RefusedPart))
    return Refused(first.refused.code, f"None of the {len(form.images)} image(s) was accepted: {first.refused.detail}")


async def _read_opening(request: Request) -> Mapping[str, Any]:
    """The optional JSON body of a request that opens a batch."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_OPENING_BYTES:
            break
    try:
        fields = parse_json(bytes(body)) if body.strip() else {}
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise Refused(
            Code.UNSUPPORTED_MEDIA_TYPE,
            'Send images as multipart/form-data, or no body or {"callback_url": …} to open a batch.',
        )
    return fields


def _callback_url(request: Request, in_body: Any) -> str | None:
    """The callback URL of a batch, from the query or the body."""
    in_query = [("callback_url", url) for url in request.query_params.getlist("callback_url")]
    in_body = [] if in_body is None else [("callback_url", in_body)]
    return upload_fields(once_each([*in_query, *in_body])).callback_url


async def _open(
    request: Request, services: Services, fields: Mapping[str, Any], key: Key | None
) -> tuple[Accepted, list[BatchError]]:
    if unknown := sorted(fields.keys() - {"callback_url"}):
        raise Refused(Code.INVALID_FIELD, f"{unknown[0]}: opening a batch takes only callback_url.")
    callback_url = _callback_url(request, fields.get("callback_url"))
    await services.group_commit.check_callbacks([callback_url], key)
    return await services.group_commit.submit([], as_batch=True, callback_url=callback_url, key=key), []


def _load(services: Services, batch_id: UUID) -> batches.Batch:
    with services.transaction() as connection:
        return batches.get(connection, batch_id)


@router.get("/{batch_id}")
async def get_batch(batch_id: UUID, services: Context, wait: Wait = 0) -> Batch:
    """Get a batch and its counts. `wait` waits until it is final."""
    return Batch.of(await services.long_polls.final("batch", batch_id, wait, partial(_load, services)))


@router.post("/{batch_id}/close", responses=refuses(Code.INVALID_TRANSITION))
def close_batch(batch_id: UUID, services: Context) -> Batch:
    """Close an open batch. It is completed when all its inspections are final."""
    with services.transaction() as connection:
        completed = batches.close(connection, batch_id)
        batch = batches.get(connection, batch_id)
    if completed:
        services.publisher.notify(finishing.Finished([], [batch_id]))
    return Batch.of(batch)


@router.post("/{batch_id}/cancel", responses=refuses(Code.INVALID_TRANSITION))
def cancel_batch(batch_id: UUID, services: Context) -> Batch:
    """Cancel a batch and all its inspections that are not final."""
    with services.transaction() as connection:
        finished = finishing.cancel_batch(connection, batch_id)
        services.final_counts.learn(connection, finished)
        batch = batches.get(connection, batch_id)
    services.final_counts.add(finished)
    services.publisher.notify(finished)
    return Batch.of(batch)
