"""Group commit: concurrent uploads share one transaction, and then one message.

While a group is being committed, further uploads form the next group. So a single upload does not wait, and a burst
needs few transactions; a group that follows one with several requests waits some milliseconds for more of them. A 202
is sent only after the images are stored and synced and the rows are committed.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Engine

from api.metrics import ACCEPTED, REFUSED_IMAGES
from api.publisher import Publisher
from api.requests.image_storing import AnyUpload, ImageStoring, Stored
from api.requests.queue_limits import QueueLimits
from api.requests.space_limit import SpaceLimit
from api.responses.problems import database_unavailable
from core.database import UNUSABLE
from core.delivery import endpoints
from core.delivery.allowed_targets import CHECK_SECONDS, AllowList, Origin
from core.errors import Refused
from core.intake import idempotency, submission
from core.intake.idempotency import Key
from core.intake.submission import Accepted, Submission
from core.logs import bound, current_ids
from core.models import recipes
from core.queue import depths
from core.queue.broker import SCORING_QUEUES
from core.queue.depths import Depths
from core.settings import Settings
from core.storage.image_store import Store
from core.tracing import traces

log = logging.getLogger(__name__)

GROUP_IMAGES = 256
"""A group takes no further requests once it has this many images."""
LINGER_SECONDS = 0.005
"""The time that a group waits for further requests if the last group had several. A lone upload does not wait."""

DEPTH_SECONDS = 1.0
SPACE_SECONDS = 1.0
IDLE_SECONDS = 5.0
"""While there is nothing to limit, depth and space are measured after this time, or when an upload arrives."""
RECIPE_SECONDS = 1.0
CALLBACK_SECONDS = 1.0
LOOKUP_THREADS = 2

_ACCEPTED = {priority: ACCEPTED.labels(priority) for priority in SCORING_QUEUES}


@dataclass(frozen=True)
class _PendingRequest:
    """The uploads of one request, its idempotency key, its rejected parts, and a future for the result."""

    uploads: Sequence[AnyUpload]
    as_batch: bool
    callback_url: str | None
    key: Key | None
    api_key: str | None
    errors: Sequence[Mapping[str, Any]]
    accepted: asyncio.Future[Accepted]
    request_id: str | None
    trace_context: str | None

    def submission(self, stored: Stored) -> Submission:
        plain = Submission(
            stored.inspections,
            self.as_batch,
            self.callback_url,
            api_key=self.api_key,
            trace_context=self.trace_context,
        )
        return plain if self.key is None else plain.with_key(self.key, self.errors)


class GroupCommit:
    """Accepts uploads, and responds when they are durable."""

    def __init__(
        self, settings: Settings, engine: Engine, store: Store, publisher: Publisher, allowed: AllowList
    ) -> None:
        self._engine = engine
        self._storing = ImageStoring(store, max_pixels=settings.max_image_pixels)
        self._publisher = publisher
        self._limits = QueueLimits(settings)
        self.space = SpaceLimit(store, settings.min_free_bytes)
        self._allowed = allowed
        self._recipes: dict[str, tuple[float, bool]] = {}  # a cache: expiry, and whether there is a model version
        self._callbacks: dict[Origin, float] = {}  # a cache: the expiry of a check
        # Separate threads: a slow name lookup does not delay uploads without a callback.
        self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")
        self._arrived: deque[_PendingRequest] = deque()
        self._has_arrived = asyncio.Event()
        self._has_minibatch = asyncio.Event()
        self._minibatch = settings.minibatch
        self._tasks: list[asyncio.Task[None]] = []
        # A separate thread: a commit never waits for one.
        self._committing = ThreadPoolExecutor(1, thread_name_prefix="commit")

    async def start(self) -> None:
        await asyncio.to_thread(self.space.measure)
        loops = (self._commit_groups(), self._watch_depth(), self._watch_space())
        self._tasks = [asyncio.create_task(loop) for loop in loops]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lookups.shutdown(wait=False, cancel_futures=True)
        self._committing.shutdown()
        self._storing.stop()

    async def check(self, recipe: str, priority: str, key: Key | None = None, *, api_key: str | None = None) -> None:
        """Reject an upload before its body is read, if it cannot be accepted. The commit checks again.

        Each recipe is looked up at most once a second.

        Raises:
            Refused: STORE_FULL, QUEUE_FULL, WAITING_QUEUE_FULL, RECIPE_UNKNOWN, RECIPE_WITHOUT_MODEL.
        """
        async with self._allow_replay(key):
            self.space.check()
            now = time.monotonic()
            expires_at, has_model = self._recipes.get(recipe, (0.0, False))
            if expires_at < now:
                has_model = await asyncio.to_thread(self._check_recipe, recipe)
                self._recipes[recipe] = now + RECIPE_SECONDS, has_model
            self._limits.check(depths.work_class_of(priority, has_model=has_model), recipe, api_key)

    async def check_callbacks(self, urls: Iterable[str | None], key: Key | None = None) -> None:
        """Reject callbacks to unregistered endpoints and to targets that are not allowed.

        The commit checks the registration again, but host names are resolved only here: no transaction should wait for
        DNS. Each origin is checked at most once a second. If the name of a registered origin cannot be resolved, or
        not in time, the callback is accepted: the sender checks it again.

        Raises:
            Refused: CALLBACK_UNREGISTERED, WEBHOOK_TARGET_REFUSED.
        """
        async with self._allow_replay(key):
            now = time.monotonic()
            origins = {Origin.of(url): url for url in urls if url is not None}
            unchecked = {origin: url for origin, url in origins.items() if self._callbacks.get(origin, 0.0) < now}
            if not unchecked:
                return
            await asyncio.to_thread(self._check_registered, unchecked.values())
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    for origin, url in unchecked.items():
                        await self._check_target(url)
                        self._callbacks[origin] = time.monotonic() + CALLBACK_SECONDS
            except TimeoutError:
                log.warning("accepted callbacks whose host names were not resolved in time")

    @asynccontextmanager
    async def _allow_replay(self, key: Key | None) -> AsyncIterator[None]:
        """Ignore a refusal if the key was used before. The first response is repeated even if uploads are refused."""
        try:
            yield
        except Refused:
            if key is None or not await asyncio.to_thread(self._key_exists, key):
                raise

    async def submit(
        self,
        uploads: Sequence[AnyUpload],
        *,
        as_batch: bool = False,
        callback_url: str | None = None,
        key: Key | None = None,
        api_key: str | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> Accepted:
        """Accept all uploads of one request, or none. Without uploads, `as_batch` opens a batch.

        Args:
            callback_url: the callback of the batch.
            key: the idempotency key of the request. If it was used before, the first response is repeated.
            api_key: the API key of the request, to which its inspections are counted.
            errors: rejected parts of the request. They are stored with the key, to be repeated in later responses.
        """
        accepted: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        request_id, context = current_ids().get("request_id"), traces.current_context()
        self._arrived.append(
            _PendingRequest(uploads, as_batch, callback_url, key, api_key, errors, accepted, request_id, context)
        )
        self._has_arrived.set()
        if len(self._arrived) >= self._minibatch:
            self._has_minibatch.set()
        return await accepted

    def _check_recipe(self, name: str) -> bool:
        """Check that a recipe accepts images. Returns whether it has an active model version."""
        with self._engine.begin() as connection:
            recipe = recipes.get(connection, name)
        submission.check_recipe(recipe)
        return recipe.active_version_id is not None

    def _check_registered(self, urls: Iterable[str]) -> None:
        with self._engine.begin() as connection:
            for url in urls:
                endpoints.callback(connection, url)

    async def _check_target(self, url: str) -> None:
        check = partial(self._allowed.check, url, registered=True)
        await asyncio.get_running_loop().run_in_executor(self._lookups, check)

    def _key_exists(self, key: Key) -> bool:
        with self._engine.begin() as connection:
            return idempotency.key_exists(connection, key)

    async def _watch_depth(self) -> None:
        while True:
            try:
                accepted_before = self._limits.accepted
                self._limits.update(await asyncio.to_thread(self._count), accepted_before=accepted_before)
            except Exception as error:  # noqa: BLE001 - this loop must not end
                log.warning("could not count the inspections in flight: %s", error)
            await self._pause(DEPTH_SECONDS, is_idle=self._limits.are_unused)

    async def _watch_space(self) -> None:
        while True:
            await self._pause(SPACE_SECONDS, is_idle=not self.space.is_low)
            await asyncio.to_thread(self.space.measure)

    async def _pause(self, seconds: float, *, is_idle: bool) -> None:
        await asyncio.sleep(seconds)
        if is_idle:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS - seconds):
                    await self._has_arrived.wait()

    def _count(self) -> Depths:
        with self._engine.begin() as connection:
            return depths.count(connection)

    @property
    def is_running(self) -> bool:
        """Whether uploads are being committed."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    async def _commit_groups(self) -> None:
        group: list[_PendingRequest] = []
        while True:
            group = await self._next_group(linger=len(group) > 1)
            try:
                results = await asyncio.get_running_loop().run_in_executor(self._committing, self._commit, group)
            except Exception as error:  # a bug; this loop must not end
                log.exception("could not commit a group of %d requests", len(group))
                results = [error] * len(group)
            for pending, result in zip(group, results, strict=True):
                _set_result(pending.accepted, result)
                if isinstance(result, Accepted) and not result.replayed:
                    self._count_accepted(result, pending.api_key)
                    _count_refused(pending.errors)
            for pending, result in zip(group, results, strict=True):
                if isinstance(result, Accepted) and not result.replayed:
                    self._publish(result, pending.trace_context)

    async def _next_group(self, *, linger: bool) -> list[_PendingRequest]:
        await self._has_arrived.wait()
        if linger:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_minibatch.wait(), LINGER_SECONDS)
        group: list[_PendingRequest] = []
        images = 0
        while self._arrived and (not group or images < GROUP_IMAGES):
            group.append(self._arrived.popleft())
            images += len(group[-1].uploads)
        if not self._arrived:
            self._has_arrived.clear()
        if len(self._arrived) < self._minibatch:
            self._has_minibatch.clear()
        return group

    def _count_accepted(self, accepted: Accepted, api_key: str | None) -> None:
        for inspection in accepted.inspections:
            _, has_model = self._recipes.get(inspection.recipe, (0.0, True))
            work_class = depths.work_class_of(inspection.priority, has_model=has_model)
            self._limits.add(work_class, inspection.recipe, api_key, 1)
            _ACCEPTED[inspection.priority].inc()

    def _publish(self, accepted: Accepted, trace_context: str | None) -> None:
        for inspection, recipe_id in zip(accepted.inspections, accepted.recipe_ids, strict=True):
            self._publisher.queued(recipe_id, inspection.priority, inspection.id, trace_context)

    def _commit(self, group: Sequence[_PendingRequest]) -> Sequence[Accepted | Exception]:
        """Store the images and insert the rows. A request whose images cannot be stored does not affect the others."""
        with bound(request_ids=[pending.request_id for pending in group]):
            begun = time.perf_counter()
            stored = self._storing.store([pending.uploads for pending in group])
            stored_at = time.perf_counter()
            submissions = [
                pending.submission(result)
                for pending, result in zip(group, stored, strict=True)
                if isinstance(result, Stored)
            ]
            inserted = iter(self._insert(submissions) if submissions else ())
        results = [next(inserted) if isinstance(result, Stored) else result for result in stored]
        if traces.is_on():
            _trace(group, stored, results, begun, stored_at)
        return results

    def _insert(self, submissions: Sequence[Submission]) -> Sequence[Accepted | Exception]:
        try:
            with self._engine.begin() as connection:
                return submission.accept(connection, submissions)
        except UNUSABLE as error:
            log.warning("could not commit a group of %d requests: %s", len(submissions), error)
            return [database_unavailable()] * len(submissions)
        except Exception as error:
            if len(submissions) == 1:
                log.exception("could not insert an upload")
                return [error]
            # One request is at fault. Insert each one separately.
            return [result for each in submissions for result in self._insert([each])]


