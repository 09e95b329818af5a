"""`/v1/inspections`: submit images and read their inspections."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, model_validator

from api import on_demand
from api.requests.idempotency import IdempotencyKey, replays, set_replayed
from api.requests.image_storing import Upload
from api.requests.parameters import (
    Label,
    Limit,
    Moment,
    Name,
    Reason,
    RecipeName,
    UploadFields,
    View,
    Wait,
    decode_cursor,
    encode_cursor,
    once_each,
    upload_fields,
)
from api.requests.uploads import ANY_BYTES, is_form, is_image
from api.responses.etags import NOT_MODIFIED, IfNoneMatch
from api.responses.problems import refuses
from api.responses.related_inspections import Neighbours
from api.responses.schemas import InspectionPage, OpcUaPage, binary
from api.responses.stored_files import StoredFileResponse
from api.services import Actor, ApiKey, Context, Services
from core.documents.documents import Inspection
from core.documents.opcua import OpcUaResult
from core.errors import Code, Refused
from core.inspection import inspected_images, inspections, neighbours, reviews
from core.inspection.inspections import Filters, Reviewed
from core.intake.idempotency import Key
from core.intake.image_decoding import MEDIA_TYPES, Header
from core.intake.submission import Accepted, NewInspection, StoredImage
from core.queue import finishing
from core.queue.finishing import Finished
from core.storage.image_store import image_key

router = APIRouter(prefix="/v1/inspections", tags=["inspections"])

_BINARY = {"type": "string", "format": "binary"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{kind: {"schema": _BINARY} for kind in (*MEDIA_TYPES.values(), ANY_BYTES)},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": _BINARY,
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
MAP_REFUSALS = refuses(Code.MALFORMED_REQUEST, Code.INVALID_TRANSITION, Code.IMAGE_EXPIRED, Code.TIMEOUT)
IMMUTABLE = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
}


def new_inspection(services: Services, image: StoredImage, fields: UploadFields) -> NewInspection:
    """An inspection of a stored image. Without a recipe in the fields, it gets the default recipe."""
    values = dict(fields)
    return NewInspection(image=image, **{**values, "recipe": fields.recipe or services.settings.default_recipe})


@router.post(
    "", status_code=202, openapi_extra=_BODY, responses=refuses(Code.NOT_FOUND, *UPLOAD_REFUSALS) | replays(202)
)
async def submit_inspection(
    request: Request,
    response: Response,
    services: Context,
    actor: Actor,
    api_key: ApiKey,
    idempotency_key: IdempotencyKey,
) -> Inspection:
    """Submit one image: as raw bytes with the fields as query parameters, or as a form with one part `image`.

    The bytes decide the format, so raw bytes may also come as `application/octet-stream` or without a content type.
    An empty field is as if it were left out.

    The response is sent when the image is stored durably, before it is scored.
    """
    with services.in_flight.hold(actor, idempotency_key) as key:
        if is_form(request):
            accepted = await _submit_form(request, services, key, api_key)
        elif is_image(request):
            accepted = await _submit_raw(request, services, key, api_key)
        else:
            raise Refused(
                Code.UNSUPPORTED_MEDIA_TYPE,
                "Send the image with an image/* content type, as application/octet-stream, or as multipart/form-data.",
            )
    set_replayed(response, replayed=accepted.replayed)
    inspection = accepted.inspections[0]
    response.headers["Location"] = f"/v1/inspections/{inspection.id}"
    return Inspection.of(inspection)


async def _submit_raw(request: Request, services: Services, key: Key | None, api_key: str | None) -> Accepted:
    fields = upload_fields(once_each(request.query_params.multi_items()))
    recipe = fields.recipe or services.settings.default_recipe
    await services.group_commit.check(recipe, fields.priority or "live", key, api_key=api_key)
    await services.group_commit.check_callbacks([fields.callback_url], key)
    async with services.receiver.raw(request) as received:
        new = new_inspection(services, received.image, fields)
        return await services.group_commit.submit([Upload(received.staged, new)], key=key, api_key=api_key)


async def _submit_form(request: Request, services: Services, key: Key | None, api_key: str | None) -> Accepted:
    async with services.receiver.form(request, image="image", max_images=1) as form:
        values = once_each([*request.query_params.multi_items(), *form.fields.items()])
        received = form.single_image("image")
        fields = upload_fields({"external_id": received.file_name or None, **values})
        new = new_inspection(services, received.image, fields)
        await services.group_commit.check(new.recipe, new.priority, key, api_key=api_key)
        await services.group_commit.check_callbacks([new.callback_url], key)
        return await services.group_commit.submit([Upload(received.staged, new)], key=key, api_key=api_key)


def _load(services: Services, inspection_id: UUID) -> inspections.Inspection:
    """The current state of an inspection.

    Raises:
        Refused: NOT_FOUND.
    """
    with services.transaction() as connection:
        return inspections.get(connection, inspection_id)


async def wait_until_final(services: Services, inspection_id: UUID, wait: float) -> inspections.Inspection:
    """An inspection once it is final, or in its current state after `wait` seconds."""
    return await services.long_polls.final("inspection", inspection_id, wait, partial(_load, services))


ScoreRatio = Annotated[
    FiniteFloat,
    AfterValidator(lambda ratio: round(ratio, 9)),
    Query(ge=0, le=1e6, description="of the score divided by the threshold in force, inclusive"),
]


class ListingFilters(BaseModel):
    """The filters of a listing."""

    recipe: RecipeName | None = None
    part_id: Label | None = None
    lot_id: Label | None = None
    line_id: Label | None = None
    station_id: Label | None = None
    batch_id: UUID | None = None
    verdict: Annotated[Literal["ok", "ng", "review"] | None, Query(description="the machine's verdict")] = None
    effective_verdict: Annotated[
        Literal["ok", "ng", "review"] | None,
        Query(description="what reviews decided, otherwise the machine's verdict; `review` needs a person"),
    ] = None
    reviewed: Annotated[
        Reviewed | None,
        Query(description="the verdict that reviews decided; `any` if there is a review, `none` if there is not"),
    ] = None
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None = None
    model_version: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="the number; needs `recipe`")] = None
    min_score: Annotated[FiniteFloat | None, Query(description="of the anomaly score, inclusive")] = None
    max_score: Annotated[FiniteFloat | None, Query(description="of the anomaly score, inclusive")] = None
    min_score_ratio: ScoreRatio | None = None
    max_score_ratio: ScoreRatio | None = None
    reviewer: Annotated[Name | None, Query(description="someone who has reviewed the inspection")] = None
    since: Moment | None = None
    until: Moment | None = None

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        for name in ("score", "score_ratio"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} must not be above max_{name}")
        return self

    def filters(self) -> Filters:
        return Filters(**{name: getattr(self, name) for name in ListingFilters.model_fields})


class _Listing(ListingFilters):
    """The query of a listing."""

    cursor: str | None = None
    limit: Limit = 100
    view: View | None = None


@router.get("", responses=refuses(Code.INVALID_CURSOR))
def list_inspections(listing: Annotated[_Listing, Query()], services: Context) -> InspectionPage | OpcUaPage:
    """List inspections, newest first. With `view=opcua`, in the vocabulary of OPC UA for Machine Vision.

    Continue with `next_cursor` until it is null. With filters on scores or the reviewer, a page may have fewer items
    than `limit`, even none, before that.
    """
    with services.transaction() as connection:
        items, following = inspections.list_page(
            connection, listing.filters(), before=decode_cursor(listing.cursor), limit=listing.limit
        )
    next_cursor = encode_cursor(following)
    if listing.view == "opcua":
        return OpcUaPage(items=[OpcUaResult.of(inspection) for inspection in items], next_cursor=next_cursor)
    return InspectionPage(items=[Inspection.of(inspection) for inspection in items], next_cursor=next_cursor)


@router.get("/{inspection_id}")
async def get_inspection(
    inspection_id: UUID, services: Context, wait: Wait = 0, view: View | None = None
) -> Inspection | OpcUaResult:
    """Get an inspection. `wait` waits until it is final; `view=opcua` uses the vocabulary of OPC UA."""
    inspection = await wait_until_final(services, inspection_id, wait)
    return OpcUaResult.of(inspection) if view == "opcua" else Inspection.of(inspection)


@router.get("/{inspection_id}/neighbours", responses=refuses(Code.RECIPE_UNKNOWN))
def get_neighbours(inspection_id: UUID, listing: Annotated[ListingFilters, Query()], services: Context) -> Neighbours:
    """Get the next newer and the next older inspection of the listing with the same filters.

    On each side, the nearest 10,000 inspections are searched that have the narrowest of these filters: `part_id`,
    `batch_id`, `lot_id`, `station_id`, `line_id`, `recipe`. The inspection itself need not pass the filters.
    """
    with services.transaction() as connection:
        found = neighbours.find(connection, inspection_id, listing.filters())
    return Neighbours(newer=found.newer, older=found.older)


@router.post("/{inspection_id}/cancel", responses=refuses(Code.INVALID_TRANSITION))
def cancel_inspection(inspection_id: UUID, services: Context) -> Inspection:
    """Cancel an inspection that is not final."""
    with services.transaction() as connection:
        finished = finishing.cancel(connection, inspection_id)
        services.final_counts.learn(connection, finished)
        inspection = inspections.get(connection, inspection_id)
    status = inspection.status
    if not finished.inspections and status != "cancelled":
        raise Refused(Code.INVALID_TRANSITION, f"Inspection {inspection_id} is {status} and cannot be cancelled.")
    services.final_counts.add(finished)
    services.publisher.notify(finished)
    return Inspection.of(inspection)


class NewReview(BaseModel):
    """A person's verdict, with the reviewer's name and the reason."""

    model_config = ConfigDict(extra="forbid")

    verdict: Literal["ok", "ng"]
    reviewer: Name
    reason: Reason


@router.post("/{inspection_id}/reviews", status_code=201, responses=refuses(Code.INVALID_TRANSITION))
def review_inspection(inspection_id: UUID, new: NewReview, services: Context, actor: Actor) -> Inspection:
    """Overrule the verdict of an inspection.

    The machine's verdict stays; the newest review becomes the `effective_verdict`. If the recipe asks for a
    `second_review`, the `effective_verdict` is `review` until two reviewers agree; if two disagree, a third decides.
    """
    with services.transaction() as connection:
        inspection = reviews.add(connection, inspection_id, **new.model_dump(), actor=actor)
    services.publisher.notify(Finished([inspection_id], []))
    return Inspection.of(inspection)


@router.delete("/{inspection_id}/reviews/{review_id}", responses=refuses(Code.INVALID_TRANSITION))
def retract_review(
    inspection_id: UUID, review_id: UUID, reviewer: Annotated[Name, Query()], services: Context, actor: Actor
) -> Inspection:
    """Undo a review within 10 minutes, with the same API key and the same `reviewer` as it was added.

    The review counts no longer. The retraction is recorded and audited, and the inspection is repeated in the feed and
    in webhooks as after a review. Retracting a review again changes nothing.
    """
    with services.transaction() as connection:
        inspection = reviews.retract(connection, inspection_id, review_id, reviewer=reviewer, actor=actor)
    services.publisher.notify(Finished([inspection_id], []))
    return Inspection.of(inspection)


@router.get(
    "/{inspection_id}/image",
    response_class=FileResponse,
    response_model=None,
    responses=binary(*MEDIA_TYPES.values())
    | {307: {"description": "With `redirect`: the image is in a bucket, at `Location`."}}
    | NOT_MODIFIED
    | refuses(Code.IMAGE_EXPIRED, Code.STORE_UNAVAILABLE),
)
def get_image(
    inspection_id: UUID, services: Context, redirect: bool = False, if_none_match: IfNoneMatch = None
) -> Response:
    """Get the stored image file. 410 `image_expired` once the `retention` of its recipe has removed it.

    With `redirect=true` and a bucket as the image store, the response may be 307 with a link that anyone can use for
    `LINEWATCH_STORE_LINK_SECONDS`. Follow it without the API key. Otherwise the response is the file.
    """
    inspection = _load(services, inspection_id)
    inspected_images.check_stored(inspection.image_removed_at)
    key = image_key(inspection.image_day, inspection.image_sha256)
    seconds = services.settings.store_link_seconds
    if redirect and seconds and (link := services.store.link(key, seconds=seconds)):
        return RedirectResponse(link, headers={"Cache-Control": "no-store"})
    return StoredFileResponse.of(
        services.store,
        key,
        missing=f"The image of inspection {inspection_id} is no longer in the store.",
        media_type=inspection.image_media_type,
        headers=IMMUTABLE,
    )


@router.get(
    "/{inspection_id}/anomaly-map",
    response_class=Response,
    responses=binary("application/octet-stream") | MAP_REFUSALS,
)
async def get_anomaly_map(inspection_id: UUID, services: Context) -> Response:
    """Get the anomaly map of the version that scored the image: a NumPy `.npy` file of float32, height by width.

    Its cells divide the image evenly.
    """
    inspection = await asyncio.to_thread(_scored_inspection, services, inspection_id, "anomaly map")
    data = await on_demand.anomaly_map(services, inspection.image, inspection.version_id, inspection.sha256)
    return Response(data, media_type="application/octet-stream")


@router.get("/{inspection_id}/heatmap", response_class=Response, responses=binary("image/png") | MAP_REFUSALS)
async def get_heatmap(inspection_id: UUID, services: Context) -> Response:
    """Get a PNG of the image with its anomaly map over it: upright, in the image's size up to 4096 pixels a side.

    The colour scale is based on the threshold of the inspection. Values below half the threshold are not drawn, and
    values up to the threshold have a cool tint. At the threshold, a contour and hot colours begin; they saturate at
    three times the threshold. If the score is below the threshold, no hot colour is shown.
    """
    inspection = await asyncio.to_thread(_scored_inspection, services, inspection_id, "heatmap")
    data = await on_demand.heatmap(
        services,
        inspection.image.day,
        inspection.image.sha256,
        inspection.version_id,
        inspection.sha256,
        score=inspection.score,
        threshold=inspection.threshold,
    )
    return Response(data, media_type="image/png", headers=IMMUTABLE)


@dataclass(frozen=True)
class _ScoredInspection:
    """The inputs of an anomaly map or heatmap: the stored image, the model version, and the recorded result."""

    image: StoredImage
    version_id: int
    sha256: bytes
    score: float
    threshold: float


def _scored_inspection(services: Services, inspection_id: UUID, what: str) -> _ScoredInspection:
    """The stored image and result of a completed inspection.

    Raises:
        Refused: INVALID_TRANSITION if the inspection has no score; IMAGE_EXPIRED; NOT_FOUND.
    """
    inspection = _load(services, inspection_id)
    if (
        inspection.status != "completed"
        or inspection.model_version_id is None
        or inspection.model_sha256 is None
        or inspection.anomaly_score is None
        or inspection.threshold is None
    ):
        raise Refused(Code.INVALID_TRANSITION, f"Inspection {inspection_id} is {inspection.status}; it has no {what}.")
    inspected_images.check_stored(inspection.image_removed_at)
    header = Header(inspection.image_media_type, inspection.image_width, inspection.image_height)
    stored = StoredImage(inspection.image_day, inspection.image_sha256, inspection.image_bytes, header)
    return _ScoredInspection(
        stored, inspection.model_version_id, inspection.model_sha256, inspection.anomaly_score, inspection.threshold
    )
