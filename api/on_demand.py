"""Anomaly maps, heatmaps, thumbnails and run reports on demand: a worker creates them and the store caches them.

The api decodes no images: an image that crashes the decoder crashes a worker's child process, not the api.
"""

import asyncio
import datetime as dt
import math
import time
from collections.abc import Sequence
from uuid import UUID

from api.services import Services
from core.errors import Code, Refused
from core.intake.submission import StoredImage
from core.queue.broker import IO_QUEUE, Task
from core.storage.image_store import Store, anomaly_map_key, failure_key, heatmap_key, image_key, report_key
from core.storage.thumbnails import ThumbnailSource

RESEND_SECONDS = 5.0
"""The task is sent again after this time, in case its message was lost."""


async def anomaly_map(services: Services, image: StoredImage, model_version_id: int, model_sha256: bytes) -> bytes:
    """The anomaly map of a stored image by a model version: a `.npy` file of float32 (H, W).

    Raises:
        Refused: MALFORMED_REQUEST if the image cannot be decoded; TIMEOUT if no worker created the map in time.
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
    """A PNG of a stored image with the anomaly map of a model version over it; see `core.vision.evaluation.heatmap`.

    Args:
        score, threshold: the recorded values of the inspection; they determine the colour scale.

    Raises:
        Refused: see `anomaly_map`.
    """
    key = heatmap_key(image_sha256, model_sha256, score, threshold)
    source = image_key(image_day, image_sha256)
    map_key = anomaly_map_key(image_sha256, model_sha256)
    return await _run_task(services, key, Task.HEATMAP, source, model_version_id, map_key, key, score, threshold)


async def rescore_report(services: Services, run_id: UUID, digest: str) -> bytes:
    """The HTML report of a run. The digest identifies the contents of the report.

    Raises:
        Refused: see `anomaly_map`.
    """
    key = report_key(run_id, digest)
    return await _run_task(services, key, Task.RESCORE_REPORT, str(run_id), key)


async def thumbnail(services: Services, source: ThumbnailSource) -> bytes:
    """The thumbnail of a stored image: a JPEG, see `core.vision.evaluation.thumbnail`.

    Raises:
        Refused: NOT_FOUND if the image is no longer in the store; IMAGE_UNDECODABLE; TIMEOUT if no worker made it in
            time.
    """
    data = await asyncio.to_thread(_stored_thumbnail, services.store, source)
    if data is None:
        if not await asyncio.to_thread(services.store.holds, source.image_key):
            raise Refused(Code.NOT_FOUND, "The image is no longer in the store.")
        await make_thumbnails(services, [source], seconds=services.settings.predict_timeout)
        data = await asyncio.to_thread(_stored_thumbnail, services.store, source)
    if data is None:
        raise Refused(Code.TIMEOUT, "No worker made the thumbnail in time. Retry.")
    return data


async def make_thumbnails(services: Services, sources: Sequence[ThumbnailSource], *, seconds: float) -> None:
    """Have a worker make thumbnails that are missing in the store, and wait for them, at most this many seconds.

    The io worker makes them, so that no scoring worker is kept from live images.
    """
    async with services.long_polls.expecting("anomaly_map", *(source.key for source in sources)) as written:
        sent_at = -math.inf
        try:
            async with asyncio.timeout(seconds):
                while missing := await asyncio.to_thread(_missing, services.store, sources):
                    if time.monotonic() >= sent_at + RESEND_SECONDS:
                        messages = [source.to_message() for source in missing]
                        services.publisher.call(Task.THUMBNAILS, messages, queue=IO_QUEUE)
                        sent_at = time.monotonic()
                    await _wait_at_most(written, RESEND_SECONDS)
        except TimeoutError:
            return


def _missing(store: Store, sources: Sequence[ThumbnailSource]) -> list[ThumbnailSource]:
    return [source for source in sources if not _is_finished(store, source.key)]


def _stored_thumbnail(store: Store, source: ThumbnailSource) -> bytes | None:
    """A thumbnail that was made before; None if it is missing. Raises Refused if it cannot be made."""
    try:
        return store.read(source.key)
    except FileNotFoundError:
        if store.holds(failure_key(source.key)):
            detail = store.read(failure_key(source.key)).decode()
            raise Refused(Code.IMAGE_UNDECODABLE, detail) from None
        return None


async def _run_task(services: Services, key: str, task: Task, *arguments: object) -> bytes:
    """Run a task and return what it wrote to the store under `key`."""
    async with services.long_polls.expecting("anomaly_map", key) as written:
        try:
            async with asyncio.timeout(services.settings.predict_timeout):
                while not await asyncio.to_thread(_is_finished, services.store, key):
                    services.publisher.call(task, *arguments, queue="sync")
                    await _wait_at_most(written, RESEND_SECONDS)
        except TimeoutError:
            product = task.removeprefix("linewatch.").replace("_", " ")
            raise Refused(Code.TIMEOUT, f"No worker created the {product} in time. Retry.") from None
    return await asyncio.to_thread(_result, services.store, key)


def _is_finished(store: Store, key: str) -> bool:
    return store.holds(key) or store.holds(failure_key(key))


def _result(store: Store, key: str) -> bytes:
    if not store.holds(key):
        raise Refused(Code.MALFORMED_REQUEST, store.read(failure_key(key)).decode())
    return store.read(key)


async def _wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for at most `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
    event.clear()
