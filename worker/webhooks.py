"""The sender of webhooks: one event loop in a thread of its own, inside the io worker's process.

    prepare: claim what is due, read what it tells of, sign it     (database, many at once)
    call:    one request                                           (network, no transaction open)
    handle:  write what came of it                                 (database, many at once)

Each endpoint has a lane: few requests at a time, one while it fails, so a slow or dead receiver delays nobody else. A
hint over Redis says that something was finished; who misses it looks once a second. Whatever a killed sender held is
due again when its lease has run out, so several senders may run and each may be killed at any moment.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import TypeVar
from uuid import UUID

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from sqlalchemy import Engine

from core import endpoints, payloads, sending, signing
from core.database import UNUSABLE, create_pool
from core.deliveries import Outcome
from core.queues import FINISHED_CHANNEL, connection_options
from core.sending import Message, Result
from core.settings import Settings
from core.targets import AllowList
from worker.calls import TRY_SECONDS, Call, Connections, Resolvers, call, trusted

log = logging.getLogger(__name__)

CALLS_OF_ENDPOINT = 8
"""Requests at a time to one endpoint that answers."""

HELD_OF_ENDPOINT = 64
"""Messages of one endpoint that are claimed at a time: those in flight, and the next ones, ready to be sent."""

MAX_CALLS = 512
MAX_HELD = 4096
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


@dataclass(frozen=True)
class Prepared:
    """A message, the call that it takes, and when it was claimed by this process's clock."""

    message: Message
    call: Call
    claimed_at: float


@dataclass
class Lane:
    """What this process has to do with one endpoint."""

    connections: Connections
    waiting: deque[Prepared] = field(default_factory=deque)
    calling: dict[asyncio.Task[None], Prepared] = field(default_factory=dict)
    failures: int = 0
    used_at: float = 0.0

    @property
    def held(self) -> int:
        return len(self.waiting) + len(self.calling)

    @property
    def width(self) -> int:
        """How many requests may be in flight: one after as many failures in a row as would fill the lane."""
        return CALLS_OF_ENDPOINT if self.failures < CALLS_OF_ENDPOINT else 1


def next_due(engine: Engine) -> float:
    """Seconds until it is time to look again."""
    with engine.begin() as connection:
        due = sending.next_due(connection)
    return POLL_SECONDS if due is None else min(max(due, 0.0), POLL_SECONDS)


def prepare(engine: Engine, held: dict[UUID, int]) -> list[Prepared]:
    """Claim what is due, and make of each message a signed call. What has nothing left to tell is cancelled."""
    claimed_at = time.monotonic()
    with engine.begin() as connection:
        messages = sending.claim(connection, held, room=HELD_OF_ENDPOINT)
    if not messages:
        return []
    with engine.begin() as connection:
        told = payloads.documents(connection, [claim for message in messages for claim in message.claims])
        receivers = endpoints.by_ids(connection, {message.endpoint_id for message in messages})
    prepared: list[Prepared] = []
    for message in messages:
        body = payloads.body(message, told)
        receiver = receivers.get(message.endpoint_id)
        if body is not None and receiver is not None and receiver.state == "enabled":
            headers = _headers(message, body, endpoints.signing_secrets(receiver))
            prepared.append(Prepared(message, Call(message.callback_url or receiver.url, body, headers), claimed_at))
    _cancel_untold(engine, messages, set(told))
    return prepared


def _headers(message: Message, body: bytes, secrets: Sequence[str]) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "User-Agent": _USER_AGENT,
        **signing.headers(secrets, str(message.id), int(time.time()), body),
    }


def _cancel_untold(engine: Engine, messages: Sequence[Message], told: set[UUID]) -> None:
    untold = [claim for message in messages for claim in message.claims if claim.id not in told]
    if untold:
        log.warning("%d events are cancelled, for what they tell of is gone", len(untold))
        with engine.begin() as connection:
            sending.cancel(connection, {message.endpoint_id for message in messages}, untold)


def release(engine: Engine, messages: Sequence[Message]) -> None:
    """Give messages back that were claimed and not sent."""
    with engine.begin() as connection:
        sending.release(connection, messages)


def handle(engine: Engine, results: Sequence[Result], settings: Settings) -> None:
    """Write what came of calls."""
    if not results:
        return
    with engine.begin() as connection:
        disabled = sending.handle(
            connection,
            results,
            schedule=settings.webhook_retry_seconds,
            disable_after_days=settings.webhook_disable_after_days,
        )
    for endpoint_id, because in disabled.items():
        log.warning("webhook endpoint %s is disabled: %s", endpoint_id, because)


