"""`/v1/inspections/{id}`: the thumbnail of an image, and the good parts that look most like it."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api import on_demand
from api.responses.etags import NOT_MODIFIED, IfNoneMatch, is_current
from api.responses.problems import refuses
from api.responses.related_inspections import SimilarInspection, SimilarInspections
from api.responses.schemas import binary
from api.routes.inspections import IMMUTABLE
from api.services import Context, Services
from core.errors import Code
from core.inspection import inspected_images, inspections
from core.inspection.inspected_images import InspectedImage
from core.storage.image_store import Store, failure_key
from core.storage.thumbnails import ThumbnailSource
from core.vision.evaluation.thumbnail import similarities

router = APIRouter(prefix="/v1/inspections/{inspection_id}", tags=["inspections"])

NEW_THUMBNAILS = 24
"""The most good parts whose thumbnails one request has made. It limits its cost on a line that has not been viewed."""
NEW_SECONDS = 10.0

_THUMBNAIL: dict[int | str, dict[str, Any]] = {
    **binary("image/jpeg"),
    **NOT_MODIFIED,
    **refuses(Code.IMAGE_UNDECODABLE, Code.IMAGE_EXPIRED, Code.TIMEOUT),
}


@router.get("/thumbnail", response_class=Response, responses=_THUMBNAIL)
async def get_thumbnail(inspection_id: UUID, services: Context, if_none_match: IfNoneMatch = None) -> Response:
    """Get a small copy of the image: a JPEG, upright, with no side above 256 pixels.

    Grey of more than 8 bits is scaled as for the network. A worker makes the thumbnail at the first request, and the
    store keeps it. The thumbnail of a final inspection never changes. 422 `image_undecodable` if the image cannot be
    decoded; that does not change either. 410 `image_expired` once retention has removed the image.
    """
    image = await asyncio.to_thread(_load, services, inspection_id)
    image.check_stored()
    source = _source(image)
    etag = f'"{source.sha256.hex()}-{source.bit_depth or 8}"'
    headers = {**IMMUTABLE, "ETag": etag}
    if not image.final:  # the version that will score it may scale its levels in another way
        headers["Cache-Control"] = "private, no-cache"
    if is_current(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(await on_demand.thumbnail(services, source), media_type="image/jpeg", headers=headers)


@router.get("/similar", responses=refuses(Code.IMAGE_UNDECODABLE, Code.IMAGE_EXPIRED, Code.TIMEOUT))
async def list_similar_inspections(
    inspection_id: UUID, services: Context, limit: Annotated[int, Query(ge=1, le=50)] = 6
) -> SimilarInspections:
    """List the good parts that look most like this image, to see what the part should look like.

    The candidates are up to 100 inspections before this one and 100 after it, of the same recipe and view, whose
    effective verdict is `ok`. They are searched among the nearest 1,000 inspections of the recipe on each side.
    `similarity` is the correlation of small grey copies of the images, from 0 to 1, whatever their brightness and
    contrast. One request has thumbnails made of at most 24 candidates, the nearest first, and waits 10 s for them; so
    the first requests compare fewer candidates than later ones.
    """
    image, parts = await asyncio.to_thread(_load_with_good_parts, services, inspection_id)
    image.check_stored()
    own = _source(image)
    await on_demand.thumbnail(services, own)
    sources = {part.inspection_id: _source(part) for part in parts}
    new = await asyncio.to_thread(_new, services.store, list(sources.values()))
    await on_demand.make_thumbnails(services, new, seconds=NEW_SECONDS)
    return await asyncio.to_thread(_most_similar, services, own, sources, limit)


def _load(services: Services, inspection_id: UUID) -> InspectedImage:
    with services.transaction() as connection:
        return inspected_images.get(connection, inspection_id)


def _load_with_good_parts(services: Services, inspection_id: UUID) -> tuple[InspectedImage, list[InspectedImage]]:
    with services.transaction() as connection:
        image = inspected_images.get(connection, inspection_id)
        return image, inspected_images.good_parts_near(connection, inspection_id)


def _source(image: InspectedImage) -> ThumbnailSource:
    return ThumbnailSource(image.day, image.sha256, image.bit_depth)


def _new(store: Store, sources: Sequence[ThumbnailSource]) -> list[ThumbnailSource]:
    """The first of the images that have no thumbnail yet. Those that are no longer in the store are left out."""
    new: list[ThumbnailSource] = []
    for source in sources:
        if len(new) == NEW_THUMBNAILS:
            break
        if not store.holds(source.key) and not store.holds(failure_key(source.key)) and store.holds(source.image_key):
            new.append(source)
    return new


def _most_similar(
    services: Services, own: ThumbnailSource, sources: dict[UUID, ThumbnailSource], limit: int
) -> SimilarInspections:
    """The most similar of the inspections whose grey copies are in the store; of equal ones the nearest first."""
    copies = {id_: copy for id_, source in sources.items() if (copy := _grey_copy(services.store, source)) is not None}
    own_copy = services.store.read(own.grey_key)
    alike = dict(zip(copies, similarities(own_copy, list(copies.values())), strict=True))
    chosen = sorted(alike, key=lambda id_: -alike[id_])[:limit]
    with services.transaction() as connection:
        by_id = inspections.by_ids(connection, chosen)
    items = [SimilarInspection.of_pair(by_id[id_], alike[id_]) for id_ in chosen if id_ in by_id]
    return SimilarInspections(items=items, compared=len(copies), candidates=len(sources))


def _grey_copy(store: Store, source: ThumbnailSource) -> bytes | None:
    try:
        return store.read(source.grey_key)
    except FileNotFoundError:
        return None
