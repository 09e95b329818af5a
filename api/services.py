"""The connections and services of one api process, which all routes share."""

import logging
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Self
from uuid import UUID

from fastapi import Depends, Request
from sqlalchemy import Connection, Engine

from api.access.authentication import Identity
from api.access.credentials import Credentials
from api.access.sign_ins import SignInLimit
from api.publisher import Publisher
from api.requests.group_commit import GroupCommit
from api.requests.idempotency import InFlight
from api.requests.uploads import UploadReceiver
from api.responses.downloads import Downloads
from api.schema import SchemaCheck
from api.waiting.event_streams import EventStreams
from api.waiting.feed_long_polling import FeedLongPolls
from api.waiting.long_polling import FinalCheck, Kind, LongPolls
from core.database import UNUSABLE, create_pool
from core.delivery.allowed_targets import AllowList
from core.feed.consumers import Reader
from core.inspection import inspections
from core.queue import batches
from core.rescoring import runs
from core.settings import Settings
from core.storage.image_store import Store, failure_key
from core.storage.stores import open_store
from core.system import status, store_usage
from core.system.documents import System
from core.system.final_counts import FinalCounts
from core.system.metrics import SystemMetrics
from core.training_runs import runs as training_runs

log = logging.getLogger(__name__)

POOL_SIZE = 24
# There is a connection for every thread, and no kind of request waits for another kind.
WORK_THREADS = 7  # async routes and long polls
ROUTE_THREADS = 6  # plain routes
KEY_THREADS = 2  # authentication
EXPORT_THREADS = 2
# Besides, four threads read the feed (`api.waiting.feed_long_polling`), one commits groups and one publishes; the
# receiver may need a connection to register a bundle, and group commit one for a callback.

EXPORTS = 4
"""Exports that one process sends at a time. Each holds up to a row group in memory."""
STREAMS = 100
"""Streams of results that one process sends at a time."""


@dataclass(frozen=True)
class Services:
    """Everything that lives as long as the process."""

    settings: Settings
    engine: Engine
    schema: SchemaCheck
    credentials: Credentials
    sign_in_limit: SignInLimit
    store: Store
    publisher: Publisher
    group_commit: GroupCommit
    in_flight: InFlight
    receiver: UploadReceiver
    long_polls: LongPolls
    feed_long_polls: FeedLongPolls
    allowed: AllowList
    downloads: Downloads
    event_streams: EventStreams
    system_metrics: SystemMetrics
    final_counts: FinalCounts
    probing: ThreadPoolExecutor
    """The thread of `/readyz`: long listings must not make the api look dead."""
    stopping: threading.Event
    """Set once the process was asked to stop. It still serves requests."""

    @classmethod
    def create(cls, settings: Settings) -> Self:
        engine = create_pool(settings, size=POOL_SIZE, name="api")
        store = open_store(settings)
        publisher = Publisher(settings, engine)
        allowed = AllowList.of(settings)

        def final_inspections(names: Iterable[str]) -> set[str]:
            with engine.begin() as connection:
                return {str(id_) for id_ in inspections.which_are_final(connection, map(UUID, names))}

        def final_batches(names: Iterable[str]) -> set[str]:
            with engine.begin() as connection:
                return {str(id_) for id_ in batches.which_are_final(connection, map(UUID, names))}

        def final_runs(names: Iterable[str]) -> set[str]:
            with engine.begin() as connection:
                return {str(id_) for id_ in runs.which_are_final(connection, map(UUID, names))}

        def final_trainings(names: Iterable[str]) -> set[str]:
            with engine.begin() as connection:
                return {str(id_) for id_ in training_runs.which_are_final(connection, map(UUID, names))}

        def written_maps(names: Iterable[str]) -> set[str]:
            return {name for name in names if store.holds(name) or store.holds(failure_key(name))}

        final_checks: dict[Kind, FinalCheck] = {
            "inspection": final_inspections,
            "batch": final_batches,
            "rescore_run": final_runs,
            "training_run": final_trainings,
            "anomaly_map": written_maps,
        }
        feed_long_polls = FeedLongPolls(engine)
        return cls(
            settings,
            engine,
            SchemaCheck(engine),
            Credentials(engine, KEY_THREADS),
            SignInLimit(),
            store,
            publisher,
            GroupCommit(settings, engine, store, publisher, allowed),
            InFlight(),
            UploadReceiver(settings, store),
            LongPolls(settings, final_checks, on_finish=feed_long_polls.notify),
            feed_long_polls,
            allowed,
            Downloads(max_downloads=EXPORTS, threads=EXPORT_THREADS),
            EventStreams(feed_long_polls, most=STREAMS),
            SystemMetrics(partial(_read_system, settings, engine, store)),
            FinalCounts(),
            ThreadPoolExecutor(1, "probe"),
            threading.Event(),
        )

    async def start(self) -> None:
        await self.schema.start()
        self.publisher.start()
        await self.group_commit.start()
        await self.feed_long_polls.start()
        await self.long_polls.start()

    async def stop(self) -> None:
        await self.schema.stop()
        await self.long_polls.stop()
        await self.feed_long_polls.stop()
        await self.group_commit.stop()
        self.publisher.stop()
        self.receiver.stop()
        self.probing.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()

    def answer_waiting(self) -> None:
        """Answer all long polls with what is known, because the process is about to end."""
        self.long_polls.answer_all()
        self.feed_long_polls.answer_all()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection within one transaction."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection within one transaction whose queries all read the same state of the database."""
        with self.engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
            yield connection


def _read_system(settings: Settings, engine: Engine, store: Store) -> System | None:
    """Return the state of the system; None if the database cannot be used."""
    messages, disk = status.count_messages(settings), store_usage.disk(store, settings.min_free_bytes)
    try:
        with engine.begin() as connection:
            return status.read(connection, Reader("metrics", is_admin=True), messages, disk)
    except UNUSABLE as error:
        log.warning("the state of the system cannot be read for metrics: %s", error)
        return None


# Coroutines: plain functions would each wait for a thread of the plain routes.
async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _actor(request: Request) -> str:
    actor: str = request.state.actor
    return actor


async def _identity(request: Request) -> Identity:
    identity: Identity = request.state.identity
    return identity


async def _api_key(request: Request) -> str | None:
    """Return the prefix of the request's API key; None without authentication."""
    return api_key_of(request.state.actor)


def api_key_of(actor: str) -> str | None:
    """Return the prefix of the API key of an actor; None without authentication."""
    kind, _, prefix = actor.partition(":")
    return prefix if kind == "key" else None


async def _feed_reader(request: Request) -> Reader:
    return Reader(request.state.actor, request.state.is_admin)


async def _is_admin(request: Request) -> bool:
    is_admin: bool = request.state.is_admin
    return is_admin


Context = Annotated[Services, Depends(_services)]
IsAdmin = Annotated[bool, Depends(_is_admin)]
Actor = Annotated[str, Depends(_actor)]
RequestIdentity = Annotated[Identity, Depends(_identity)]
ApiKey = Annotated[str | None, Depends(_api_key)]
FeedReader = Annotated[Reader, Depends(_feed_reader)]
