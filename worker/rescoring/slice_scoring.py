"""Score slices of archives: read and decode, score in minibatches of bounded time, write in bulk.

Live work comes first. At most one thread of a process does this, so that live work always finds another thread. Between
two minibatches it waits for live work in progress, and releases its slice if that goes on or if more live work waits.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Engine

from core.database import UNUSABLE
from core.errors import Failure, Refused
from core.logs import bound
from core.models.verdicts import decide_verdict
from core.queue.finishing import Finished
from core.queue.leases import MAX_RESCUES, RESCUES_TO_SCORE_ALONE
from core.queue.notifications import Notifier
from core.rescoring import runs, slices
from core.rescoring.runs import Run
from core.rescoring.slices import ImageResult, RunImage, SliceClaim, WriteOutcome
from core.settings import Settings
from core.storage.image_store import Store
from core.vision.detectors.device import is_out_of_memory
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.leases import keep_renewed, write_when_usable
from worker.pipeline.live_load import LiveLoad
from worker.pipeline.loaded_models import UNSCORABLE, LoadedModel, Models, ModelUnavailable
from worker.rescoring.image_reading import ImageReader, ReadImage

log = logging.getLogger(__name__)

TURN_SECONDS = 10.0
"""After this time a message is finished, so that the other messages on the bulk queue get their turn."""
WRITE_SECONDS = 3.0
"""Results are written at least this often. At most this much is scored again if the worker is killed."""
STEP_SECONDS = 0.15
"""A minibatch is as large as the device can score in this time, which bounds how long live work waits."""
QUIET_STEP_SECONDS = 0.6
"""The same while there is no live work: larger minibatches have less overhead."""
QUIET_AFTER_SECONDS = 30.0
"""The time without live work after which minibatches become larger."""
LEAST_MINIBATCH = 4
"""Smaller minibatches would cost mostly overhead."""
LIVE_WAIT_SECONDS = 0.2
"""How long to wait for live work in progress before the slice is released."""
RENEW_SECONDS = 1.0
"""How soon a pause or a cancellation is noticed."""
AHEAD = 2
"""How many minibatches of the largest size are read and decoded ahead if the network runs on a GPU.

