"""Load and decode the images of a minibatch. Fast images never wait for slow ones.

Images are decoded in threads, which cannot be stopped. An image that takes long is scored after the others; one that
takes too long, or whose preparation raises something unexpected, is decoded again in a child process with limits.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.logs import bound
from core.queue.claiming import Claim
from core.settings import Settings
from core.storage.image_store import Store, image_key
from core.tracing import traces
from core.vision.input.input_checks import ImageMeasurements
from core.vision.input.prepared_image import PreparedImage, SizedImage
from worker.pipeline.decode_threads import DecodeThreads
from worker.pipeline.image_loading import CheckedImage, Unprepared, prepare_here, prepare_in_child, read_stored
from worker.pipeline.isolated_decoding import IsolatedDecoder, Unfinished
from worker.pipeline.loaded_models import LoadedModel

log = logging.getLogger(__name__)

SLOW_SECONDS = 2.0
"""Images that are not prepared by then are scored after the others."""
GIVE_UP_SECONDS = 20.0
"""Images that are not prepared by then are decoded in a child process."""


@dataclass
class ClaimedImage:
    """A claim with its prepared image, measured and checked, or with the failure that ends it.

    Attributes:
        begun: when loading it began, on the clock `time.perf_counter`.
    """

    claim: Claim
    begun: float
    image: PreparedImage | None = None
    reasons: list[str] = field(default_factory=list)
    measured: ImageMeasurements | None = None
    failure: Undecodable | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


class ImagePreparer:
    """Prepares the images of claims. Thread-safe."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._max_pixels = settings.max_image_pixels
        self._threads = DecodeThreads(settings.decode_threads, "decode")

    def close(self) -> None:
        """Wait for images that are being decoded."""
        self._threads.shutdown()

    def require_few_stuck(self) -> None:
        """See `DecodeThreads.require_few_stuck`."""
        self._threads.require_few_stuck()

    def groups(self, model: LoadedModel, claims: Sequence[Claim]) -> Iterator[list[ClaimedImage]]:
        """The claims with their images, in groups as they become ready; usually one group.

        Raises:
            OSError: the store is unavailable, which is not the fault of an image.
        """
        isolated = [claim for claim in claims if claim.rescues > 0]
        pending = self._submit(model, [claim for claim in claims if claim.rescues == 0])
        try:
            progress_at = time.monotonic()
            done, _ = wait(pending, timeout=SLOW_SECONDS)
            while pending:
                if done:
                    progress_at = time.monotonic()
                    ready = [(future, pending.pop(future)) for future in list(pending) if future in done]
                    yield [image for image in (_result(future, claim, isolated) for future, claim in ready) if image]
                elif time.monotonic() - progress_at > GIVE_UP_SECONDS:
                    log.warning("%d images take too long; they are decoded in a child process", len(pending))
                    break
                else:
                    self._overtake(model, pending)
                done, _ = wait(pending, timeout=SLOW_SECONDS, return_when=FIRST_COMPLETED)
            isolated += pending.values()
        finally:
            self._threads.leave_behind(pending)
        yield from self._isolated_groups(model, isolated)

    def _isolated_groups(self, model: LoadedModel, claims: Sequence[Claim]) -> Iterator[list[ClaimedImage]]:
        """Decode the images in a child process: first all of them with a short limit, then those that exceeded it."""
        slow: list[Claim] = []

        def prepare_quickly(claim: Claim) -> ClaimedImage | None:
            try:
                return self._prepare_isolated(decoder.prepare_quickly, model, claim)
            except Unfinished:
                slow.append(claim)
                return None

        with IsolatedDecoder(model.preprocessing, max_pixels=self._max_pixels) as decoder:
            yield from _grouped(map(prepare_quickly, claims))
            yield from _grouped(self._prepare_isolated(decoder.prepare, model, claim) for claim in slow)

    def _submit(self, model: LoadedModel, claims: Sequence[Claim]) -> dict[Future[ClaimedImage], Claim]:
        return {self._threads.submit(self._prepare, model, claim): claim for claim in claims}

    def _overtake(self, model: LoadedModel, pending: dict[Future[ClaimedImage], Claim]) -> None:
        """Give new threads to images that wait behind slow ones. The old threads end with their images."""
        waiting = [future for future in list(pending) if future.cancel()]
        if waiting:
            self._threads.replace()
            pending |= self._submit(model, [pending.pop(future) for future in waiting])

    def _prepare(self, model: LoadedModel, claim: Claim) -> ClaimedImage:
        return self._load_and_prepare(claim, lambda data: prepare_here(model, data))

    def _prepare_isolated(
        self, prepare: Callable[[Path], SizedImage], model: LoadedModel, claim: Claim
    ) -> ClaimedImage:
        def prepare_file(_: bytes) -> CheckedImage:
            with self._store.local_file(image_key(claim.image_day, claim.image_sha256)) as path:
                return prepare_in_child(prepare, path, model.inputs)

        return self._load_and_prepare(claim, prepare_file)

    def _load_and_prepare(self, claim: Claim, prepare: Callable[[bytes], CheckedImage]) -> ClaimedImage:
        ids = {"inspection_id": claim.id, "batch_id": claim.batch_id, "trace_id": traces.trace_id(claim.trace_context)}
        with bound(inspection_ids=None, **ids):
            return self._loaded_and_prepared(claim, prepare)

    def _loaded_and_prepared(self, claim: Claim, prepare: Callable[[bytes], CheckedImage]) -> ClaimedImage:
        begun = time.perf_counter()
        claimed = ClaimedImage(claim, begun, timings_ms={"queue": round(claim.queued_ms, 1)})
        try:
            data = read_stored(
                self._store, claim.image_day, claim.image_sha256, unreadable=Failure.IMAGE_CHECKSUM_MISMATCH
            )
            loaded = time.perf_counter()
            claimed.timings_ms["load"] = milliseconds(loaded - begun)
            image = prepare(data)
            claimed.image, claimed.reasons, claimed.measured = image.pixels, image.reasons, image.measured
            claimed.timings_ms["decode"] = milliseconds(time.perf_counter() - loaded)
        except Undecodable as failure:
            claimed.failure = failure
        return claimed


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, rounded to a tenth."""
    return round(seconds * 1000, 1)


def _result(future: Future[ClaimedImage], claim: Claim, isolated: list[Claim]) -> ClaimedImage | None:
    """The image of a future; None if it needs isolation, and then its claim is added to `isolated`."""
    try:
        return future.result()
    except Unprepared:
        isolated.append(claim)
        return None


def _grouped(images: Iterable[ClaimedImage | None]) -> Iterator[list[ClaimedImage]]:
    """Groups of the images that are ready every `SLOW_SECONDS`, without those that are None."""
    group: list[ClaimedImage] = []
    due = time.monotonic() + SLOW_SECONDS
    for image in images:
        if image is not None:
            group.append(image)
        if group and time.monotonic() > due:
            yield group
            group, due = [], time.monotonic() + SLOW_SECONDS
    if group:
        yield group
