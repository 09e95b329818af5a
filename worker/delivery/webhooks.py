"""The sender of webhooks: one event loop in a thread of its own, inside the io worker's process.

    prepare: claim what is due, read its documents                 (database, many at once)
    call:    one request, signed                                   (network, no transaction open)
    handle:  write what came of it                                 (database, many at once)

Each endpoint has a queue (`worker.delivery.endpoint_queue`), and free slots go to the queues in turn,
so a slow or dead receiver delays nobody else. A notification over Redis says that something finished; a
sender that misses it looks once a second. Whatever a killed
sender held is due again when its lease has run out, so several senders may run and each may be killed at any moment.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Engine

from core.database import UNUSABLE, create_pool
from core.delivery import endpoints, sending, signing
from core.delivery.allowed_targets import AllowList
from core.delivery.deliveries import Outcome
from core.delivery.endpoints import Endpoint
from core.delivery.sending import EndpointLoad, Message, Result
from core.documents import payloads
from core.queue import notifications
from core.queue.broker import FINISHED_CHANNEL
from core.rescoring import documents as rescoring_documents
from core.settings import Settings
from worker.delivery.endpoint_queue import HELD_CAREFULLY, EndpointQueue, Prepared
from worker.delivery.http_sender import TRY_SECONDS, Connections, Resolvers, SignedRequest, send, trusted_certificates

log = logging.getLogger(__name__)

MAX_HELD = 65_536
"""Events that are claimed at a time in all: some 100 MB of bodies."""

POLL_SECONDS = 1.0
GATHER_SECONDS = 0.05
"""What becomes due, and results, are gathered for so long, so that ten thousand are not ten thousand transactions."""

STOP_SECONDS = 5.0
IDLE_SECONDS = 30.0
_DATABASE_THREADS = 3
_RESOLVER_THREADS = 64
_USER_AGENT = f"Linewatch/{version('linewatch')}"
_BEGIN_WITHIN = sending.LEASE_SECONDS - TRY_SECONDS - 5
"""A message that has waited longer than this could still be in flight when its lease runs out."""

T = TypeVar("T")
LaneKey = tuple[UUID, bool]
"""An endpoint, and whether it is the queue of the callbacks."""


@dataclass(frozen=True)
class Taken:
    """What was claimed, and how long the next look may wait, in seconds."""

    prepared: Sequence[Prepared]
    pause: float


def prepare(engine: Engine, held: dict[UUID, EndpointLoad]) -> Taken:
    """Claim what is due and read its documents. A message whose subjects are all gone is cancelled."""
    claimed_at = time.monotonic()
    with engine.begin() as connection:
        messages = sending.claim(connection, held, room=HELD_CAREFULLY)
        if not messages:
            due = sending.next_due(connection)
            return Taken([], POLL_SECONDS if due is None else min(max(due, 0.0), POLL_SECONDS))
    with engine.begin() as connection:
        claims = [claim for message in messages for claim in message.claims]
        told = payloads.load_documents(connection, claims, {**payloads.LOADERS, **rescoring_documents.LOADERS})
        receivers = endpoints.by_ids(connection, {message.endpoint_id for message in messages})
    prepared: list[Prepared] = []
    for message in messages:
        body = payloads.body(message, told)
        receiver = receivers.get(message.endpoint_id)
        if body is not None and receiver is not None and receiver.state == "enabled":
            prepared.append(Prepared(message, body, receiver, claimed_at))
    _cancel_untold(engine, messages, set(told))
    return Taken(prepared, 0.0)


def read_endpoints(engine: Engine, endpoint_ids: set[UUID]) -> dict[UUID, Endpoint]:
    """Endpoints as they are now."""
    with engine.begin() as connection:
        return endpoints.by_ids(connection, endpoint_ids)


def _call(one: Prepared, receiver: Endpoint) -> SignedRequest:
    """A message as a call, signed now."""
    headers = _headers(one.message, one.body, endpoints.signing_secrets(receiver))
    return SignedRequest(one.message.callback_url or receiver.url, one.body, headers)


def _headers(message: Message, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "User-Agent": _USER_AGENT,
        **signing.headers(secrets, str(message.id), int(time.time()), body),
    }


def _cancel_untold(engine: Engine, messages: Sequence[Message], told: set[UUID]) -> None:
    untold = [claim for message in messages for claim in message.claims if claim.id not in told]
    if untold:
        log.warning("%d events are cancelled: their subjects are gone", len(untold))
        with engine.begin() as connection:
            sending.cancel(connection, {message.endpoint_id for message in messages}, untold)


def release(engine: Engine, messages: Sequence[Message]) -> None:
    """Give messages back that were claimed and not sent."""
    with engine.begin() as connection:
        sending.release(connection, messages)


def record_results(engine: Engine, results: Sequence[Result], settings: Settings) -> Collection[UUID]:
    """Write what came of calls; returns the endpoints that were disabled for it."""
    if not results:
        return ()
    with engine.begin() as connection:
        disabled = sending.record_results(
            connection,
            results,
            schedule=settings.webhook_retry_seconds,
            disable_after_days=settings.webhook_disable_after_days,
        )
    for endpoint_id, because in disabled.items():
        log.warning("webhook endpoint %s is disabled: %s", endpoint_id, because)
    return disabled.keys()


async def _kept_up(work: Callable[[], Awaitable[None]]) -> None:
    """Run a thread that must not end early: log an unexpected failure and continue."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("the sender of webhooks failed, and goes on")
            await asyncio.sleep(POLL_SECONDS)


