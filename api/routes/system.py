"""`/v1/system`: the state of the running system."""

from fastapi import APIRouter

from api.responses.schemas import without_path
from api.services import Context, FeedReader
from core.system import status, store_usage
from core.system.documents import System

router = APIRouter(tags=["system"])


@router.get("/v1/system")
def get_system(services: Context, reader: FeedReader) -> System:
    """Get the state of the system: its health in one line, queues, workers, store, database, consumers and endpoints.

    While the database is unavailable, the response is 503 `database_unavailable`. Redis need not be reachable.
    """
    messages = status.count_messages(services.settings)
    disk = store_usage.disk(services.store, services.settings.min_free_bytes)
    with services.transaction() as connection:
        system = status.read(connection, reader, messages, disk)
    if not reader.is_admin:
        for endpoint in system.webhook_endpoints:
            endpoint.url = without_path(endpoint.url)
    return system
