"""`/v1/inspections`: handing images in and reading what became of them."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from api import on_demand
from api.requests.group_commit import Upload
from api.requests.idempotency import IdempotencyKey, replays, set_replayed
from api.requests.parameters import (
    Label,
    Limit,
    Moment,
    Name,
    RecipeName,
    UploadFields,
    View,
    Wait,
    decode_cursor,
    encode_cursor,
    once_each,
    refuse_unstorable,
    upload_fields,
)
from api.requests.uploads import Received, is_form, is_image
from api.responses.problems import refuses
from api.responses.schemas import InspectionPage, OpcUaPage, binary
from api.services import Actor, Context, Services
from core.documents.documents import Inspection
from core.documents.opcua import OpcUaResult
from core.errors import Code, Refused
from core.inspection import inspections, reviews
from core.inspection.inspections import Filters
from core.intake.idempotency import Key
from core.intake.image_decoding import MEDIA_TYPES, Header
from core.intake.submission import Accepted, NewInspection, StoredImage
from core.queue import finishing
from core.queue.finishing import Finished
from core.storage.image_store import image_key

router = APIRouter(prefix="/v1/inspections", tags=["inspections"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        **UploadFields.model_json_schema()["properties"],
                    },
                }
            },
        },
    },
    "parameters": [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in UploadFields.model_json_schema()["properties"].items()
    ],
}
UPLOAD_REFUSALS = (
    Code.EMPTY_BODY,
    Code.RECIPE_UNKNOWN,
    Code.RECIPE_WITHOUT_MODEL,
    Code.INVALID_TRANSITION,
    Code.IDEMPOTENCY_IN_FLIGHT,
    Code.IMAGE_TOO_LARGE,
    Code.TOO_MANY_IMAGES,
    Code.UNSUPPORTED_MEDIA_TYPE,
    Code.MULTIPLE_FRAMES,
    Code.CALLBACK_UNREGISTERED,
    Code.WEBHOOK_TARGET_REFUSED,
    Code.IDEMPOTENCY_MISMATCH,
    Code.QUEUE_FULL,
    Code.WAITING_QUEUE_FULL,
    Code.REQUEST_TIMEOUT,
    Code.STORE_FULL,
    Code.STORE_UNAVAILABLE,
)
MAP_REFUSALS = refuses(Code.MALFORMED_REQUEST, Code.INVALID_TRANSITION, Code.TIMEOUT)
IMMUTABLE = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


def new_inspection(services: Services, received: Received, fields: UploadFields) -> NewInspection:
    """An image and its fields, with the default recipe where none was named."""
    own = fields.model_dump(exclude={"recipe", "external_id"})
    return NewInspection(
        image=received.image,
        recipe=fields.recipe or services.settings.default_recipe,
        external_id=fields.external_id,
        **own,
    )


@router.post(
    "", status_code=202, openapi_extra=_BODY, responses=refuses(Code.NOT_FOUND, *UPLOAD_REFUSALS) | replays(202)
)
async def submit_inspection(
    request: Request, response: Response, services: Context, actor: Actor, idempotency_key: IdempotencyKey
) -> Inspection:
    """Hand in one image: the raw bytes with the fields as query parameters, or a form with one part `image`.

    The answer comes when the image and its row are durable, not when it has been examined.
    """
    with services.in_flight.hold(actor, idempotency_key) as key:
        if is_form(request):
            accepted = await _submit_form(request, services, key)
        elif is_image(request):
            accepted = await _submit_raw(request, services, key)
        else:
            raise Refused(
                Code.UNSUPPORTED_MEDIA_TYPE, "Send the image with an image/* content type, or as multipart/form-data."
            )
    set_replayed(response, replayed=accepted.replayed)
    inspection = accepted.inspections[0]
    response.headers["Location"] = f"/v1/inspections/{inspection.id}"
    return Inspection.of(inspection)


async def _submit_raw(request: Request, services: Services, key: Key | None) -> Accepted:
    fields = upload_fields(once_each(request.query_params.multi_items()))
    recipe = fields.recipe or services.settings.default_recipe
    await services.group_commit.check(recipe, fields.priority or "live", key)
    await services.group_commit.check_callbacks([fields.callback_url], key)
    async with services.receiver.raw(request) as received:
        new = new_inspection(services, received, fields)
        return await services.group_commit.submit([Upload(received.staged, new)], key=key)


async def _submit_form(request: Request, services: Services, key: Key | None) -> Accepted:
    async with services.receiver.form(request, image="image", max_images=1) as form:
        given = once_each([*request.query_params.multi_items(), *form.fields.items()])
        received = form.the_image("image")
        fields = upload_fields({"external_id": received.file_name or None, **given})
        new = new_inspection(services, received, fields)
        await services.group_commit.check(new.recipe, new.priority, key)
        await services.group_commit.check_callbacks([new.callback_url], key)
        return await services.group_commit.submit([Upload(received.staged, new)], key=key)


def view(services: Services, inspection_id: UUID) -> inspections.Inspection:
    """One inspection as it stands; refuses an unknown id."""
    with services.transaction() as connection:
        return inspections.get(connection, inspection_id)


async def final_view(services: Services, inspection_id: UUID, wait: float) -> inspections.Inspection:
    """One inspection once it is final, or as it stands after `wait` seconds."""
    return await services.long_polls.final("inspection", inspection_id, wait, partial(view, services))


class ListingFilters(BaseModel):
    """What a listing is narrowed to."""

    recipe: RecipeName | None = None
    part_id: Label | None = None
    lot_id: Label | None = None
    line_id: Label | None = None
    station_id: Label | None = None
    batch_id: UUID | None = None
    verdict: Annotated[Literal["ok", "ng", "review"] | None, Query(description="what the machine said")] = None
    effective_verdict: Annotated[
        Literal["ok", "ng", "review"] | None,
        Query(description="what people said last, else the machine; `review` waits for a person"),
    ] = None
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None = None
    since: Moment | None = None
    until: Moment | None = None

    def filters(self) -> Filters:
        return Filters(**{name: getattr(self, name) for name in ListingFilters.model_fields})


class _Listing(ListingFilters):
    """The filters of a listing, its cursor, its size and its vocabulary."""

    cursor: str | None = None
    limit: Limit = 100
    view: View | None = None


@router.get("", responses=refuses(Code.INVALID_CURSOR))
def list_inspections(listing: Annotated[_Listing, Query()], services: Context) -> InspectionPage | OpcUaPage:
    """Inspections, newest first; with `view=opcua` in the shape of OPC UA for Machine Vision."""
    with services.transaction() as connection:
        items, following = inspections.list_page(
            connection, listing.filters(), before=decode_cursor(listing.cursor), limit=listing.limit
        )
    next_cursor = encode_cursor(following)
    if listing.view == "opcua":
        return OpcUaPage(items=[OpcUaResult.of(one) for one in items], next_cursor=next_cursor)
    return InspectionPage(items=[Inspection.of(one) for one in items], next_cursor=next_cursor)


@router.get("/{inspection_id}")
async def get_inspection(
    inspection_id: UUID, services: Context, wait: Wait = 0, view: View | None = None
) -> Inspection | OpcUaResult:
    """One inspection; with `wait`, as soon as it is final; with `view=opcua` in the shape of OPC UA."""
    found = await final_view(services, inspection_id, wait)
    return OpcUaResult.of(found) if view == "opcua" else Inspection.of(found)


@router.post("/{inspection_id}/cancel", responses=refuses(Code.INVALID_TRANSITION))
def cancel_inspection(inspection_id: UUID, services: Context) -> Inspection:
    """Cancel an inspection that is not final."""
    with services.transaction() as connection:
        finished = finishing.cancel(connection, inspection_id)
        found = inspections.get(connection, inspection_id)
    if not finished.inspections and found.status != "cancelled":
        raise Refused(Code.INVALID_TRANSITION, f"Inspection {inspection_id} is {found.status} and cannot be cancelled.")
    services.publisher.notify(finished)
    return Inspection.of(found)


class NewReview(BaseModel):
    """A person's verdict, with a name and a reason."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["ok", "ng"]
    reviewer: Name
    reason: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000), AfterValidator(refuse_unstorable)
    ]


