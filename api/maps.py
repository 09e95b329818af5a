"""Anomaly maps on demand: made by a worker through the queue, kept in the store, asked for again while it takes."""

import asyncio

from api.context import Services
from core.errors import Code, Refused
from core.queues import Task
from core.store import Store, anomaly_map_key, failure_key, image_key
from core.submission import StoredImage

ASK_AGAIN_SECONDS = 5.0


async def anomaly_map(services: Services, image: StoredImage, model_version_id: int, model_sha256: bytes) -> bytes:
    """The `.npy` file of the float32 anomaly map (H, W) that a model version gives for a stored image.

    Raises:
        Refused: MALFORMED_REQUEST for a picture that cannot be decoded; TIMEOUT when no worker made it in time.
    """
    key = anomaly_map_key(image.sha256, model_sha256)
    source = image_key(image.day, image.sha256)
    async with services.waiters.expecting("anomaly_map", key) as written:
        try:
            async with asyncio.timeout(services.settings.predict_timeout):
                while not await asyncio.to_thread(_is_decided, services.store, key):
                    services.publisher.call(Task.ANOMALY_MAP, source, model_version_id, key, queue="sync")
                    await _within(written, ASK_AGAIN_SECONDS)
        except TimeoutError:
            raise Refused(Code.TIMEOUT, "No worker has made the anomaly map in time; try again.") from None
    return await asyncio.to_thread(_result, services.store, key)


def _is_decided(store: Store, key: str) -> bool:
    return store.holds(key) or store.holds(failure_key(key))


def _result(store: Store, key: str) -> bytes:
    if not store.holds(key):
        raise Refused(Code.MALFORMED_REQUEST, store.read(failure_key(key)).decode())
    return store.read(key)


async def _within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    event.clear()
