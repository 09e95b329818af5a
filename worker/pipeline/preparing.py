"""Load and decode the images of a minibatch. Fast images never wait for slow ones.

Images are decoded in threads, which cannot be stopped. An image that takes long is scored after the others; one that
takes too long, or whose preparation raises something unexpected, is decoded again in a child process with limits.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.queue.claiming import Claim
from core.settings import Settings
from core.storage.image_store import Store, image_key
from core.vision.input.input_checks import InputRanges, failed_checks, measure_image
from core.vision.input.preprocessing import PreparedImage, SizedImage
from worker.pipeline.isolated_decoding import IsolatedDecoder
from worker.pipeline.loaded_models import LoadedModel

log = logging.getLogger(__name__)

SLOW_SECONDS = 2.0
"""Images that are not prepared by then are scored after the others."""
GIVE_UP_SECONDS = 20.0
"""Images that are not prepared by then are decoded in a child process."""


@dataclass
class ClaimedImage:
    """A claim with its prepared image and the input checks that it failed, or with the failure that ends it."""

    claim: Claim
    image: PreparedImage | None = None
    reasons: list[str] = field(default_factory=list)
    failure: Undecodable | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


class _Unprepared(Exception):  # noqa: N818 - it names the state of the image
    """Preparing an image raised something unexpected."""


class ImagePreparer:
    """Prepares the images of claims. Thread-safe."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._store = store
        self._max_pixels = settings.max_image_pixels
        self._number_of_threads = settings.decode_threads
        self._threads = self._new_threads()

    def close(self) -> None:
        """Wait for images that are being decoded."""
        self._threads.shutdown()

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
            for future in pending:
                future.cancel()
        yield from self._isolated_groups(model, isolated)

    def _isolated_groups(self, model: LoadedModel, claims: Sequence[Claim]) -> Iterator[list[ClaimedImage]]:
        """Groups of the images that are ready every `SLOW_SECONDS`: a slow image does not delay those before it."""
        group: list[ClaimedImage] = []
        due = time.monotonic() + SLOW_SECONDS
        with IsolatedDecoder(model.preprocessing, max_pixels=self._max_pixels) as decoder:
            for claim in claims:
                group.append(self._prepare_isolated(decoder, model, claim))
                if time.monotonic() > due:
                    yield group
                    group, due = [], time.monotonic() + SLOW_SECONDS
            if group:
                yield group

    def _submit(self, model: LoadedModel, claims: Sequence[Claim]) -> dict[Future[ClaimedImage], Claim]:
        return {self._threads.submit(self._prepare, model, claim): claim for claim in claims}

    def _overtake(self, model: LoadedModel, pending: dict[Future[ClaimedImage], Claim]) -> None:
        """Give new threads to images that wait behind slow ones. The old threads end with their images."""
        waiting = [future for future in list(pending) if future.cancel()]
        if waiting:
            self._threads.shutdown(wait=False)
            self._threads = self._new_threads()
            pending |= self._submit(model, [pending.pop(future) for future in waiting])

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._number_of_threads, thread_name_prefix="decode")

    def _prepare(self, model: LoadedModel, claim: Claim) -> ClaimedImage:
        def prepare(data: bytes) -> SizedImage:
            try:
                return model.prepare(data)
            except Undecodable:
                raise
            except Exception as error:
                log.warning("an image could not be prepared: %s: %s", type(error).__name__, error)
                raise _Unprepared from error

        return self._load_and_prepare(claim, model.inputs, prepare)

    def _prepare_isolated(self, decoder: IsolatedDecoder, model: LoadedModel, claim: Claim) -> ClaimedImage:
        path = self._store.path(_key(claim))
        return self._load_and_prepare(claim, model.inputs, lambda _: decoder.prepare(path))

    def _load_and_prepare(
        self, claim: Claim, expected: InputRanges | None, prepare: Callable[[bytes], SizedImage]
    ) -> ClaimedImage:
        claimed = ClaimedImage(claim, timings_ms={"queue": round(claim.queued_ms, 1)})
        begun = time.perf_counter()
        try:
            data = self._load(claim)
            loaded = time.perf_counter()
            claimed.timings_ms["load"] = milliseconds(loaded - begun)
            image = prepare(data)
            claimed.image = image.pixels
            if expected is not None:
                claimed.reasons = failed_checks(measure_image(image), expected)
            claimed.timings_ms["decode"] = milliseconds(time.perf_counter() - loaded)
        except Undecodable as failure:
            claimed.failure = failure
        return claimed

    def _load(self, claim: Claim) -> bytes:
        try:
            data = self._store.read(_key(claim))
        except FileNotFoundError:
            self._store.check()  # raises if the store is unavailable, which is not the image's fault
            raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The stored image is missing.") from None
        if hashlib.sha256(data).digest() != claim.image_sha256:
            raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The stored image is not the one that was uploaded.")
        return data


def milliseconds(seconds: float) -> float:
    """Seconds as milliseconds, rounded to a tenth."""
    return round(seconds * 1000, 1)


def _key(claim: Claim) -> str:
    return image_key(claim.image_day, claim.image_sha256)


def _result(future: Future[ClaimedImage], claim: Claim, isolated: list[Claim]) -> ClaimedImage | None:
    """The image of a future; None if it needs isolation, and then its claim is added to `isolated`."""
    try:
        return future.result()
    except _Unprepared:
        isolated.append(claim)
        return None