@router.post("/{inspection_id}/reviews", status_code=201, responses=refuses(Code.INVALID_TRANSITION))
def review_inspection(inspection_id: UUID, new: NewReview, services: Context, actor: Actor) -> Inspection:
    """Overrule the verdict of an inspection. The machine's stays; the newest review is the `effective_verdict`."""
    with services.transaction() as connection:
        found = reviews.add(connection, inspection_id, **new.model_dump(), actor=actor)
    services.publisher.notify(Finished([inspection_id], []))
    return Inspection.of(found)


@router.get("/{inspection_id}/image", response_class=FileResponse, responses=binary(*MEDIA_TYPES.values()))
def get_image(inspection_id: UUID, services: Context) -> FileResponse:
    """The stored bytes of the image."""
    found = view(services, inspection_id)
    path = services.store.path(image_key(found.image_day, found.image_sha256))
    if not path.is_file():
        raise Refused(Code.NOT_FOUND, f"The image of inspection {inspection_id} is no longer in the store.")
    return FileResponse(
        path,
        media_type=found.image_media_type,
        headers=IMMUTABLE,
    )


@router.get(
    "/{inspection_id}/anomaly-map",
    response_class=Response,
    responses=binary("application/octet-stream") | MAP_REFUSALS,
)
async def get_anomaly_map(inspection_id: UUID, services: Context) -> Response:
    """The anomaly map of the version that scored: float32, rows by columns, as a NumPy `.npy` file."""
    examined = await asyncio.to_thread(_scored_inspection, services, inspection_id, "anomaly map")
    data = await on_demand.anomaly_map(services, examined.image, examined.version_id, examined.sha256)
    return Response(data, media_type="application/octet-stream")


