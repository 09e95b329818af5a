"""`/metrics`: the metrics of this api process and of the whole system, for Prometheus."""

from typing import Any

from fastapi import APIRouter, Response

from api.services import Context
from core.metrics import CONTENT_TYPE, exposition

router = APIRouter(tags=["system"])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' text format."}
}


@router.get("/metrics", response_class=Response, responses=_TEXT)
def get_metrics(services: Context) -> Response:
    """Get the metrics of this api process, and those of the whole system, in Prometheus' text format.

    Metrics of the system (queues, workers, store, feed, webhooks) are at most 5 seconds old and the same in every api
    process: take the maximum, never the sum. While the database is unavailable they are missing, and
    `linewatch_database_up` is 0. Workers and dispatchers serve their own metrics on ports of their own.
    """
    return Response(exposition() + exposition(services.system_metrics), media_type=CONTENT_TYPE)
