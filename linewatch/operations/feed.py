"""The feed: each final inspection once, in an order that never changes."""

import os
import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path

from linewatch.errors import LinewatchError
from linewatch.http.request_bodies import as_text
from linewatch.operations.session import LONGEST_WAIT, Session, url_path
from linewatch.types.results import Consumer, FeedItem, FeedPage


class Feed(Session):
    """Operations on the feed and its consumers."""

    async def results(
        self,
        after: str | None = None,
        *,
        consumer: str | None = None,
        recipe: str | None = None,
        include_reviews: bool = False,
        wait: float | None = None,
        follow: bool = False,
        cursor_file: str | os.PathLike[str] | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[FeedItem, None]:
        """Inspections as they become final, each once, page by page.

        With `cursor_file` or `consumer` the cursor is saved when you ask for the first item of the next page. After a
        crash the items of the last page come again, and none is missed.

        Example:
            for item in lw.results(recipe="ring", cursor_file="mes.cursor"):
                print(item.id, item.effective_verdict, item.cursor)

        Args:
            after: where to begin: after this cursor, at "now", or at "oldest". A saved cursor overrides "now" and None;
                without a saved cursor, None is "oldest".
            consumer: the name under which the system saves the cursor and counts how far you are behind.
            recipe: only inspections of this recipe.
            include_reviews: repeat an inspection when a person has reviewed it (`feed_event`).
            wait: seconds to wait for the next item if there is none; 0 by default, 30 with `follow`.
            follow: never end, and wait while the system is down: after `Unreachable`, 429 and any 5xx the request is
                retried with pauses of up to 10 s. Without it, the iteration ends when there is no next item.
            cursor_file: the file that the cursor is saved to, in one atomic step; it is created if it does not exist.
            page_size: 1 to 1000.

        Raises:
            CursorLost: the results after the cursor are gone; it says where you can continue.
            OSError: `cursor_file` cannot be read or written.
            LinewatchError: `cursor_file` does not hold a cursor.
        """
        reader = Feed(self._transport.tireless()) if follow else self
        file = Path(cursor_file) if cursor_file is not None else None
        place = await reader._start(after, consumer, file)
        query = as_text({"recipe": recipe, "include": "reviews" if include_reviews else None, "limit": page_size})
        seconds = wait if wait is not None else 0.0
        if follow:
            seconds = wait or LONGEST_WAIT
        while True:
            page = await reader._page(place, query, seconds)
            for item in page.items:
                yield item
            if page.next_cursor != place.get("after"):
                await reader._save_cursor(page.next_cursor, consumer, file)
            place = {"after": page.next_cursor}
            if not page.items and not follow:
                return

    async def _start(self, after: str | None, consumer: str | None, file: Path | None) -> Mapping[str, str]:
        """The query parameters of the first page's start."""
        if after == "oldest":
            return {}
        if after not in (None, "now"):
            return {"after": str(after)}
        saved = await self._executor.work(partial(_read_cursor, file)) if file is not None else None
        if saved is not None:
            return {"after": saved}
        if consumer is not None and (after is None or any(known.name == consumer for known in await self.consumers())):
            return {"consumer": consumer}  # a new one starts at the oldest
        return {} if after is None else {"after": after}

    async def _page(self, place: Mapping[str, str], query: Mapping[str, str], seconds: float) -> FeedPage:
        """The next page as soon as it has an item, or an empty page after `seconds`."""
        give_up = time.monotonic() + seconds
        while True:
            left = max(0.0, give_up - time.monotonic())
            page = await self._get(FeedPage, url_path("results"), {**query, **place}, wait=min(left, LONGEST_WAIT))
            if page.items or left <= LONGEST_WAIT:
                return page
            place = {"after": page.next_cursor}

    async def _save_cursor(self, cursor: str, consumer: str | None, file: Path | None) -> None:
        if file is not None:
            await self._executor.work(partial(_write_cursor, file, cursor))
        if consumer is not None:
            await self.acknowledge(consumer, cursor)

    async def acknowledge(self, consumer: str, cursor: str) -> Consumer:
        """Save the cursor of a consumer in the system. Creates the consumer if it is new.

        Example:
            for item in lw.results(recipe="ring"):
                lw.acknowledge("mes", item.cursor)
            print(lw.consumers()[0].behind)
            lw.forget_consumer("mes")

        Args:
            cursor: of the last item that you have processed; or "now".
        """
        new = {"consumer": consumer, "cursor": cursor}
        return await self._post(Consumer, url_path("results", "acknowledge"), new, harmless_twice=True)

    async def consumers(self) -> list[Consumer]:
        """All consumers, and how far each is behind."""
        return await self._list(Consumer, url_path("results", "consumers"))

    async def forget_consumer(self, name: str) -> None:
        """Delete a consumer and its cursor."""
        await self._delete(url_path("results", "consumers", name))


def _read_cursor(file: Path) -> str | None:
    """The cursor in a file; None if the file is missing or empty."""
    try:
        return file.read_text("ascii").strip() or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise LinewatchError(
            f"{file} does not hold a cursor: name another file, or remove it to start again"
        ) from error


def _write_cursor(file: Path, cursor: str) -> None:
    """Write a cursor to a file; after a power cut the file holds this cursor or the one before."""
    draft = file.with_name(f"{file.name}.new")
    with draft.open("w", encoding="ascii") as new:
        new.write(f"{cursor}\n")
        new.flush()
        os.fsync(new.fileno())
    draft.replace(file)
    if os.name == "nt":  # Windows opens no folders
        return
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