@router.get("/{inspection_id}/heatmap", response_class=Response, responses=binary("image/png") | MAP_REFUSALS)
async def get_heatmap(inspection_id: UUID, services: Context) -> Response:
    """The image with its anomaly map laid over it, as PNG, upright and of its own size up to 4096 pixels a side.

    The scale is fixed by the inspection's own threshold: nothing is drawn below half of it, a cool tint up to it, then
    a step with a contour, hot colours above, and no more from three times it on. A part whose score is below the
    threshold never shows a hot colour.
    """
    examined = await asyncio.to_thread(_scored_inspection, services, inspection_id, "heatmap")
    data = await on_demand.heatmap(
        services,
        examined.image.day,
        examined.image.sha256,
        examined.version_id,
        examined.sha256,
        score=examined.score,
        threshold=examined.threshold,
    )
    return Response(data, media_type="image/png", headers=IMMUTABLE)


@dataclass(frozen=True)
class _ScoredInspection:
    """What an anomaly map is made of: a stored image, and what a model version said of it."""

    image: StoredImage
    version_id: int
    sha256: bytes
    score: float
    threshold: float


def _scored_inspection(services: Services, inspection_id: UUID, what: str) -> _ScoredInspection:
    """A completed inspection; refuses any other."""
    found = view(services, inspection_id)
    if (
        found.status != "completed"
        or found.model_version_id is None
        or found.model_sha256 is None
        or found.anomaly_score is None
        or found.threshold is None
    ):
        raise Refused(Code.INVALID_TRANSITION, f"Inspection {inspection_id} is {found.status}; it has no {what}.")
    header = Header(found.image_media_type, found.image_width, found.image_height)
    stored = StoredImage(found.image_day, found.image_sha256, found.image_bytes, header)
    return _ScoredInspection(stored, found.model_version_id, found.model_sha256, found.anomaly_score, found.threshold)
