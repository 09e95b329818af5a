"""Download the images of inspections, several at the same time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from linewatch.errors import Refused

if TYPE_CHECKING:
    from linewatch.client import Client

_THREADS = 8
_AHEAD = 2 * _THREADS
_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)

Item = TypeVar("Item")
Result = TypeVar("Result")


def stored_images(
    system: "Client", items: Iterable[tuple[UUID, Item]], use: Callable[[Item, bytes], Result]
) -> Generator[tuple[Item, Result | None]]:
    """Yield the items in order, each with what `use` returns for its image; None if the store no longer has it.

    Args:
        items: the id of an inspection, and what `use` is called with.
        use: called with an item and its encoded image, in one of a few threads.

    Raises:
        LinewatchError: an image cannot be downloaded for another reason.
    """

    def fetch(inspection_id: UUID, item: Item) -> tuple[Item, Result | None]:
        try:
            content = system.image(inspection_id)
        except Refused as refused:
            if refused.status in _GONE:
                return item, None
            raise
        return item, use(item, content)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="images") as pool:
        waiting: deque[Future[tuple[Item, Result | None]]] = deque()
        try:
            for inspection_id, item in items:
                waiting.append(pool.submit(fetch, inspection_id, item))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
