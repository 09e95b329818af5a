"""Reading images of a run for the network: from the store or an archive, checked, decoded and prepared."""

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
    """An image on its way: prepared, with what speaks against trusting it, or with the failure that ended it."""

    subject: RunImage
    image: SizedImage | None = None
    reasons: list[str] = field(default_factory=list)
    failure: Undecodable | None = None


class RunImages:
    """The images of a slice in their order, taken a minibatch at a time; the next ones may be read ahead."""

    def __init__(
        self, subjects: Sequence[RunImage], begin: Callable[[RunImage], Future[ReadImage]], ahead: int
    ) -> None:
        self._subjects = iter(subjects)
        self._begin = begin
        self._ahead = ahead
        self._window: deque[Future[ReadImage]] = deque()

    def take(self, size: int) -> list[ReadImage]:
        """The next `size` of them, fewer at the end.

        Raises:
            core.storage.archives.ArchiveUnavailable, OSError: the source is away; no image is at fault.
        """
        self._fill(size)
        taken = [self._window.popleft().result() for _ in range(min(size, len(self._window)))]
        self._fill(self._ahead)
        return taken

    def cancel(self) -> None:
        """Begin nothing more."""
        for one in self._window:
            one.cancel()

    def _fill(self, size: int) -> None:
        for subject in islice(self._subjects, max(0, size - len(self._window))):
            self._window.append(self._begin(subject))


class ImageReader:
    """Reads the images of runs; several threads may."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._archives = Archives.of(settings)
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="read")

    def close(self) -> None:
        self._threads.shutdown()

    @contextmanager
    def reading(
        self, run: Run, model: LoadedModel, subjects: Sequence[RunImage], *, suspect: bool, ahead: int
    ) -> Iterator[RunImages]:
        """The images in their order, up to `ahead` of them read before they are asked for.

        Suspect ones, which may have killed the worker that held them, are decoded in a child process, one by one.
        """
        place = self._place(run)
        with IsolatedDecoder(model.preprocessing, max_pixels=self._settings.max_image_pixels) as decoder:

            def begin(subject: RunImage) -> Future[ReadImage]:
                if not suspect:
                    return self._threads.submit(self._read, subject, place, model, None)
                alone: Future[ReadImage] = Future()
                alone.set_result(self._read(subject, place, model, decoder))
                return alone

            images = RunImages(subjects, begin, 0 if suspect else ahead)
            try:
                yield images
            finally:
                images.cancel()

    def original(self, run: Run, subject: RunImage) -> bytes:
        """The file of one image.

        Raises:
            core.intake.image_decoding.Undecodable: it is not there any more, or is another one now.
            core.errors.Refused, core.storage.archives.ArchiveUnavailable, OSError: the source is away.
        """
        data = self._load(subject, self._place(run))
        if subject.image_sha256 not in (None, hashlib.sha256(data).digest()):
            raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The image has changed since it was scored.")
        return data

    def _place(self, run: Run) -> ArchiveLocation | None:
        """Where the images lie; None for those of inspections, which lie in the store."""
        if "folder" in run.source:
            return self._archives.locate(run.source["folder"])
        if "manifest" in run.source:
            return self._archives.locate_file(run.source["manifest"])[0]
        return None

    def _read(
        self, subject: RunImage, place: ArchiveLocation | None, model: LoadedModel, isolated: IsolatedDecoder | None
    ) -> ReadImage:
        try:
            data = self._load(subject, place)
            if subject.image_sha256 is None:
                subject = replace(subject, image_sha256=hashlib.sha256(data).digest())
            image = model.prepare(data) if isolated is None else _prepared_apart(isolated, data)
            return ReadImage(
                subject, image, failed_checks(measure_image(image), model.inputs) if model.inputs is not None else []
            )
        except Undecodable as failure:
            return ReadImage(subject, failure=failure)

    def _load(self, subject: RunImage, place: ArchiveLocation | None) -> bytes:
        if subject.failure is not None:
            raise Undecodable(*subject.failure)
        if place is not None:
            return place.read(subject.path or "", max_bytes=self._settings.max_upload_bytes)
        assert subject.image_day is not None  # noqa: S101 - an inspection has an image
        assert subject.image_sha256 is not None  # noqa: S101
        try:
            data = self._store.read(image_key(subject.image_day, subject.image_sha256))
        except FileNotFoundError:
            self._store.check()  # a store that is away raises here: that is no image's fault
            raise Undecodable(Failure.IMAGE_MISSING, "The stored image is missing.") from None
        if hashlib.sha256(data).digest() != subject.image_sha256:
            raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The stored image is not the one that was uploaded.")
        return data


def _prepared_apart(decoder: IsolatedDecoder, data: bytes) -> SizedImage:
    with tempfile.NamedTemporaryFile(prefix="linewatch-") as file:
        file.write(data)
        file.flush()
        return decoder.prepare(Path(file.name))
