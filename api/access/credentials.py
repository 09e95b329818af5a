"""API keys and sessions by their texts: looked up in the database, cached for seconds, and their uses noted."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from api.responses.problems import database_unavailable
from core.access import keys, sessions
from core.access.keys import Key
from core.access.sessions import Session
from core.database import UNUSABLE

log = logging.getLogger(__name__)

CACHE_SECONDS = 5.0
"""How long a key or session is cached. One that was revoked or ended is accepted for at most this long."""
USE_SECONDS = 60.0
"""The minimum time between two updates of the time a key or session was last used."""

T = TypeVar("T")


class _Cached(Generic[T]):
    """Lookups by a secret text. The texts themselves are neither kept nor compared, only their digests."""

    def __init__(self, engine: Engine, limiter: anyio.CapacityLimiter, find: Callable[[Connection, str], T | None]):
        self._engine = engine
        self._limiter = limiter
        self._find = find
        self._found: dict[bytes, tuple[float, T]] = {}  # until when, by digest

    async def find(self, text: str) -> T | None:
        now, digest = time.monotonic(), keys.digest(text)
        if digest in self._found and self._found[digest][0] > now:
            return self._found[digest][1]
        try:
            found = await anyio.to_thread.run_sync(self._look_up, text, limiter=self._limiter)
        except UNUSABLE as error:
            raise database_unavailable() from error
        self._found = {cached: entry for cached, entry in self._found.items() if entry[0] > now}
        if found is not None:
            self._found[digest] = (now + CACHE_SECONDS, found)
        return found

    def forget(self, text: str) -> None:
        self._found.pop(keys.digest(text), None)

    def _look_up(self, text: str) -> T | None:
        with self._engine.begin() as connection:
            return self._find(connection, text)


class Credentials:
    """The API keys and sessions of one api process. Use it in the event loop only."""

    def __init__(self, engine: Engine, threads: int) -> None:
        """Look up in `threads` separate threads, so that slow requests do not delay authentication."""
        limiter = anyio.CapacityLimiter(threads)
        self._engine = engine
        self._keys = _Cached(engine, limiter, keys.find)
        self._sessions = _Cached(engine, limiter, sessions.find)
        self._use_updated_at: dict[tuple[str, int], float] = {}
        self._use_updates: set[asyncio.Task[None]] = set()

    async def find_key(self, text: str) -> Key | None:
        """Return the key with this text, or None if it is unknown or revoked. It may have expired."""
        return await self._keys.find(text)

    async def find_session(self, token: str) -> Session | None:
        """Return the session with this token, or None if it has ended."""
        session = await self._sessions.find(token)
        return None if session is None or session.has_ended else session

    def forget_session(self, token: str) -> None:
        """Look the session up again at its next request, because it was ended."""
        self._sessions.forget(token)

    def note_use(self, key: Key, session: Session | None) -> None:
        """Update when they were last used, in the background: the request neither waits for it nor fails with it."""
        used = ("key", key.id) if session is None else ("session", session.id)
        now = time.monotonic()
        if self._use_updated_at.get(used, -USE_SECONDS) + USE_SECONDS > now:
            return
        recent = {client: at for client, at in self._use_updated_at.items() if at + USE_SECONDS > now}
        self._use_updated_at = {**recent, used: now}
        update = asyncio.create_task(self._write_use(key, session))
        self._use_updates.add(update)
        update.add_done_callback(self._use_updates.discard)

    async def _write_use(self, key: Key, session: Session | None) -> None:
        def write() -> None:
            with self._engine.begin() as connection:
                keys.note_use(connection, key.id)  # first, as in `keys.revoke`: otherwise they could deadlock
                if session is not None:
                    sessions.note_use(connection, session.id)

        try:
            await asyncio.to_thread(write)
        except SQLAlchemyError as error:
            log.warning("could not update when the API key %s was last used: %s", key.prefix, error)
