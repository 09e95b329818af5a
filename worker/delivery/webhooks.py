"""The sender of webhooks: an event loop in a separate thread of the io worker.

    prepare: claim due messages, read their documents     (database, many at once)
    call:    sign and send one request                    (network, no transaction open)
    record:  write the results                            (database, many at once)

Each endpoint has a queue (`worker.delivery.endpoint_queue`). The queues take turns when a call may start, so a slow or
dead receiver delays no other. A notification over Redis announces new deliveries; the sender also looks for them once a
second, in case it missed one. Each claim has a lease: if a sender is killed, its messages are due again when their
leases expire. So several senders may run, and each may be killed at any time.
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

from prometheus_client import Counter, Histogram
from sqlalchemy import Engine

from core.database import UNUSABLE, create_pool
from core.delivery import endpoints, sending, signing
from core.delivery.allowed_targets import AllowList
from core.delivery.deliveries import Outcome
from core.delivery.endpoints import Endpoint
from core.delivery.sending import EndpointLoad, Message, Result
from core.documents import payloads
from core.drift import episodes as drift_episodes
from core.logs import set_ids
from core.metrics import DURATIONS
from core.queue import notifications
from core.queue.broker import FINISHED_CHANNEL
from core.rescoring import documents as rescoring_documents
from core.settings import Settings
from core.tracing import traces
from worker.delivery import attempt_spans
from worker.delivery.endpoint_queue import HELD_PER_SLOW_QUEUE, EndpointQueue, PreparedMessage
from worker.delivery.http_sender import TRY_SECONDS, Connections, Resolvers, SignedRequest, send, trusted_certificates

log = logging.getLogger(__name__)

MAX_HELD = 65_536
"""Events that a sender holds at most: some 100 MB of bodies."""

POLL_SECONDS = 1.0
CALM_POLL_SECONDS = 2.0
"""The same while no message is held or waits for its time; notifications come without polling."""
GATHER_SECONDS = 0.05
"""Due messages and results are collected for this long, so that many of them share one transaction."""

STOP_SECONDS = 5.0
IDLE_SECONDS = 30.0
_DATABASE_THREADS = 3
_RESOLVER_THREADS = 64
_USER_AGENT = f"Linewatch/{version('linewatch')}"
_MAX_WAIT_SECONDS = sending.LEASE_SECONDS - TRY_SECONDS - 5
"""A message that has waited longer than this could still be in flight when its lease expires."""

LOADERS = {**payloads.LOADERS, **rescoring_documents.LOADERS, **drift_episodes.LOADERS}

_ATTEMPTS = Counter("linewatch_webhook_attempts", "Attempts to send webhooks, by outcome.", ["outcome"])
_DURATION = Histogram("linewatch_webhook_attempt_duration_seconds", "How long an attempt takes.", buckets=DURATIONS)
for _outcome in Outcome:
    _ATTEMPTS.labels(_outcome)  # a rise from nothing to 1 would not be seen

T = TypeVar("T")
QueueKey = tuple[UUID, bool]
"""The id of an endpoint, and whether this is its queue of callbacks."""


@dataclass(frozen=True)
class PreparedBatch:
    """The messages that were claimed, and the seconds until messages should be claimed again."""

    messages: Sequence[PreparedMessage]
    pause: float


def prepare(engine: Engine, held: dict[UUID, EndpointLoad]) -> PreparedBatch:
    """Claim due messages and read their documents. Cancel the events whose subjects were deleted."""
    claimed_at = time.monotonic()
    with engine.begin() as connection:
        messages = sending.claim(connection, held, capacity=HELD_PER_SLOW_QUEUE)
        if not messages:
            due = sending.next_due(connection)
            longest = POLL_SECONDS if held or due is not None else CALM_POLL_SECONDS
            return PreparedBatch([], longest if due is None else min(max(due, 0.0), longest))
    with engine.begin() as connection:
        claims = [claim for message in messages for claim in message.claims]
        documents = payloads.load_documents(connection, claims, LOADERS)
        by_id = endpoints.by_ids(connection, {message.endpoint_id for message in messages})
    prepared: list[PreparedMessage] = []
    for message in messages:
        body = payloads.body(message, documents)
        endpoint = by_id.get(message.endpoint_id)
        if body is not None and endpoint is not None and endpoint.state == "enabled":
            prepared.append(PreparedMessage(message, body, endpoint, claimed_at))
    _cancel_without_document(engine, messages, set(documents))
    return PreparedBatch(prepared, 0.0)


def read_endpoints(engine: Engine, endpoint_ids: set[UUID]) -> dict[UUID, Endpoint]:
    """Read the current state of endpoints. Deleted ones are left out."""
    with engine.begin() as connection:
        return endpoints.by_ids(connection, endpoint_ids)


def _signed(prepared: PreparedMessage, endpoint: Endpoint, url: str, trace_context: str | None) -> SignedRequest:
    """The request for a message, signed with the current time."""
    message, body = prepared.message, prepared.body
    headers = _headers(message, body, endpoints.signing_secrets(endpoint))
    return SignedRequest(url, body, headers | traces.headers(trace_context))


def _headers(message: Message, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "User-Agent": _USER_AGENT,
        **signing.headers(secrets, str(message.id), int(time.time()), body),
    }


def _cancel_without_document(engine: Engine, messages: Sequence[Message], with_document: set[UUID]) -> None:
    claims = [claim for message in messages for claim in message.claims if claim.id not in with_document]
    if claims:
        log.warning("cancelled %d events whose subjects were deleted", len(claims))
        with engine.begin() as connection:
            sending.cancel(connection, {message.endpoint_id for message in messages}, claims)


def release(engine: Engine, messages: Sequence[Message]) -> None:
    """Release claims of messages that were not sent."""
    with engine.begin() as connection:
        sending.release(connection, messages)


def record_results(engine: Engine, results: Sequence[Result], settings: Settings) -> Collection[UUID]:
    """Write the results of calls. Return the endpoints that were disabled because of them."""
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


async def _run_until_done(work: Callable[[], Awaitable[None]]) -> None:
    """Run work that must not end early. If it raises an unexpected exception, log that and start it again."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("the webhook sender failed and continues")
            await asyncio.sleep(POLL_SECONDS)


