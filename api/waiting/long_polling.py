"""Long polls: requests that wait for something to become final, without a thread or a query for each.

A notification on Redis' pub/sub wakes them. Notifications can be lost, so one query a second checks all waiting
requests together: without Redis, answers come up to a second later.
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

Kind = Literal["inspection", "batch", "rescore_run", "training_run", "anomaly_map"]
FinalCheck = Callable[[Iterable[str]], set[str]]
"""Returns which of the names are final. Runs in a thread."""

POLL_SECONDS = 1.0


class Ending(Protocol):
    """Something that becomes final."""

    @property
    def final(self) -> bool: ...


AnyEnding = TypeVar("AnyEnding", bound=Ending)


class LongPolls:
    """The waiting requests of this process, by what they wait for."""

    def __init__(
        self, settings: Settings, final_checks: Mapping[Kind, FinalCheck], *, on_finish: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._on_finish = on_finish
        self._final_checks = final_checks
        self._waiting: dict[tuple[Kind, str], set[asyncio.Event]] = defaultdict(set)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_ending = False

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._poll())]

    def answer_all(self) -> None:
        """Answer all waiting requests with what is known, and let none wait from now on: the process ends."""
        self._is_ending = True
        self._wake(list(self._waiting))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.answer_all()

    @asynccontextmanager
    async def expecting(self, kind: Kind, *names: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set once one of the names may be final.

        Check first inside the block, then wait, to miss nothing.
        """
        event = asyncio.Event()
        for name in names:
            self._waiting[kind, name].add(event)
        try:
            yield event
        finally:
            for name in names:
                self._waiting[kind, name].discard(event)
                if not self._waiting[kind, name]:
                    del self._waiting[kind, name]

    async def final(self, kind: Kind, one: UUID, wait: float, view: Callable[[UUID], AnyEnding]) -> AnyEnding:
        """A resource once it is final, or in its current state after `wait` seconds; `view` runs in a thread."""
        async with self.expecting(kind, str(one)) as final:
            found = await asyncio.to_thread(view, one)
            if found.final or wait == 0 or self._is_ending:
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
            kinds: tuple[Kind, ...] = ("inspection", "batch", "rescore_run", "training_run")
            if channel == MAP_CHANNEL:
                kinds = ("anomaly_map",)
            else:  # everything final is in the feed
                self._on_finish()
            self._wake((kind, name) for name in names for kind in kinds)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            for kind, check in self._final_checks.items():
                names = [name for waited_kind, name in self._waiting if waited_kind == kind]
                if not names:
                    continue
                try:
                    final = await asyncio.to_thread(check, names)
                except Exception as error:  # noqa: BLE001 - this loop must not end
                    log.warning("could not check what became final: %s", error)
                    continue
                self._wake((kind, name) for name in final)
