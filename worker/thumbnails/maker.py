"""Makes thumbnails in threads of its own, so that they occupy no slot of the worker's tasks."""

import logging
import threading
from collections.abc import Sequence

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.queue.notifications import Notifier
from core.settings import Settings
from core.storage.image_store import Store, failure_key
from core.storage.thumbnails import ThumbnailSource
from worker.thumbnails.drawing import ThumbnailDrawer

log = logging.getLogger(__name__)

THREADS = 2
"""Each has a child process, which decodes one image at a time."""
MAX_WAITING = 1000
"""With more requests, the oldest are dropped. The api repeats those that somebody still waits for."""
IDLE_SECONDS = 60.0
"""A child process without work ends after this time, to free its memory."""


class ThumbnailMaker:
    """Makes the thumbnails that were requested, in this order. Thread-safe."""

    def __init__(self, settings: Settings, store: Store, notifier: Notifier) -> None:
        self._max_pixels = settings.max_image_pixels
        self._store = store
        self._notifier = notifier
        self._changed = threading.Condition()
        self._waiting: dict[ThumbnailSource, None] = {}  # in the order of the requests
        self._in_work: set[ThumbnailSource] = set()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._run, name=f"thumbnails-{number}", daemon=True) for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Finish the images in work, for at most 5 s each, and drop the requests that wait."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout=5)

    def request(self, images: Sequence[ThumbnailSource]) -> None:
        """Make the thumbnails of these images soon. Does not block. An image that waits already keeps its place."""
        with self._changed:
            for image in images:
                if image not in self._in_work:
                    self._waiting.setdefault(image)
            while len(self._waiting) > MAX_WAITING:
                self._pop_oldest()
            self._changed.notify_all()

    def _run(self) -> None:
        with ThumbnailDrawer(max_pixels=self._max_pixels) as drawer:
            while (image := self._take(drawer)) is not None:
                try:
                    self._make(drawer, image)
                except OSError as error:
                    log.warning("a thumbnail cannot be made now: %s", error)
                except Exception:  # a bug; the thread must not end
                    log.exception("a thumbnail could not be made")
                finally:
                    with self._changed:
                        self._in_work.discard(image)

    def _take(self, drawer: ThumbnailDrawer) -> ThumbnailSource | None:
        """Wait for a request; None once this stops."""
        with self._changed:
            while not self._stopping:
                if self._waiting:
                    image = self._pop_oldest()
                    self._in_work.add(image)
                    return image
                if not self._changed.wait(IDLE_SECONDS):
                    drawer.end()
        return None

    def _pop_oldest(self) -> ThumbnailSource:
        oldest = next(iter(self._waiting))
        del self._waiting[oldest]
        return oldest

    def _make(self, drawer: ThumbnailDrawer, image: ThumbnailSource) -> None:
        """Store the thumbnail of an image, or the error next to it.

        Raises:
            OSError: the store cannot be read or written; this machine cannot start a process.
        """
        if not (self._store.holds(image.key) or self._store.holds(failure_key(image.key))):
            try:
                with self._store.local_file(image.image_key) as path:
                    thumbnail = drawer.draw(path, image.bit_depth)
                self._store.put_all({image.grey_key: thumbnail.grey, image.key: thumbnail.jpeg})
            except Undecodable as error:
                if error.failure is Failure.IMAGE_MISSING:  # the store may be unavailable for now
                    raise OSError(error.detail) from error
                self._store.put(failure_key(image.key), error.detail.encode())
        self._notifier.map_written(image.key)
