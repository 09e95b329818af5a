"""Group commit: concurrent uploads share one transaction and, after it, one message.

While a group is being committed the next one gathers, so a lone upload never waits and a burst is committed in few
transactions. A 202 goes out only when the images are in their places, synced, and the rows are committed.
"""

import asyncio
import errno
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Engine

from api.publisher import Publisher
from api.responses.problems import database_unavailable
from core.database import UNUSABLE
from core.delivery import endpoints
from core.delivery.allowed_targets import CHECK_SECONDS, AllowList, Origin
from core.errors import Code, Refused
from core.intake import idempotency, submission
from core.intake.idempotency import Key
from core.intake.submission import Accepted, NewInspection, Submission
from core.models import recipes
from core.queue import publishing
from core.settings import Settings
from core.storage.image_store import Staged, Store, image_key

log = logging.getLogger(__name__)

GROUP_IMAGES = 256
"""A group that has this many images is committed without looking for more."""

DEPTH_SECONDS = 1.0
RECIPE_SECONDS = 1.0
CALLBACK_SECONDS = 1.0
LOOKUP_THREADS = 2


@dataclass(frozen=True)
class Upload:
    """An image that was received and flushed to stable storage, and what came with it."""

    staged: Staged
    new: NewInspection


@dataclass(frozen=True)
class _PendingRequest:
    """What one request brings, its idempotency key, what of it was refused, and where its answer goes."""

    uploads: Sequence[Upload]
    as_batch: bool
    callback_url: str | None
    key: Key | None
    errors: Sequence[Mapping[str, Any]]
    answer: asyncio.Future[Accepted]

    def submission(self) -> Submission:
        plain = Submission([upload.new for upload in self.uploads], self.as_batch, self.callback_url)
        return plain if self.key is None else plain.with_key(self.key, self.errors)


