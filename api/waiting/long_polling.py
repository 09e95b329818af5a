"""Waiting for something to become final, without a thread or a query per waiter.

A notification on Redis' pub/sub wakes local long_polls at once. Notifications can be lost, so one
query a second asks for all waiting requests together. Without Redis, answers come up to a second later.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Literal, Protocol, TypeVar
from uuid import UUID

from core.queue import notifications
from core.queue.broker import FINISHED_CHANNEL, MAP_CHANNEL
from core.settings import Settings

log = logging.getLogger(__name__)

Kind = Literal["inspection", "batch", "rescore_run", "anomaly_map"]
Look = Callable[[Iterable[str]], set[str]]
"""Which of these are final now. Runs in a thread."""

POLL_SECONDS = 1.0


class Ending(Protocol):
    """What is final at some time."""

    @property
    def final(self) -> bool: ...


AnyEnding = TypeVar("AnyEnding", bound=Ending)


class LongPolls:
    """The requests that wait in this process, by what they wait for."""

    def __init__(self, settings: Settings, looks: Mapping[Kind, Look], *, on_finish: Callable[[], None]) -> None:
        self._settings = settings
        self._on_finish = on_finish
        self._looks = looks
        self._waiting: dict[tuple[Kind, str], set[asyncio.Event]] = defaultdict(set)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._poll())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._wake(list(self._waiting))

    @asynccontextmanager
    async def expecting(self, kind: Kind, name: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set once `name` may be final. Look once inside, then wait: nothing is missed between."""
        event = asyncio.Event()
        self._waiting[kind, name].add(event)
        try:
            yield event
        finally:
            self._waiting[kind, name].discard(event)
            if not self._waiting[kind, name]:
                del self._waiting[kind, name]

    async def final(self, kind: Kind, one: UUID, wait: float, view: Callable[[UUID], AnyEnding]) -> AnyEnding:
        """One thing once it is final, or as it stands after `wait` seconds; `view` runs in a thread."""
        async with self.expecting(kind, str(one)) as final:
            found = await asyncio.to_thread(view, one)
            if found.final or wait == 0:
                return found
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await final.wait()
        return await asyncio.to_thread(view, one)

    def _wake(self, keys: Iterable[tuple[Kind, str]]) -> None:
        for key in keys:
            for event in self._waiting.get(key, ()):
                event.set()

    async def _listen(self) -> None:
        async for channel, names in notifications.subscribe(self._settings, FINISHED_CHANNEL, MAP_CHANNEL):
            kinds: tuple[Kind, ...] = ("inspection", "batch", "rescore_run")
            if channel == MAP_CHANNEL:
                kinds = ("anomaly_map",)
            else:  # whatever became final is in the feed
                self._on_finish()
            self._wake((kind, name) for name in names for kind in kinds)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for kind, look in self._looks.items():
                names = [name for waited_kind, name in self._waiting if waited_kind == kind]
                if not names:
                    continue
                try:
                    final = await asyncio.to_thread(look, names)
                except Exception as error:  # noqa: BLE001 - this loop must go on, whatever happens
                    log.warning("could not look for what became final: %s", error)
                    continue
                self._wake((kind, name) for name in final)
