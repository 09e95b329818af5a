"""Anomaly maps, heatmaps and pages about runs on demand: made by a worker through the queue and kept in the store.

The api decodes no image: an image made to crash a decoder crashes a worker's child process.
"""

import asyncio
import datetime as dt
from uuid import UUID

from api.services import Services
from core.errors import Code, Refused
from core.intake.submission import StoredImage
from core.queue.broker import Task
from core.storage.image_store import Store, anomaly_map_key, failure_key, heatmap_key, image_key, report_key

ASK_AGAIN_SECONDS = 5.0


async def anomaly_map(services: Services, image: StoredImage, model_version_id: int, model_sha256: bytes) -> bytes:
    """The `.npy` file of the float32 anomaly map (H, W) that a model version gives for a stored image.

    Raises:
        Refused: MALFORMED_REQUEST for an image that cannot be decoded; TIMEOUT when no worker made it in time.
    """
    key = anomaly_map_key(image.sha256, model_sha256)
    source = image_key(image.day, image.sha256)
    return await _run_task(services, key, Task.ANOMALY_MAP, source, model_version_id, key)


async def heatmap(
    services: Services,
    image_day: dt.date,
    image_sha256: bytes,
    model_version_id: int,
    model_sha256: bytes,
    *,
    score: float,
    threshold: float,
) -> bytes:
    """A PNG of a stored image under the heat that a model version gives it; see `core.vision.evaluation.heatmap`.

    Args:
        score, threshold: as the inspection recorded them; they fix the scale.

    Raises:
        Refused: see `anomaly_map`.
    """
    key = heatmap_key(image_sha256, model_sha256, score, threshold)
    source = image_key(image_day, image_sha256)
    map_key = anomaly_map_key(image_sha256, model_sha256)
    return await _run_task(services, key, Task.HEATMAP, source, model_version_id, map_key, key, score, threshold)


async def rescore_report(services: Services, run_id: UUID, digest: str) -> bytes:
    """The HTML page about a run whose report has this digest.

    Raises:
        Refused: see `anomaly_map`.
    """
    key = report_key(run_id, digest)
    return await _run_task(services, key, Task.RESCORE_REPORT, str(run_id), key)


async def _run_task(services: Services, key: str, task: Task, *arguments: object) -> bytes:
    """What a task leaves in the store under `key`."""
    async with services.long_polls.expecting("anomaly_map", key) as written:
        try:
            async with asyncio.timeout(services.settings.predict_timeout):
                while not await asyncio.to_thread(_is_decided, services.store, key):
                    services.publisher.call(task, *arguments, queue="sync")
                    await _wait(written, ASK_AGAIN_SECONDS)
        except TimeoutError:
            what = task.removeprefix("linewatch.").replace("_", " ")
            raise Refused(Code.TIMEOUT, f"No worker has made the {what} in time; try again.") from None
    return await asyncio.to_thread(_result, services.store, key)


def _is_decided(store: Store, key: str) -> bool:
    return store.holds(key) or store.holds(failure_key(key))


def _result(store: Store, key: str) -> bytes:
    if not store.holds(key):
        raise Refused(Code.MALFORMED_REQUEST, store.read(failure_key(key)).decode())
    return store.read(key)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    event.clear()