class Sender:
    """Sends from `start` to `stop`.

    Raises OSError when the file of authorities cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._trust = trusted_certificates(settings.webhook_ca_file)
        self._allowed = AllowList.of(settings)
        self._engine = create_pool(settings, size=_DATABASE_THREADS, name="webhooks")
        self._database = ThreadPoolExecutor(_DATABASE_THREADS, thread_name_prefix="webhooks-database")
        self._resolvers = Resolvers(_RESOLVER_THREADS)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="webhooks", daemon=True)
        self._running = threading.Event()
        self._queues: OrderedDict[LaneKey, EndpointQueue] = OrderedDict()
        """The one whose turn it is comes first."""
        self._results: list[Result] = []
        self._calls = 0
        self._ended = False

    def start(self) -> None:
        self._thread.start()
        self._running.wait()

    def stop(self) -> None:
        """Stop within a few seconds. Requests still in flight are abandoned; another sender repeats them."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(2 * STOP_SECONDS)
        self._resolvers.close()
        self._database.shutdown(wait=False, cancel_futures=True)
        self._engine.dispose()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping, self._wake, self._unwritten = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._running.set()
        listening, taking, writing = (
            asyncio.create_task(_kept_up(one)) for one in (self._listen, self._take_all, self._write_all)
        )
        await self._stopping.wait()
        await self._wind_up(listening, taking, writing)

    async def _in_database(self, action: Callable[..., T], *arguments: object) -> T:
        return await self._loop.run_in_executor(self._database, partial(action, self._engine, *arguments))

    async def _listen(self) -> None:
        """Wake on notifications; while Redis is away, what is due is found a second later."""
        async for _ in notifications.subscribe(self._settings, FINISHED_CHANNEL):
            self._wake.set()

    async def _take_all(self) -> None:
        """Claim what is due whenever there may be something; the queues send it."""
        pause = 0.0
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            await self._close_idle_queues()
            await self._give_back_overdue()
            pause = await self._take()
            self._begin_calls()
            await asyncio.sleep(GATHER_SECONDS)

    async def _take(self) -> float:
        """Put what is due into the queues; returns how long to wait before the next look, in seconds."""
        try:
            pause = POLL_SECONDS
            if sum(queue.events for queue in self._queues.values()) < MAX_HELD:
                taken = await self._in_database(prepare, self._held())
                for one in taken.prepared:
                    self._lane(one).add(one)
                pause = taken.pause
            await self._look_again()
            return pause
        except UNUSABLE as error:
            log.warning("the database cannot be used, trying again: %s", error)
        except Exception:
            log.exception("messages could not be prepared; they are due again when their leases have run out")
        await asyncio.sleep(POLL_SECONDS)
        return 0.0

    def _held(self) -> dict[UUID, EndpointLoad]:
        held: dict[UUID, EndpointLoad] = {}
        for (endpoint_id, _), queue in self._queues.items():
            other = held.get(endpoint_id, EndpointLoad(0, 0))
            held[endpoint_id] = EndpointLoad(other.number + queue.held, max(other.room, queue.room))
        return held

    async def _look_again(self) -> None:
        """What has waited is sent to where its endpoint is now, signed with its secrets of now, or not at all."""
        at = time.monotonic()
        stale = [key for key, queue in self._queues.items() if queue.may_begin(self._calls) and not queue.is_fresh()]
        if not stale:
            return
        seen = await self._in_database(read_endpoints, {endpoint_id for endpoint_id, _ in stale})
        for key in stale:
            self._queues[key].see(seen.get(key[0]), at)

    def _lane(self, one: Prepared) -> EndpointQueue:
        key = one.message.endpoint_id, one.message.callback_url is not None
        if key not in self._queues:
            self._queues[key] = EndpointQueue(Connections(self._trust), one.receiver, one.claimed_at)
        self._queues[key].used_at = time.monotonic()
        return self._queues[key]

    def _drop(self, endpoint_ids: Iterable[UUID]) -> None:
        """Send no more to endpoints that were disabled: what waits for them is cancelled."""
        for endpoint_id in endpoint_ids:
            for is_callback in (False, True):
                if queue := self._queues.get((endpoint_id, is_callback)):
                    queue.waiting.clear()

    async def _close_idle_queues(self) -> None:
        long_ago = time.monotonic() - IDLE_SECONDS
        for key in [one for one, queue in self._queues.items() if not queue.held and queue.used_at < long_ago]:
            await self._queues.pop(key).connections.close()

    async def _give_back_overdue(self) -> None:
        """Give back what has waited so long behind a slow receiver that its lease could run out in flight."""
        long_ago = time.monotonic() - _BEGIN_WITHIN
        overdue = [one for queue in self._queues.values() for one in queue.waiting if one.claimed_at < long_ago]
        for queue in self._queues.values():
            queue.waiting = deque(one for one in queue.waiting if one.claimed_at >= long_ago)
        await self._give_back(overdue)

    async def _give_back(self, unsent: Sequence[Prepared]) -> None:
        if not unsent:
            return
        try:
            await self._in_database(release, [one.message for one in unsent])
        except UNUSABLE as error:
            log.warning("%d messages are due again only when their leases have run out: %s", len(unsent), error)

    def _begin_calls(self) -> None:
        """Give the free places to the queues in turn, one at a time."""
        while not self._stopping.is_set() and (key := self._next_lane()) is not None:
            self._queues.move_to_end(key)
            queue = self._queues[key]
            one = queue.waiting.popleft()
            self._calls += 1
            queue.calling[asyncio.create_task(self._send(queue, one))] = one, time.monotonic()

    def _next_lane(self) -> LaneKey | None:
        for key, queue in self._queues.items():
            if queue.may_begin(self._calls):
                if queue.is_fresh():
                    return key
                self._wake.set()  # it is looked at again first
        return None

    async def _send(self, queue: EndpointQueue, one: Prepared) -> None:
        try:
            answer = await send(_call(one, queue.receiver), self._allowed, self._resolvers, queue.connections)
            queue.note(delivered=answer.outcome is Outcome.DELIVERED, seconds=answer.duration_ms / 1000)
            if answer.outcome is Outcome.GONE and one.message.callback_url is None:
                self._drop([one.message.endpoint_id])
            self._results.append(Result(one.message, answer))
            self._unwritten.set()
        except Exception:
            log.exception("a call ended in no way that is foreseen; it is due again when its lease has run out")
        finally:
            self._calls -= 1
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - this is a task's own code
            queue.calling.pop(task, None)
            queue.used_at = time.monotonic()
            self._begin_calls()

    async def _write_all(self) -> None:
        """Write results, those of a moment together, until the last one is written."""
        while not self._ended or self._results:
            await self._unwritten.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._unwritten.clear()
            results, self._results = self._results, []
            try:
                self._drop(await self._in_database(record_results, results, self._settings))
            except UNUSABLE as error:
                log.warning("the database cannot be used, trying again: %s", error)
                self._results[:0] = results
                self._unwritten.set()
                await asyncio.sleep(POLL_SECONDS)
            except Exception:
                log.exception("results could not be written; their messages are sent again")
            self._wake.set()

    async def _wind_up(
        self, listening: asyncio.Task[None], taking: asyncio.Task[None], writing: asyncio.Task[None]
    ) -> None:
        """Let what is in flight come to its end for a few seconds, write what came of it and give the rest back."""
        listening.cancel()
        self._wake.set()
        await asyncio.wait([taking], timeout=STOP_SECONDS)
        calling = {task: one for queue in self._queues.values() for task, (one, _) in queue.calling.items()}
        unsent = [one for queue in self._queues.values() for one in queue.waiting]
        if calling:
            _, unfinished = await asyncio.wait(calling, timeout=STOP_SECONDS)
            unsent += [calling[task] for task in unfinished]
            for task in unfinished:
                task.cancel()
        self._ended = True
        self._unwritten.set()
        await asyncio.wait([writing], timeout=STOP_SECONDS / 2)
        await self._give_back(unsent)
        for queue in self._queues.values():
            await queue.connections.close()
