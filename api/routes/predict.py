"""The interface of the synchronous demo that preceded Linewatch, with the same paths, fields and responses.

Its images use the default recipe. They go through the same queue as all images, before other work.
"""

import asyncio
import io
import time
from typing import Any
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Request, Response
from PIL import Image

from api import on_demand
from api.requests.image_storing import Upload
from api.requests.uploads import Received, is_form
from api.responses.problems import refuses
from api.responses.schemas import Prediction, binary
from api.routes.inspections import wait_until_final
from api.services import ApiKey, Context, Services
from core.errors import Code, Failure, Refused
from core.inspection.inspections import Inspection
from core.intake.submission import NewInspection
from core.models import model_versions, recipes, thresholds
from core.storage.image_store import image_key
from core.vision.evaluation.heatmap import resize_map

router = APIRouter(tags=["synchronous"])

STOPPING_POLL_SECONDS = 0.1
ACCEPTED = ("image/jpeg", "image/png")
WHITE_AT_OF_MEAN = 10.0
WHITE_AT = 3.0
"""White in the heatmap is this many times the threshold. The scale is fixed, so that good parts stay dark. If the score
is the mean of the whole map (`mse`), it is larger, because the errors of a defect are far above the mean."""

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
_REFUSALS = (
    Code.RECIPE_UNKNOWN,
    Code.RECIPE_WITHOUT_MODEL,
    Code.IMAGE_TOO_LARGE,
    Code.TOO_MANY_IMAGES,
    Code.STORE_FULL,
    Code.STORE_UNAVAILABLE,
    Code.TIMEOUT,
)
_NOT_AN_IMAGE = {Code.EMPTY_BODY, Code.UNSUPPORTED_MEDIA_TYPE, Code.MULTIPLE_FRAMES, Code.INVALID_FIELD}


@router.post("/predict", openapi_extra=_BODY, responses=refuses(*_REFUSALS, Code.QUEUE_FULL, Code.WAITING_QUEUE_FULL))
async def predict(request: Request, services: Context, api_key: ApiKey) -> Prediction:
    """Get the anomaly score of a JPEG or PNG."""
    recipe = services.settings.default_recipe
    timeout = services.settings.predict_timeout
    try:
        _require_form(request)
        await services.group_commit.check(recipe, "sync", api_key=api_key)
        async with services.receiver.form(request, image="file", max_images=1) as form:
            received = _jpeg_or_png(form.single_image("file"))
            new = NewInspection(received.image, recipe, priority="sync", deadline_ms=int(timeout * 1000))
            accepted = await services.group_commit.submit([Upload(received.staged, new)], api_key=api_key)
    except Refused as refused:
        raise _as_in_demo(refused) from refused
    return _prediction(await _result(services, accepted.inspections[0].id, timeout))


@router.post(
    "/heatmap", openapi_extra=_BODY, response_class=Response, responses=binary("image/png") | refuses(*_REFUSALS)
)
async def predict_heatmap(request: Request, services: Context) -> Response:
    """Get the anomaly map of a JPEG or PNG as a grey PNG, in the input size of the model."""
    try:
        _require_form(request)
        services.group_commit.space.check()
        version, threshold = await asyncio.to_thread(_active, services)
        async with services.receiver.form(request, image="file", max_images=1) as form:
            received = _jpeg_or_png(form.single_image("file"))
            key = image_key(received.image.day, received.image.sha256)
            await services.receiver.in_thread(lambda: services.store.publish([(received.staged, key)]))
    except Refused as refused:
        raise _as_in_demo(refused) from refused
    data = await on_demand.anomaly_map(services, received.image, version.id, version.sha256)
    return Response(await asyncio.to_thread(_grey_png, data, version.manifest, threshold), media_type="image/png")


@router.get("/health")
def health() -> dict[str, str]:
    """Check that the process is alive."""
    return {"status": "ok"}


async def _result(services: Services, inspection_id: UUID, seconds: float) -> Inspection:
    """The inspection once it is final, or in its current state after so many seconds.

    While the process stops, long polls are answered at once, but this request has no use for another state.
    """
    deadline = time.monotonic() + seconds
    while True:
        inspection = await wait_until_final(services, inspection_id, max(0.0, deadline - time.monotonic()))
        if inspection.final or time.monotonic() >= deadline:
            return inspection
        await asyncio.sleep(STOPPING_POLL_SECONDS)


def _require_form(request: Request) -> None:
    if not is_form(request):
        raise Refused(Code.MALFORMED_REQUEST, "Send the image as multipart/form-data, in a part named 'file'.")


def _jpeg_or_png(received: Received) -> Received:
    if received.image.header.media_type not in ACCEPTED:
        raise Refused(Code.MALFORMED_REQUEST, f"Send a JPEG or PNG, not {received.image.header.media_type}.")
    return received


def _as_in_demo(refused: Refused) -> Refused:
    """Answer 400 to everything that is not a JPEG or PNG, as the demo did."""
    return Refused(Code.MALFORMED_REQUEST, refused.detail) if refused.code in _NOT_AN_IMAGE else refused


def _active(services: Services) -> tuple[model_versions.ModelVersion, float]:
    """The active version of the default recipe and its threshold without a station."""
    with services.transaction() as connection:
        recipe = recipes.get(connection, services.settings.default_recipe)
        if recipe.active_version_id is None:
            raise Refused(Code.RECIPE_WITHOUT_MODEL, f"Recipe {recipe.name!r} has no active model version.")
        in_force = thresholds.in_force(connection, recipe.active_version_id)
        return model_versions.by_id(connection, recipe.active_version_id), in_force[0].threshold


def _prediction(inspection: Inspection) -> Prediction:
    if inspection.anomaly_score is not None and inspection.threshold is not None:
        return Prediction(
            anomaly_score=inspection.anomaly_score,
            threshold=inspection.threshold,
            is_anomaly=bool(inspection.is_anomaly),
        )
    if inspection.error_code in (Failure.IMAGE_UNDECODABLE, Failure.POISON):
        raise Refused(Code.MALFORMED_REQUEST, f"{inspection.error_detail}")
    reason = inspection.error_detail or "No worker scored the image in time."
    raise Refused(Code.TIMEOUT, f"{reason} See /v1/inspections/{inspection.id} for the result.")


def _grey_png(anomaly_map: bytes, manifest: dict[str, Any], threshold: float) -> bytes:
    size = (manifest["preprocessing"]["width"], manifest["preprocessing"]["height"])
    errors = resize_map(np.load(io.BytesIO(anomaly_map), allow_pickle=False), size)
    white = (WHITE_AT_OF_MEAN if manifest["score_method"] == "mse" else WHITE_AT) * threshold
    grey = np.clip(errors / max(white, float(np.finfo(np.float32).tiny)), 0, 1) * 255
    out = io.BytesIO()
    Image.fromarray(grey.round().astype(np.uint8)).save(out, "PNG")
    return out.getvalue()
