"""Probes: `/healthz` (the process is alive) and `/readyz` (uploads can be accepted)."""

import asyncio
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter
from sqlalchemy import text

from api.requests.store_refusals import store_refusal
from api.responses.problems import refuses
from api.services import Context, Services
from core.errors import Code, Refused

router = APIRouter(tags=["health"])

CHECK_SECONDS = 10.0
_VERSION: Final = version("linewatch")


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Check that the process is alive, and return the version that it runs. It uses no other service."""
    return {"status": "alive", "version": _VERSION}


@router.get("/readyz", responses=refuses(Code.STORE_FULL, Code.STORE_UNAVAILABLE, Code.NOT_READY))
async def readyz(services: Context) -> dict[str, str]:
    """Check that uploads are accepted: PostgreSQL answers and is migrated, the store has room, uploads are committed.

    Redis is not needed for this. Once the process was asked to stop, this is 503 `not_ready`, so that load balancers
    send no more requests; those that come are still answered.
    """
    if services.stopping.is_set():
        raise Refused(Code.NOT_READY, "The api is stopping. Use another one.")
    if (refusal := services.schema.refusal) is not None:
        raise refusal
    if not services.group_commit.is_running:
        raise Refused(Code.NOT_READY, "Uploads are not committed. Restart the api.")
    checking = asyncio.get_running_loop().run_in_executor(services.probing, _check, services)
    try:
        await asyncio.wait_for(checking, CHECK_SECONDS)
    except TimeoutError:
        raise Refused(Code.NOT_READY, f"The database or the store has not answered for {CHECK_SECONDS:g} s.") from None
    return {"status": "ready"}


def _check(services: Services) -> None:
    with services.transaction() as connection:
        connection.execute(text("SELECT FROM recipes LIMIT 1"))
    try:
        services.store.check()
    except OSError as error:
        raise store_refusal(error) from error
    services.group_commit.space.check()
