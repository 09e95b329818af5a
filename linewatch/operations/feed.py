"""The feed: each final inspection once, in an order that never changes, from wherever a reader has got to."""

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

        A place that is kept, in `cursor_file` or by the system for `consumer`, moves on once a page was consumed:
        when the caller asks for the item after its last one. After a crash the items of that page come again, and none
        is missed.

        Example:
            for item in lw.results(recipe="ring", cursor_file="mes.cursor"):
                print(item.id, item.effective_verdict, item.cursor)

        Args:
            after: where to begin: after this cursor; "now"; or "oldest", with what is kept longest. A place that is
                kept goes before "now" and before None, which is "oldest" where there is none.
            consumer: a name by which the system keeps the place, and counts how far it is behind.
            recipe: only inspections of this recipe.
            include_reviews: an inspection comes again when a person has reviewed it (`feed_event`).
            wait: seconds to wait for a next item where there is none yet; 0 by default, and 30 with `follow`.
            follow: go on for ever, also where the system is away for a while: what says so (`Unreachable`, 429, any
                5xx) is tried again, after pauses that grow to 10 s, until it answers. Otherwise it ends where there is
                no next item.
            cursor_file: where the place is kept; the file is made, and replaced in one step.
            page_size: 1 to 1000.

        Raises:
            CursorLost: what follows the place is not known any more; it says where one can go on.
            OSError: `cursor_file` cannot be read or written.
            LinewatchError: what is in `cursor_file` is no cursor.
        """
        reader = Feed(self._transport.tireless()) if follow else self
        file = Path(cursor_file) if cursor_file is not None else None
        place = await reader._beginning(after, consumer, file)
        asked = as_text({"recipe": recipe, "include": "reviews" if include_reviews else None, "limit": page_size})
        seconds = wait if wait is not None else 0.0
        if follow:
            seconds = wait or LONGEST_WAIT
        while True:
            page = await reader._page(place, asked, seconds)
            for item in page.items:
                yield item
            if page.next_cursor != place.get("after"):
                await reader._keep(page.next_cursor, consumer, file)
            place = {"after": page.next_cursor}
            if not page.items and not follow:
                return

    async def _beginning(self, after: str | None, consumer: str | None, file: Path | None) -> Mapping[str, str]:
        """The parameters that say where the first page begins."""
        if after == "oldest":
            return {}
        if after not in (None, "now"):
            return {"after": str(after)}
        kept = await self._executor.work(partial(_kept, file)) if file is not None else None
        if kept is not None:
            return {"after": kept}
        if consumer is not None and (after is None or any(one.name == consumer for one in await self.consumers())):
            return {"consumer": consumer}  # it reads from the oldest where it is new
        return {} if after is None else {"after": after}

    async def _page(self, place: Mapping[str, str], asked: Mapping[str, str], seconds: float) -> FeedPage:
        """The next page, as soon as it has an item, or an empty one after some seconds."""
        give_up = time.monotonic() + seconds
        while True:
            left = max(0.0, give_up - time.monotonic())
            page = await self._get(FeedPage, url_path("results"), {**asked, **place}, wait=min(left, LONGEST_WAIT))
            if page.items or left <= LONGEST_WAIT:
                return page
            place = {"after": page.next_cursor}

    async def _keep(self, cursor: str, consumer: str | None, file: Path | None) -> None:
        if file is not None:
            await self._executor.work(partial(_write, file, cursor))
        if consumer is not None:
            await self.acknowledge(consumer, cursor)

    async def acknowledge(self, consumer: str, cursor: str) -> Consumer:
        """Let the system keep a place for a consumer, which is made where it is new.

        Example:
            for item in lw.results(recipe="ring"):
                lw.acknowledge("mes", item.cursor)
            print(lw.consumers()[0].behind)
            lw.forget_consumer("mes")

        Args:
            cursor: of an item, up to which all was consumed; or "now".
        """
        new = {"consumer": consumer, "cursor": cursor}
        return await self._post(Consumer, url_path("results", "acknowledge"), new, harmless_twice=True)

    async def consumers(self) -> list[Consumer]:
        """All consumers, and how far each is behind."""
        return await self._list(Consumer, url_path("results", "consumers"))

    async def forget_consumer(self, name: str) -> None:
        """Forget a consumer and its place."""
        await self._delete(url_path("results", "consumers", name))


def _kept(file: Path) -> str | None:
    """The cursor in a file; None where there is none."""
    try:
        return file.read_text("ascii").strip() or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise LinewatchError(f"{file} holds no cursor: name another file, or remove it to start again") from error


def _write(file: Path, cursor: str) -> None:
    """Put a cursor in a file: after a power cut it holds this one or the one before."""
    draft = file.with_name(f"{file.name}.new")
    with draft.open("w", encoding="ascii") as new:
        new.write(f"{cursor}\n")
        new.flush()
        os.fsync(new.fileno())
    draft.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