def _count_refused(errors: Sequence[Mapping[str, Any]]) -> None:
    for error in errors:
        REFUSED_IMAGES.labels(error["code"]).inc()


def _set_result(accepted: asyncio.Future[Accepted], result: Accepted | Exception) -> None:
    if accepted.done():  # the client has disconnected; the upload stays accepted
        return
    if isinstance(result, Accepted):
        accepted.set_result(result)
    else:
        accepted.set_exception(result)


def _trace(
    group: Sequence[_PendingRequest],
    stored: Sequence[Stored | Exception],
    results: Sequence[Accepted | Exception],
    begun: float,
    stored_at: float,
) -> None:
    """Record in the trace of each request how long its group took to store its images and to commit its rows."""
    committed_at = time.perf_counter()
    for pending, storing, result in zip(group, stored, results, strict=True):
        parent = pending.trace_context
        attributes = {"linewatch.images": len(pending.uploads), "linewatch.group.requests": len(group)}
        traces.record("store", parent, begun, stored_at, attributes=attributes, error=_error_type(storing))
        if isinstance(storing, Stored):
            traces.record("commit", parent, stored_at, committed_at, attributes=attributes, error=_error_type(result))


def _error_type(result: Stored | Accepted | Exception) -> str | None:
    if not isinstance(result, Exception):
        return None
    return str(result.code) if isinstance(result, Refused) else type(result).__name__
