"""`/v1/rescore-runs`: score archives with a model version and its thresholds."""

import asyncio
from functools import partial
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel
from sqlalchemy import func, select

from api.requests.idempotency import IdempotencyKey, replays, set_replayed
from api.requests.parameters import Limit, RecipeName, Wait, decode_cursor, encode_cursor
from api.responses.problems import refuses
from api.responses.schemas import RescoreRunPage
from api.services import Actor, Context, Services
from core.errors import Code, Refused
from core.intake import idempotency
from core.intake.idempotency import Key, KeyedRequest, fingerprint
from core.queue.finishing import Finished
from core.rescoring import runs, source_counts, sources
from core.rescoring.documents import RescoreRun
from core.rescoring.requests import RunRequest
from core.rescoring.runs import Run
from core.storage.archive_roots import Archives

router = APIRouter(prefix="/v1/rescore-runs", tags=["re-scoring"])

_CHANGED = refuses(Code.NOT_FOUND, Code.INVALID_TRANSITION)


@router.post(
    "",
    status_code=201,
    responses=refuses(
        Code.RECIPE_UNKNOWN,
        Code.NOT_FOUND,
        Code.MODEL_NOT_READY,
        Code.SOURCE_REFUSED,
        Code.IDEMPOTENCY_MISMATCH,
        Code.IDEMPOTENCY_IN_FLIGHT,
    )
    | replays(201),
)
async def create_rescore_run(
    request: RunRequest, response: Response, services: Context, actor: Actor, idempotency_key: IdempotencyKey
) -> RescoreRun:
    """Score an archive again: stored inspections (`where`, empty for all of the recipe), a folder or an S3 prefix of
    images, or the images in a manifest.

    The model version must be ready. If it has already scored an image, the stored score is used, unless you set
    `recompute`. `threshold` replaces the thresholds of the version. Stored inspections do not change. Live images have
    priority over the run, and it runs only in its `window`.
    """
    with services.in_flight.hold(actor, idempotency_key) as key:
        run, replayed = await asyncio.to_thread(_create, services, request, actor, key)
    set_replayed(response, replayed=replayed)
    response.headers["Location"] = f"/v1/rescore-runs/{run.id}"
    return RescoreRun.from_run(run)


def _create(services: Services, request: RunRequest, actor: str, key: Key | None) -> tuple[Run, bool]:
    """Create a run. The second value is true if the key already created it; then its source is not resolved again."""
    use = None if key is None else KeyedRequest(key, fingerprint("rescore_run", request.model_dump(mode="json")))
    if not _key_exists(services, key):
        request = sources.resolve_source(request, Archives.of(services.settings))
    with services.transaction() as connection:
        run_id = connection.execute(select(func.uuidv7())).scalar_one()
        [key_use] = idempotency.insert_keys(connection, [(use, [run_id])])
        if isinstance(key_use, Refused):
            raise key_use
        if key_use.replayed:
            return runs.as_first_answered(runs.get(connection, key_use.subjects[0])), True
        return runs.create(connection, request, actor=actor, run_id=run_id), False


def _key_exists(services: Services, key: Key | None) -> bool:
    if key is None:
        return False
    with services.transaction() as connection:
        return idempotency.key_exists(connection, key)


class SourceCount(BaseModel):
    """The number of images in a source. If it is not `exact`, counting took too long, and there may be more."""

    images: int
    exact: bool


@router.post(
    "/count", responses=refuses(Code.RECIPE_UNKNOWN, Code.NOT_FOUND, Code.MODEL_NOT_READY, Code.SOURCE_REFUSED)
)
async def count_rescore_source(request: RunRequest, services: Context) -> SourceCount:
    """Count the images that a run with this request would have. Creates nothing.

    Counting stops after 3 seconds with the number so far.
    """
    counted = await asyncio.to_thread(_count, services, request)
    return SourceCount(images=counted.images, exact=counted.exact)


def _count(services: Services, request: RunRequest) -> source_counts.SourceCount:
    archives = Archives.of(services.settings)
    return source_counts.count_images(services.engine, archives, sources.resolve_source(request, archives))


class _Listing(BaseModel):
    """The query of a listing."""

    recipe: RecipeName | None = None
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"] | None = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("", responses=refuses(Code.INVALID_CURSOR, Code.RECIPE_UNKNOWN))
def list_rescore_runs(listing: Annotated[_Listing, Query()], services: Context) -> RescoreRunPage:
    """List runs, newest first, including challengers."""
    with services.transaction() as connection:
        items, following = runs.list_page(
            connection,
            recipe=listing.recipe,
            state=listing.status,
            before=decode_cursor(listing.cursor),
            limit=listing.limit,
        )
    return RescoreRunPage(items=[RescoreRun.from_run(run) for run in items], next_cursor=encode_cursor(following))


# Only a UUID: otherwise `GET /count` would be an unknown run, not a method that is not allowed.
@router.get("/{run_id:uuid}")
async def get_rescore_run(run_id: UUID, services: Context, wait: Wait = 0) -> RescoreRun:
    """Get a run and its progress. `wait` waits until it is final."""
    return RescoreRun.from_run(await services.long_polls.final("rescore_run", run_id, wait, partial(_load, services)))


def _load(services: Services, run_id: UUID) -> Run:
    with services.transaction() as connection:
        return runs.get(connection, run_id)


@router.post("/{run_id}/pause", responses=_CHANGED)
def pause_rescore_run(run_id: UUID, services: Context, actor: Actor) -> RescoreRun:
    """Pause a run. Workers stop before the next minibatch; results so far stay."""
    with services.transaction() as connection:
        return RescoreRun.from_run(runs.pause(connection, run_id, actor=actor))


@router.post("/{run_id}/resume", responses=_CHANGED)
def resume_rescore_run(run_id: UUID, services: Context, actor: Actor) -> RescoreRun:
    """Resume a paused run where it stopped."""
    with services.transaction() as connection:
        run = runs.resume(connection, run_id, actor=actor)
    return _notify_if_final(services, run)


@router.post("/{run_id}/cancel", responses=_CHANGED)
def cancel_rescore_run(run_id: UUID, services: Context, actor: Actor) -> RescoreRun:
    """Cancel a run. Results so far stay, the remaining images are not scored. It cannot be resumed."""
    with services.transaction() as connection:
        run = runs.cancel(connection, run_id, actor=actor)
    return _notify_if_final(services, run)


def _notify_if_final(services: Services, run: Run) -> RescoreRun:
    """The document of a run. If the run is final, requests that wait for it are notified."""
    if run.final:
        services.publisher.notify(Finished([], [], [run.id]))
    return RescoreRun.from_run(run)
