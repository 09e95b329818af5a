"""Probes: `/healthz` (the process is alive) and `/readyz` (uploads can be accepted)."""

from fastapi import APIRouter
from sqlalchemy import text

from api.requests.group_commit import store_refusal
from api.responses.problems import refuses
from api.services import Context
from core.errors import Code, Refused

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Check that the process is alive. It uses no other service."""
    return {"status": "alive"}


@router.get("/readyz", responses=refuses(Code.STORE_FULL, Code.STORE_UNAVAILABLE, Code.NOT_READY))
def readyz(services: Context) -> dict[str, str]:
    """Check that uploads can be accepted: Postgres answers, the store can be written, and uploads are committed.

    Redis is not needed for this.
    """
    if not services.group_commit.is_running:
        raise Refused(Code.NOT_READY, "Uploads are not committed. Restart the api.")
    with services.transaction() as connection:
        connection.execute(text("SELECT FROM recipes LIMIT 1"))
    try:
        services.store.check()
    except OSError as error:
        raise store_refusal(error) from error
    return {"status": "ready"}