class Sender:
    """Sends webhooks in a separate thread, from `start` to `stop`.

    Raises:
        OSError: `webhook_ca_file` of the settings cannot be read.
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
        self._queues: OrderedDict[QueueKey, EndpointQueue] = OrderedDict()
        """The queue whose turn is next comes first."""
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
        listening, claiming, writing = (
            asyncio.create_task(_run_until_done(work)) for work in (self._listen, self._claim_due, self._write_results)
        )
        await self._stopping.wait()
        await self._shut_down(listening, claiming, writing)

    async def _in_database(self, action: Callable[..., T], *arguments: object) -> T:
        return await self._loop.run_in_executor(self._database, partial(action, self._engine, *arguments))

    async def _listen(self) -> None:
        """Wake the sender on notifications. While Redis is down, due messages are claimed up to two seconds later."""
        async for _ in notifications.subscribe(self._settings, FINISHED_CHANNEL):
            self._wake.set()

    async def _claim_due(self) -> None:
        """Claim due messages on every notification and every second or two, and start their calls."""
        pause = 0.0
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            await self._close_idle_queues()
            await self._release_overdue()
            pause = await self._fill_queues()
            self._start_calls()
            await asyncio.sleep(GATHER_SECONDS)

    async def _fill_queues(self) -> float:
        """Claim due messages and add them to the queues. Return the seconds to wait before the next claim."""
        try:
            pause = POLL_SECONDS
            if sum(queue.events for queue in self._queues.values()) < MAX_HELD:
                batch = await self._in_database(prepare, self._held())
                for prepared in batch.messages:
                    self._queue_of(prepared).add(prepared)
                pause = batch.pause
            await self._refresh_endpoints()
            return pause
        except UNUSABLE as error:
            log.warning("the database cannot be used, trying again: %s", error)
        except Exception:
            log.exception("messages could not be prepared; they are due again when their leases expire")
        await asyncio.sleep(POLL_SECONDS)
        return 0.0

    def _held(self) -> dict[UUID, EndpointLoad]:
        """The number of messages held of each endpoint, in both of its queues."""
        held: dict[UUID, EndpointLoad] = {}
        for (endpoint_id, _), queue in self._queues.items():
            load = held.get(endpoint_id, EndpointLoad(0, 0))
            held[endpoint_id] = EndpointLoad(load.number + queue.held, max(load.capacity, queue.capacity))
        return held

    async def _refresh_endpoints(self) -> None:
        """Read stale endpoints again, so that waiting messages use the current URL and secrets, or are dropped."""
        read_at = time.monotonic()
        stale = [key for key, queue in self._queues.items() if queue.may_call(self._calls) and not queue.is_fresh()]
        if not stale:
            return
        current = await self._in_database(read_endpoints, {endpoint_id for endpoint_id, _ in stale})
        for key in stale:
            self._queues[key].update_endpoint(current.get(key[0]), read_at)

    def _queue_of(self, prepared: PreparedMessage) -> EndpointQueue:
        """The queue for a message, created if it is missing."""
        key = prepared.message.endpoint_id, prepared.message.callback_url is not None
        if key not in self._queues:
            self._queues[key] = EndpointQueue(Connections(self._trust), prepared.endpoint, prepared.claimed_at)
        self._queues[key].used_at = time.monotonic()
        return self._queues[key]

    def _drop_waiting(self, endpoint_ids: Iterable[UUID]) -> None:
        """Drop the waiting messages of endpoints that were disabled; their deliveries are cancelled."""
        for endpoint_id in endpoint_ids:
            for is_callback in (False, True):
                if queue := self._queues.get((endpoint_id, is_callback)):
                    queue.waiting.clear()

    async def _close_idle_queues(self) -> None:
        idle_since = time.monotonic() - IDLE_SECONDS
        idle = [key for key, queue in self._queues.items() if not queue.held and queue.used_at < idle_since]
        for key in idle:
            await self._queues.pop(key).connections.close()

    async def _release_overdue(self) -> None:
        """Release messages that have waited so long that their leases could expire while they are in flight."""
        oldest = time.monotonic() - _MAX_WAIT_SECONDS
        overdue: list[PreparedMessage] = []
        for queue in self._queues.values():
            overdue += (prepared for prepared in queue.waiting if prepared.claimed_at < oldest)
            queue.waiting = deque(prepared for prepared in queue.waiting if prepared.claimed_at >= oldest)
        await self._release(overdue)

    async def _release(self, unsent: Sequence[PreparedMessage]) -> None:
        if not unsent:
            return
        try:
            await self._in_database(release, [prepared.message for prepared in unsent])
        except UNUSABLE as error:
            log.warning("%d unsent messages are due again only when their leases expire: %s", len(unsent), error)

    def _start_calls(self) -> None:
        """Start calls while there is capacity for more; the queues take turns."""
        while not self._stopping.is_set() and (key := self._next_queue()) is not None:
            self._queues.move_to_end(key)
            queue = self._queues[key]
            prepared = queue.waiting.popleft()
            self._calls += 1
            queue.in_flight[asyncio.create_task(self._call(queue, prepared))] = prepared, time.monotonic()

    def _next_queue(self) -> QueueKey | None:
        for key, queue in self._queues.items():
            if queue.may_call(self._calls):
                if queue.is_fresh():
                    return key
                self._wake.set()  # read the endpoint again first
        return None

    async def _call(self, queue: EndpointQueue, prepared: PreparedMessage) -> None:
        message = prepared.message
        ids = {
            "webhook_id": message.id,
            "endpoint_id": message.endpoint_id,
            "trace_id": attempt_spans.trace_id(message),
        }
        set_ids(lambda: ids)
        span, answer = None, None
        try:
            url = message.callback_url or queue.endpoint.url
            span = attempt_spans.begin(message, url)
            request = _signed(prepared, queue.endpoint, url, None if span is None else span.context)
            answer = await send(request, self._allowed, self._resolvers, queue.connections)
            _ATTEMPTS.labels(answer.outcome).inc()
            _DURATION.observe(answer.duration_ms / 1000)
            queue.note_result(delivered=answer.outcome is Outcome.DELIVERED, seconds=answer.duration_ms / 1000)
            if answer.outcome is Outcome.GONE and message.callback_url is None:
                self._drop_waiting([message.endpoint_id])
            self._results.append(Result(message, answer))
            self._unwritten.set()
        except Exception:
            log.exception("a call failed unexpectedly; its message is due again when its lease expires")
        finally:
            attempt_spans.end(span, answer)
            self._calls -= 1
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a coroutine runs in a task
            queue.in_flight.pop(task, None)
            queue.used_at = time.monotonic()
            self._start_calls()

    async def _write_results(self) -> None:
        """Write results in groups, until the last one is written."""
        while not self._ended or self._results:
            await self._unwritten.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._unwritten.clear()
            results, self._results = self._results, []
            try:
                self._drop_waiting(await self._in_database(record_results, results, self._settings))
            except UNUSABLE as error:
                log.warning("the database cannot be used, trying again: %s", error)
                self._results[:0] = results
                self._unwritten.set()
                await asyncio.sleep(POLL_SECONDS)
            except Exception:
                log.exception("results could not be written; their messages are sent again")
            self._wake.set()

    async def _shut_down(
        self, listening: asyncio.Task[None], claiming: asyncio.Task[None], writing: asyncio.Task[None]
    ) -> None:
        """Wait a few seconds for calls in flight, write their results and release all other messages."""
        listening.cancel()
        self._wake.set()
        await asyncio.wait([claiming], timeout=STOP_SECONDS)
        calls = {task: prepared for queue in self._queues.values() for task, (prepared, _) in queue.in_flight.items()}
        unsent = [prepared for queue in self._queues.values() for prepared in queue.waiting]
        if calls:
            _, unfinished = await asyncio.wait(calls, timeout=STOP_SECONDS)
            unsent += [calls[task] for task in unfinished]
            for task in unfinished:
                task.cancel()
        self._ended = True
        self._unwritten.set()
        await asyncio.wait([writing], timeout=STOP_SECONDS / 2)
        await self._release(unsent)
        for queue in self._queues.values():
            await queue.connections.close()
