"""Reading the images of a run: load them from the store or an archive, check, decode and prepare them."""

import hashlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.rescoring.runs import Run
from core.rescoring.slices import RunImage
from core.settings import Settings
from core.storage.archives import Archives
from core.storage.image_store import Store, image_key
from core.storage.locations import ArchiveLocation
from core.vision.input.input_checks import failed_checks, measure_image
from core.vision.input.preprocessing import SizedImage
from worker.pipeline.isolated_decoding import IsolatedDecoder
from worker.pipeline.loaded_models import LoadedModel


@dataclass(frozen=True)
class ReadImage:
    """A prepared image with the input checks that it failed, or the reason why it could not be read."""

    image: RunImage
    prepared: SizedImage | None = None
    reasons: list[str] = field(default_factory=list)
    failure: Undecodable | None = None


class RunImages:
    """The images of a slice in their order, taken in minibatches. Up to `ahead` images are read ahead."""

    def __init__(self, images: Sequence[RunImage], read: Callable[[RunImage], Future[ReadImage]], ahead: int) -> None:
        self._images = iter(images)
        self._read = read
        self._ahead = ahead
        self._window: deque[Future[ReadImage]] = deque()

    def take(self, size: int) -> list[ReadImage]:
        """Return the next `size` images; fewer at the end.

        Raises:
            core.storage.archives.ArchiveUnavailable, OSError: the source is unavailable. The images are not at fault.
        """
        self._fill(size)
        taken = [self._window.popleft().result() for _ in range(min(size, len(self._window)))]
        self._fill(self._ahead)
        return taken

    def cancel(self) -> None:
        """Cancel what is not being read yet."""
        for future in self._window:
            future.cancel()

    def _fill(self, size: int) -> None:
        for image in islice(self._images, max(0, size - len(self._window))):
            self._window.append(self._read(image))


class ImageReader:
    """Reads the images of runs. Thread-safe."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._archives = Archives.of(settings)
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="read")

    def close(self) -> None:
        self._threads.shutdown()

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

            def read(image: RunImage) -> Future[ReadImage]:
                if not suspect:
                    return self._threads.submit(self._read, image, location, model, None)
                done: Future[ReadImage] = Future()
                done.set_result(self._read(image, location, model, decoder))
                return done

            run_images = RunImages(images, read, 0 if suspect else ahead)
            try:
                yield run_images
            finally:
                run_images.cancel()

    def read_original(self, run: Run, image: RunImage) -> bytes:
        """Return the file of an image.

        Raises:
            core.intake.image_decoding.Undecodable: the image no longer exists, or has changed since it was scored.
            core.errors.Refused, core.storage.archives.ArchiveUnavailable, OSError: the source is unavailable.
        """
        data = self._load(image, self._location(run))
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

    def _read(
        self, image: RunImage, location: ArchiveLocation | None, model: LoadedModel, isolated: IsolatedDecoder | None
    ) -> ReadImage:
        try:
            data = self._load(image, location)
            if image.image_sha256 is None:
                image = replace(image, image_sha256=hashlib.sha256(data).digest())
            prepared = model.prepare(data) if isolated is None else _prepare_isolated(isolated, data)
        except Undecodable as failure:
            return ReadImage(image, failure=failure)
        reasons = [] if model.inputs is None else failed_checks(measure_image(prepared), model.inputs)
        return ReadImage(image, prepared, reasons)

    def _load(self, image: RunImage, location: ArchiveLocation | None) -> bytes:
        if image.failure is not None:
            raise Undecodable(*image.failure)
        if location is not None:
            return location.read(image.path or "", max_bytes=self._settings.max_upload_bytes)
        assert image.image_day is not None  # noqa: S101 - an inspection has an image
        assert image.image_sha256 is not None  # noqa: S101
        try:
            data = self._store.read(image_key(image.image_day, image.image_sha256))
        except FileNotFoundError:
            self._store.check()  # raises if the store is unavailable, which is not the image's fault
            raise Undecodable(Failure.IMAGE_MISSING, "The stored image is missing.") from None
        if hashlib.sha256(data).digest() != image.image_sha256:
            raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The stored image is not the one that was uploaded.")
        return data


def _prepare_isolated(decoder: IsolatedDecoder, data: bytes) -> SizedImage:
    with tempfile.NamedTemporaryFile(prefix="linewatch-") as file:
        file.write(data)
        file.flush()
        return decoder.prepare(Path(file.name))
