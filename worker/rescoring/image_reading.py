"""Reading the images of a run: load them from the store or an archive, check, decode and prepare them."""

import hashlib
import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from core.errors import Failure, Refused
from core.intake.image_decoding import Undecodable
from core.rescoring.runs import Run
from core.rescoring.slices import RunImage
from core.settings import Settings
from core.storage.archive_location import ArchiveLocation
from core.storage.archive_roots import Archives
from core.storage.image_store import Store
from core.vision.input.prepared_image import PreparedImage
from worker.pipeline.decode_threads import DecodeThreads
from worker.pipeline.faults import describe
from worker.pipeline.image_loading import CheckedImage, Unprepared, prepare_here, prepare_in_child, read_stored
from worker.pipeline.isolated_decoding import IsolatedDecoder
from worker.pipeline.loaded_models import LoadedModel

log = logging.getLogger(__name__)

GIVE_UP_SECONDS = 20.0
"""An image that is not prepared after this wait is decoded in a child process with limits."""


@dataclass(frozen=True)
class ReadImage:
    """A prepared image with the input checks that it failed, or the reason why it could not be read."""

    image: RunImage
    pixels: PreparedImage | None = None
    reasons: list[str] = field(default_factory=list)
    failure: Undecodable | None = None


@dataclass(frozen=True)
class _Source:
    """Reads the images of one run: in threads, or isolated, which is decoded in a child process.

    Attributes:
        location: of the images in an archive; None for stored inspections.
    """

    reader: "ImageReader"
    location: ArchiveLocation | None
    model: LoadedModel
    decoder: IsolatedDecoder

    @property
    def threads(self) -> DecodeThreads:
        return self.reader.threads

    def submit(self, image: RunImage) -> Future[ReadImage]:
        return self.threads.submit(self._read, image, lambda data: prepare_here(self.model, data))

    def read_isolated(self, image: RunImage) -> ReadImage:
        return self._read(image, self._prepare_in_child)

    def _read(self, image: RunImage, prepare: Callable[[bytes], CheckedImage]) -> ReadImage:
        try:
            data = self.reader.load(image, self.location)
            if image.image_sha256 is None:
                image = replace(image, image_sha256=hashlib.sha256(data).digest())
            checked = prepare(data)
        except Undecodable as failure:
            return ReadImage(image, failure=failure)
        return ReadImage(image, checked.pixels, checked.reasons)

    def _prepare_in_child(self, data: bytes) -> CheckedImage:
        with tempfile.NamedTemporaryFile(prefix="linewatch-") as file:
            file.write(data)
            file.flush()
            return prepare_in_child(self.decoder.prepare, Path(file.name), self.model.inputs)


class RunImages:
    """The images of a slice in their order, taken in minibatches.

    Up to `ahead` images are read ahead. If one of the images is suspect, all of them are read isolated.
    """

    def __init__(self, images: Sequence[RunImage], source: _Source, ahead: int, *, suspect: bool) -> None:
        self._images = iter(images)
        self._source = source
        self._ahead = ahead
        self._suspect = suspect
        self._window: deque[tuple[RunImage, Future[ReadImage]]] = deque()

    def take(self, size: int) -> list[ReadImage]:
        """Return the next `size` images; fewer at the end.

        Raises:
            core.storage.archive_location.ArchiveUnavailable, OSError: the source is unavailable. The images are not at
                fault.
            core.errors.Refused: the source can never be read.
        """
        if self._suspect:
            return [self._source.read_isolated(image) for image in islice(self._images, size)]
        self._fill(size)
        taken = [self._result(*self._window.popleft()) for _ in range(min(size, len(self._window)))]
        self._fill(self._ahead)
        return taken

    def cancel(self) -> None:
        """Cancel what is not being read yet."""
        self._source.threads.leave_behind([future for _, future in self._window])

    def _fill(self, size: int) -> None:
        for image in islice(self._images, max(0, size - len(self._window))):
            self._window.append((image, self._source.submit(image)))

    def _result(self, image: RunImage, future: Future[ReadImage]) -> ReadImage:
        """The image of a future, or the image read again, isolated, if it takes too long or raises the unexpected."""
        wait([future], GIVE_UP_SECONDS)
        if future.done():
            try:
                return future.result()
            except Unprepared:
                return self._source.read_isolated(image)
        log.warning("image %d takes too long; it is decoded in a child process", image.number)
        self._source.threads.leave_behind([future])
        self._overtake()
        return self._source.read_isolated(image)

    def _overtake(self) -> None:
        """Give new threads to the images that wait behind slow ones."""
        self._source.threads.replace()
        self._window = deque(
            (image, self._source.submit(image) if future.cancel() else future) for image, future in self._window
        )


class ImageReader:
    """Reads the images of runs. Thread-safe.

    Attributes:
        threads: those that read and decode.
    """

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._archives = Archives.of(settings)
        self.threads = DecodeThreads(settings.decode_threads, "read")

    def close(self) -> None:
        self.threads.shutdown()

    @contextmanager
    def reading(
        self, run: Run, model: LoadedModel, images: Sequence[RunImage], *, suspect: bool, ahead: int
    ) -> Iterator[RunImages]:
        """Yield the images in their order, with up to `ahead` of them read ahead.

        Args:
            suspect: whether one of the images may have killed a worker. Then each is decoded in a child process.
        """
        location = self._location(run)
        with IsolatedDecoder(model.preprocessing, max_pixels=self._settings.max_image_pixels) as decoder:
            run_images = RunImages(images, _Source(self, location, model, decoder), ahead, suspect=suspect)
            try:
                yield run_images
            finally:
                run_images.cancel()

    def read_original(self, run: Run, image: RunImage) -> bytes:
        """Return the file of an image.

        Raises:
            core.intake.image_decoding.Undecodable: the image no longer exists, or has changed since it was scored.
            core.errors.Refused, core.storage.archive_location.ArchiveUnavailable, OSError: the source is unavailable.
        """
        data = self.load(image, self._location(run))
        if image.image_sha256 not in (None, hashlib.sha256(data).digest()):
            raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The image has changed since it was scored.")
        return data

    def _location(self, run: Run) -> ArchiveLocation | None:
        """Return the location of the images in an archive; None for stored inspections."""
        if "folder" in run.source:
            return self._archives.locate(run.source["folder"])
        if "manifest" in run.source:
            return self._archives.locate_file(run.source["manifest"])[0]
        return None

    def load(self, image: RunImage, location: ArchiveLocation | None) -> bytes:
        """The file of an image. Raises: see `RunImages.take`; Undecodable if the image is at fault."""
        if image.failure is not None:
            raise Undecodable(*image.failure)
        if location is not None:
            return self._load_from_archive(image, location)
        assert image.image_day is not None  # noqa: S101 - an inspection has an image
        assert image.image_sha256 is not None  # noqa: S101
        return read_stored(self._store, image.image_day, image.image_sha256, unreadable=Failure.IMAGE_MISSING)

    def _load_from_archive(self, image: RunImage, location: ArchiveLocation) -> bytes:
        try:
            return location.read(image.path or "", max_bytes=self._settings.max_upload_bytes)
        except (Undecodable, Refused, OSError, MemoryError):
            raise
        except Exception as error:
            log.warning("image %d could not be read: %s", image.number, describe(error))
            raise Undecodable(Failure.IMAGE_MISSING, f"The image cannot be read: {describe(error)}") from error