On a CPU, decoding ahead would compete with the network for the same cores.
"""


class Rescorer:
    """Scores slices, in one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        store: Store,
        models: Models,
        notifier: Notifier,
        live_load: LiveLoad,
        *,
        worker: str,
        stopping: threading.Event,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._reader = ImageReader(settings, store)
        self._models = models
        self._notifier = notifier
        self._live_load = live_load
        self._worker = worker
        self._stopping = stopping
        self._busy = threading.Lock()
        self._granting = threading.Lock()
        self._granted = 0
        self._seconds_per_image = STEP_SECONDS / LEAST_MINIBATCH

    def close(self) -> None:
        self._reader.close()

    def rescore(self, granted: int = 0) -> bool:
        """Score slices until there are none or live work needs the thread. Returns whether there may be more slices.

        Args:
            granted: score this many images even while live work waits: the guaranteed share of bulk work.

        Raises:
            ModelUnavailable, core.storage.archive_location.ArchiveUnavailable: the slice was released.
            WorkerUnfit: this process must end; the slice was released or is done.
        """
        with self._granting:
            self._granted += granted
        if not self._busy.acquire(blocking=False):  # the thread that is scoring uses the grant
            return False
        try:
            until = time.monotonic() + TURN_SECONDS
            while self._may_score(until):
                claim = self._claim()
                if claim is None:
                    return False
                with bound(rescore_run_id=claim.run_id):
                    self._score_slice(claim, until)
                self._reader.threads.require_few_stuck()
            return True
        finally:
            self._use_grant(self._granted)
            self._busy.release()

    def _claim(self) -> SliceClaim | None:
        with self._engine.begin() as connection:
            return slices.claim(connection, worker=self._worker, lease_seconds=self._settings.lease_seconds)

    def _score_slice(self, claim: SliceClaim, until: float) -> None:
        """Score one slice as far as possible, and release the rest. Fail its run if the source can never be read."""

        def renew() -> bool:
            with self._engine.begin() as connection:
                return slices.renew(connection, claim, self._settings.lease_seconds)

        finished = suspect = False
        try:
            with keep_renewed(renew, lease_seconds=self._settings.lease_seconds, every=RENEW_SECONDS) as lost:
                finished = self._score(claim, lambda: not lost.is_set() and self._may_score(until))
        except Refused as refusal:
            self._fail_run(claim, refusal.detail)
        except Exception as error:
            suspect = not _is_outside_fault(error)
            raise
        finally:
            if not finished:
                self._release(claim, suspect=suspect)

    def _release(self, claim: SliceClaim, *, suspect: bool) -> None:
        def release() -> None:
            with self._engine.begin() as connection:
                slices.release(connection, claim, suspect=suspect)

        write_when_usable(release, "the release of a slice")

    def _fail_run(self, claim: SliceClaim, reason: str) -> None:
        def fail() -> bool:
            with self._engine.begin() as connection:
                return runs.fail(connection, claim.run_id, reason)

        if write_when_usable(fail, "the failure of a run"):
            log.warning("re-scoring run %s failed: %s", claim.run_id, reason)
            self._notifier.finished(Finished([], [], [claim.run_id]))

    def _may_score(self, until: float) -> bool:
        """Whether another minibatch may be scored now: part of the granted share, or no live work waits."""
        if self._stopping.is_set():
            return False
        if self._granted > 0:
            return True
        if time.monotonic() > until or self._live_load.waits():
            return False
        return self._live_load.is_quiet(within=LIVE_WAIT_SECONDS)

    def _score(self, claim: SliceClaim, may_continue: Callable[[], bool]) -> bool:
        """Score a slice and write the results. Returns whether it came to the end."""
        with self._engine.begin() as connection:
            run = runs.get(connection, claim.run_id)
            subjects = slices.run_images(connection, claim)
        if claim.rescues >= MAX_RESCUES and not self._write(claim, [_poison(subjects.pop(0), claim.rescues)]):
            return False
        alone = claim.rescues >= RESCUES_TO_SCORE_ALONE
        model = self._models.get(run.model_version_id)
        done: list[ImageResult] = []
        written = time.monotonic()
        ahead = 0 if self._models.device == "cpu" else AHEAD * model.minibatch
        with self._reader.reading(run, model, subjects, suspect=claim.rescues > 0, ahead=ahead) as images:
            while True:
                size = 1 if alone else self._minibatch(model, suspect=claim.rescues > 0)
                if not may_continue():
                    break
                minibatch = images.take(size)
                self._use_grant(len(minibatch))
                done += self._scored(run, model, minibatch)
                if alone or time.monotonic() - written > WRITE_SECONDS or len(minibatch) < size:
                    if not self._write(claim, done):
                        return False
                    done, written = [], time.monotonic()
                if len(minibatch) < size:
                    return True
        self._write(claim, done)
        return False

    def _use_grant(self, images: int) -> None:
        with self._granting:
            self._granted = max(0, self._granted - images)

    def _minibatch(self, model: LoadedModel, *, suspect: bool) -> int:
        if suspect:  # each image may take its decoder's whole limit, one after another
            return LEAST_MINIBATCH
        step = QUIET_STEP_SECONDS if self._live_load.quiet_seconds() > QUIET_AFTER_SECONDS else STEP_SECONDS
        return min(model.minibatch, max(LEAST_MINIBATCH, int(step / self._seconds_per_image)))

    def _scored(self, run: Run, model: LoadedModel, minibatch: Sequence[ReadImage]) -> list[ImageResult]:
        prepared = [one.pixels for one in minibatch if one.pixels is not None]
        begun = time.perf_counter()
        scores = iter(model.score_each(prepared))
        self._models.throughput.note(len(prepared), model.minibatch)
        if prepared:
            took = (time.perf_counter() - begun) / len(prepared)
            self._seconds_per_image += 0.2 * (took - self._seconds_per_image)
        return [_result(run, one, scores) for one in minibatch]

    def _write(self, claim: SliceClaim, results: Sequence[ImageResult]) -> bool:
        if not results:
            return True

        def write() -> WriteOutcome:
            with self._engine.begin() as connection:
                return slices.write(connection, claim, results)

        written = write_when_usable(write, f"{len(results)} results")
        if written.run_ended:
            self._notifier.finished(Finished([], [], [claim.run_id]))
        return written.claim_valid


def _is_outside_fault(error: Exception) -> bool:
    """Whether the source, the database, the device or this machine is at fault, not an image."""
    outside = isinstance(error, (ModelUnavailable, WorkerUnfit, OSError, MemoryError, *UNUSABLE))
    return outside or is_out_of_memory(error)


def _poison(image: RunImage, rescues: int) -> ImageResult:
    detail = f"Scoring this image failed or ended its worker {rescues} times."
    return ImageResult(image, error_code=Failure.POISON, error_detail=detail)


def _result(run: Run, read: ReadImage, scores: Iterator[float | None]) -> ImageResult:
    """The result of an image; `scores` are the scores of the images that could be prepared, in order."""
    if read.pixels is None:
        assert read.failure is not None  # noqa: S101 - it is one or the other
        return ImageResult(read.image, error_code=read.failure.failure, error_detail=read.failure.detail)
    score = next(scores)
    if score is None:
        return ImageResult(read.image, error_code=Failure.POISON, error_detail=UNSCORABLE)
    if not math.isfinite(score):
        detail = f"The network's score is {score}."
        return ImageResult(read.image, error_code=Failure.SCORE_NOT_FINITE, error_detail=detail)
    threshold = run.thresholds.for_station(read.image.station_id)
    verdict = decide_verdict(score, threshold.threshold, threshold.review_threshold, read.reasons)
    return ImageResult(read.image, threshold, score, verdict, read.reasons)