class GroupCommit:
    """Takes uploads in and answers once they are durable."""

    def __init__(
        self, settings: Settings, engine: Engine, store: Store, publisher: Publisher, allowed: AllowList
    ) -> None:
        self._engine = engine
        self._store = store
        self._publisher = publisher
        self._max_depth = settings.max_queue_depth
        self._depth = 0
        self._allowed = allowed
        self._recipes_seen: dict[str, float] = {}
        self._callbacks_seen: dict[Origin, float] = {}
        # Threads of their own: a slow name lookup does not delay uploads without a callback.
        self._lookups = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="lookup")
        self._arriving: asyncio.Queue[_PendingRequest] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._committing = ThreadPoolExecutor(1, thread_name_prefix="commit")  # it never waits for other work

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._commit_groups()), asyncio.create_task(self._watch_depth())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._lookups.shutdown(wait=False, cancel_futures=True)
        self._committing.shutdown()

    async def check(self, recipe: str, key: Key | None = None) -> None:
        """Refuse what could not be accepted, before its body is read; the commit decides again.

        A recipe that was fine a moment ago is not asked for again.
        """
        async with self._unless_known(key):
            if self._depth >= self._max_depth:
                raise Refused(
                    Code.QUEUE_FULL,
                    f"{self._depth} inspections are in flight, and the limit is {self._max_depth}. Wait.",
                )
            now = time.monotonic()
            if self._recipes_seen.get(recipe, 0.0) < now:
                await asyncio.to_thread(self._check_recipe, recipe)
                self._recipes_seen[recipe] = now + RECIPE_SECONDS

    async def check_callbacks(self, urls: Iterable[str | None], key: Key | None = None) -> None:
        """Reject callbacks to unregistered endpoints and to targets that are not allowed.

        The commit asks again who is registered; only this looks names up, for which no transaction should wait. An
        origin that was fine a moment ago is not asked for again. A registered one whose name cannot be looked up now,
        or not in time, is let through: the sender judges it again.
        """
        async with self._unless_known(key):
            now = time.monotonic()
            origins = {Origin.of(url): url for url in urls if url is not None}
            unseen = {one: url for one, url in origins.items() if self._callbacks_seen.get(one, 0.0) < now}
            if not unseen:
                return
            await asyncio.to_thread(self._check_registered, unseen.values())
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    for origin, url in unseen.items():
                        await self._check_target(url)
                        self._callbacks_seen[origin] = time.monotonic() + CALLBACK_SECONDS
            except TimeoutError:
                log.warning("callbacks are accepted whose hosts could not be looked up in time")

    @asynccontextmanager
    async def _unless_known(self, key: Key | None) -> AsyncIterator[None]:
        """What was accepted under its key before is let through: it is answered again, whatever has happened since."""
        try:
            yield
        except Refused:
            if key is None or not await asyncio.to_thread(self._is_known, key):
                raise

    async def submit(
        self,
        uploads: Sequence[Upload],
        *,
        as_batch: bool = False,
        callback_url: str | None = None,
        key: Key | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> Accepted:
        """Accept the uploads of one request, together or not at all; a batch without any is opened.

        Args:
            callback_url: of the batch.
            key: under which the request came; what it was first used for is the answer.
            errors: the parts of the request that were rejected already; the answer repeats them.
        """
        answer: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        await self._arriving.put(_PendingRequest(uploads, as_batch, callback_url, key, errors, answer))
        return await answer

    def _check_recipe(self, name: str) -> None:
        with self._engine.begin() as connection:
            submission.check_recipe(recipes.get(connection, name))

    def _check_registered(self, urls: Iterable[str]) -> None:
        with self._engine.begin() as connection:
            for url in urls:
                endpoints.callback(connection, url)

    async def _check_target(self, url: str) -> None:
        check = partial(self._allowed.check, url, registered=True)
        await asyncio.get_running_loop().run_in_executor(self._lookups, check)

    def _is_known(self, key: Key) -> bool:
        with self._engine.begin() as connection:
            return idempotency.key_exists(connection, key)

    async def _watch_depth(self) -> None:
        while True:
            try:
                self._depth = await asyncio.to_thread(self._count)
            except Exception as error:  # noqa: BLE001 - this loop must go on, whatever happens
                log.warning("could not count the inspections in flight: %s", error)
            await asyncio.sleep(DEPTH_SECONDS)

    def _count(self) -> int:
        with self._engine.begin() as connection:
            return publishing.depth(connection)

    async def _commit_groups(self) -> None:
        while True:
            group = [await self._arriving.get()]
            images = len(group[0].uploads)
            while images < GROUP_IMAGES and not self._arriving.empty():
                group.append(self._arriving.get_nowait())
                images += len(group[-1].uploads)
            results = await asyncio.get_running_loop().run_in_executor(self._committing, self._commit, group)
            for entry, result in zip(group, results, strict=True):
                _answer(entry.answer, result)
            self._publish([one for one in results if isinstance(one, Accepted) and not one.replayed])

    def _publish(self, accepted: Sequence[Accepted]) -> None:
        for one in accepted:
            self._depth += len(one.inspections)
            for inspection, recipe_id in zip(one.inspections, one.recipe_ids, strict=True):
                self._publisher.queued(recipe_id, inspection.priority, inspection.id)

    def _commit(self, group: Sequence[_PendingRequest]) -> Sequence[Accepted | Exception]:
        try:
            uploads = [upload for entry in group for upload in entry.uploads]
            self._store.publish(
                (upload.staged, image_key(upload.new.image.day, upload.new.image.sha256)) for upload in uploads
            )
        except OSError as error:
            return [store_refusal(error)] * len(group)
        return self._enter(group)

    def _enter(self, group: Sequence[_PendingRequest]) -> Sequence[Accepted | Exception]:
        try:
            submissions = [entry.submission() for entry in group]
            with self._engine.begin() as connection:
                return submission.accept(connection, submissions)
        except UNUSABLE as error:
            log.warning("could not commit a group of %d uploads: %s", len(group), error)
            return [database_unavailable()] * len(group)
        except Exception as error:
            if len(group) == 1:
                log.exception("an upload could not be entered")
                return [error]
            # One of them is at fault; the others must not suffer for it.
            return [result for entry in group for result in self._enter([entry])]


def _answer(answer: asyncio.Future[Accepted], result: Accepted | Exception) -> None:
    if answer.done():  # the client went away; what was accepted stays accepted
        return
    if isinstance(result, Accepted):
        answer.set_result(result)
    else:
        answer.set_exception(result)


def store_refusal(error: OSError) -> Refused:
    """The refusal when the image store cannot be written."""
    log.error("the image store cannot be written: %s", error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(Code.STORE_FULL, "The image store is full; nothing was accepted.")
    return Refused(Code.STORE_UNAVAILABLE, "The image store cannot be written at the moment; nothing was accepted.")
