"""`/v1/rescore-runs`: passes over archives with a model version and its thresholds."""

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
from core.rescoring import runs, sources
from core.rescoring.documents import RescoreRun
from core.rescoring.requests import RunRequest
from core.rescoring.runs import Run
from core.storage.archives import Archives

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
    asked: RunRequest, response: Response, services: Context, actor: Actor, idempotency_key: IdempotencyKey
) -> RescoreRun:
    """Score an archive again: stored inspections (`where`, empty for all of the recipe), a folder or an S3 prefix of
    images, or those that a manifest names.

    The model version must be ready. Images that it has scored already are judged by their stored scores, unless
    `recompute` says to run the network; `threshold` judges with another threshold than the version's. Nothing that is
    stored of an inspection is changed. The run gives way to the line, and keeps to its `window`.
    """
    with services.in_flight.hold(actor, idempotency_key) as key:
        made, replayed = await asyncio.to_thread(_create, services, asked, actor, key)
    set_replayed(response, replayed=replayed)
    response.headers["Location"] = f"/v1/rescore-runs/{made.id}"
    return RescoreRun.from_run(made)


def _create(services: Services, asked: RunRequest, actor: str, key: Key | None) -> tuple[Run, bool]:
    """The run that was asked for, and whether it was made before under this key: then its source may be gone."""
    use = None if key is None else KeyedRequest(key, fingerprint("rescore_run", asked.model_dump(mode="json")))
    if not _is_known(services, key):
        asked = sources.resolve_source(asked, Archives.of(services.settings))
    with services.transaction() as connection:
        drawn = connection.execute(select(func.uuidv7())).scalar_one()
        [entered] = idempotency.insert_keys(connection, [(use, [drawn])])
        if isinstance(entered, Refused):
            raise entered
        if entered.replayed:
            return runs.as_first_answered(runs.get(connection, entered.subjects[0])), True
        return runs.create(connection, asked, actor=actor, run_id=drawn), False


def _is_known(services: Services, key: Key | None) -> bool:
    if key is None:
        return False
    with services.transaction() as connection:
        return idempotency.key_exists(connection, key)


class _Listing(BaseModel):
    """The filters of a listing, its cursor and its size."""

    recipe: RecipeName | None = None
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"] | None = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("", responses=refuses(Code.INVALID_CURSOR, Code.RECIPE_UNKNOWN))
def list_rescore_runs(listing: Annotated[_Listing, Query()], services: Context) -> RescoreRunPage:
    """Runs, newest first, challengers among them."""
    with services.transaction() as connection:
        found, following = runs.list_page(
            connection,
            recipe=listing.recipe,
            state=listing.status,
            before=decode_cursor(listing.cursor),
            limit=listing.limit,
        )
    return RescoreRunPage(items=[RescoreRun.from_run(one) for one in found], next_cursor=encode_cursor(following))


@router.get("/{run_id}")
async def get_rescore_run(run_id: UUID, services: Context, wait: Wait = 0) -> RescoreRun:
    """One run and its progress; with `wait`, as soon as it is final."""
    return RescoreRun.from_run(await services.long_polls.final("rescore_run", run_id, wait, partial(_view, services)))


def _view(services: Services, run_id: UUID) -> Run:
    with services.transaction() as connection:
        return runs.get(connection, run_id)


@router.post("/{run_id}/pause", responses=_CHANGED)
def pause_rescore_run(run_id: UUID, services: Context, actor: Actor) -> RescoreRun:
    """Pause a run: workers stop at their next minibatch and keep what they have scored."""
    with services.transaction() as connection:
        return RescoreRun.from_run(runs.pause(connection, run_id, actor=actor))


@router.post("/{run_id}/resume", responses=_CHANGED)
def resume_rescore_run(run_id: UUID, services: Context, actor: Actor) -> RescoreRun:
    """Let a paused run go on where it stopped."""
    with services.transaction() as connection:
        found = runs.resume(connection, run_id, actor=actor)
    return _view_and_notify(services, found)


@router.post("/{run_id}/cancel", responses=_CHANGED)
def cancel_rescore_run(run_id: UUID, services: Context, actor: Actor) -> RescoreRun:
    """End a run before it is done: results that are there stay, the rest is given up. It cannot be resumed."""
    with services.transaction() as connection:
        found = runs.cancel(connection, run_id, actor=actor)
    return _view_and_notify(services, found)


def _view_and_notify(services: Services, run: Run) -> RescoreRun:
    """The run; if it is final by now, the requests that wait for it are notified."""
    if run.final:
        services.publisher.notify(Finished([], [], [run.id]))
    return RescoreRun.from_run(run)