class Sender:
    """Sends from `start` to `stop`.

    Raises OSError when the file of authorities cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._trust = trusted(settings.webhook_ca_file)
        self._allowed = AllowList.of(settings)
        self._engine = create_pool(settings, size=_DATABASE_THREADS, name="webhooks")
        self._database = ThreadPoolExecutor(_DATABASE_THREADS, thread_name_prefix="webhooks-database")
        self._resolvers = Resolvers(_RESOLVER_THREADS)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="webhooks", daemon=True)
        self._running = threading.Event()
        self._lanes: dict[UUID, Lane] = {}
        self._results: list[Result] = []
        self._calls = 0
        self._ended = False

    def start(self) -> None:
        self._thread.start()
        self._running.wait()

    def stop(self) -> None:
        """End within a few seconds: what is in flight then is given up, and sent again by whoever comes next."""
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
            asyncio.create_task(one) for one in (self._listen(), self._take_all(), self._write_all())
        )
        await self._stopping.wait()
        await self._wind_up(listening, taking, writing)

    async def _in_database(self, action: Callable[..., T], *arguments: object) -> T:
        return await self._loop.run_in_executor(self._database, partial(action, self._engine, *arguments))

    async def _listen(self) -> None:
        """Wake on hints; while Redis is away, what is due is found a second later."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self._receive()
            await asyncio.sleep(POLL_SECONDS)

    async def _receive(self) -> None:
        client = redis.asyncio.from_url(
            self._settings.redis_url.get_secret_value(),
            retry=Retry(NoBackoff(), 0),
            **connection_options(self._settings),
        )
        async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(FINISHED_CHANNEL)
            async for _ in subscription.listen():
                self._wake.set()

    async def _take_all(self) -> None:
        """Claim what is due whenever there may be something; the lanes send it."""
        pause = 0.0
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            self._wake.clear()
            await self._close_idle_lanes()
            await self._give_back_overdue()
            held = {endpoint_id: lane.held for endpoint_id, lane in self._lanes.items()}
            pause = await self._take(held) if sum(held.values()) < MAX_HELD else POLL_SECONDS
            for lane in self._lanes.values():
                self._send_next(lane)
            await asyncio.sleep(GATHER_SECONDS)

    async def _take(self, held: dict[UUID, int]) -> float:
        """Put what is due into the lanes; returns how long to wait before the next look, in seconds."""
        try:
            prepared = await self._in_database(prepare, held)
            for one in prepared:
                self._lane(one.message.endpoint_id).waiting.append(one)
            return 0.0 if prepared else await self._in_database(next_due)
        except UNUSABLE as error:
            log.warning("the database cannot be used, trying again: %s", error)
        except Exception:
            log.exception("messages could not be prepared; they are due again when their leases have run out")
        return POLL_SECONDS

    def _lane(self, endpoint_id: UUID) -> Lane:
        lane = self._lanes.setdefault(endpoint_id, Lane(Connections(self._trust)))
        lane.used_at = time.monotonic()
        return lane

    async def _close_idle_lanes(self) -> None:
        long_ago = time.monotonic() - IDLE_SECONDS
        for endpoint_id in [one for one, lane in self._lanes.items() if not lane.held and lane.used_at < long_ago]:
            await self._lanes.pop(endpoint_id).connections.close()

    async def _give_back_overdue(self) -> None:
        """Give back what has waited so long behind a slow receiver that its lease could run out in flight."""
        long_ago = time.monotonic() - _BEGIN_WITHIN
        overdue = [one for lane in self._lanes.values() for one in lane.waiting if one.claimed_at < long_ago]
        for lane in self._lanes.values():
            lane.waiting = deque(one for one in lane.waiting if one.claimed_at >= long_ago)
        await self._give_back(overdue)

    async def _give_back(self, unsent: Sequence[Prepared]) -> None:
        if not unsent:
            return
        try:
            await self._in_database(release, [one.message for one in unsent])
        except UNUSABLE as error:
            log.warning("%d messages are due again only when their leases have run out: %s", len(unsent), error)

    def _send_next(self, lane: Lane) -> None:
        """Begin as many calls of a lane as it has room for."""
        while lane.waiting and len(lane.calling) < lane.width and self._calls < MAX_CALLS:
            if self._stopping.is_set():
                return
            one = lane.waiting.popleft()
            self._calls += 1
            lane.calling[asyncio.create_task(self._send(lane, one))] = one

    async def _send(self, lane: Lane, one: Prepared) -> None:
        try:
            answer = await call(one.call, self._allowed, self._resolvers, lane.connections)
            lane.failures = 0 if answer.outcome is Outcome.DELIVERED else lane.failures + 1
            self._results.append(Result(one.message, answer))
            self._unwritten.set()
        except Exception:
            log.exception("a call ended in no way that is foreseen; it is due again when its lease has run out")
        finally:
            if self._calls >= MAX_CALLS:
                self._wake.set()  # other lanes wait for this place
            self._calls -= 1
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - this is a task's own code
            lane.calling.pop(task, None)
            lane.used_at = time.monotonic()
            self._send_next(lane)

    async def _write_all(self) -> None:
        """Write results, those of a moment together, until the last one is written."""
        while not self._ended or self._results:
            await self._unwritten.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._unwritten.clear()
            results, self._results = self._results, []
            try:
                await self._in_database(handle, results, self._settings)
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
        calling = {task: one for lane in self._lanes.values() for task, one in lane.calling.items()}
        unsent = [one for lane in self._lanes.values() for one in lane.waiting]
        if calling:
            _, unfinished = await asyncio.wait(calling, timeout=STOP_SECONDS)
            unsent += [calling[task] for task in unfinished]
            for task in unfinished:
                task.cancel()
        self._ended = True
        self._unwritten.set()
        await asyncio.wait([writing], timeout=STOP_SECONDS / 2)
        await self._give_back(unsent)
        for lane in self._lanes.values():
            await lane.connections.close()
