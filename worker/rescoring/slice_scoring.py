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

from core.errors import Failure
from core.models.verdicts import decide_verdict
from core.queue.finishing import Finished
from core.queue.notifications import Notifier
from core.rescoring import runs, slices
from core.rescoring.runs import Run
from core.rescoring.slices import ImageResult, SliceClaim
from core.settings import Settings
from core.storage.image_store import Store
from worker.pipeline.leases import keep_renewed
from worker.pipeline.live_load import LiveLoad
from worker.pipeline.loaded_models import LoadedModel, Models
from worker.rescoring.image_reading import ImageReader, ReadImage

log = logging.getLogger(__name__)

TURN_SECONDS = 10.0
"""After this time a message is done, so that other messages on the bulk queue have their turn."""
WRITE_SECONDS = 3.0
"""Results are written at least this often; as much is repeated after a worker was killed."""
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
            ModelUnavailable, core.storage.locations.ArchiveUnavailable: the slice was released.
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
                self._score_slice(claim, until)
            return True
        finally:
            self._use_grant(self._granted)
            self._busy.release()

    def _claim(self) -> SliceClaim | None:
        with self._engine.begin() as connection:
            return slices.claim(connection, worker=self._worker, lease_seconds=self._settings.lease_seconds)

    def _score_slice(self, claim: SliceClaim, until: float) -> None:
        """Score one slice as far as possible, and release the rest."""

        def renew() -> bool:
            with self._engine.begin() as connection:
                return slices.renew(connection, claim, self._settings.lease_seconds)

        finished = False
        try:
            with keep_renewed(renew, lease_seconds=self._settings.lease_seconds, every=RENEW_SECONDS) as lost:
                finished = self._score(claim, lambda: not lost.is_set() and self._may_score(until))
        finally:
            if not finished:
                with self._engine.begin() as connection:
                    slices.release(connection, claim)

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
        model = self._models.get(run.model_version_id)
        done: list[ImageResult] = []
        written = time.monotonic()
        ahead = 0 if self._models.device == "cpu" else AHEAD * self._settings.minibatch
        with self._reader.reading(run, model, subjects, suspect=claim.rescues > 0, ahead=ahead) as images:
            while True:
                size = self._minibatch()
                if not may_continue():
                    break
                minibatch = images.take(size)
                self._use_grant(len(minibatch))
                done += self._scored(run, model, minibatch)
                if time.monotonic() - written > WRITE_SECONDS or len(minibatch) < size:
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

    def _minibatch(self) -> int:
        step = QUIET_STEP_SECONDS if self._live_load.quiet_seconds() > QUIET_AFTER_SECONDS else STEP_SECONDS
        return min(self._settings.minibatch, max(LEAST_MINIBATCH, int(step / self._seconds_per_image)))

    def _scored(self, run: Run, model: LoadedModel, minibatch: Sequence[ReadImage]) -> list[ImageResult]:
        prepared = [one.prepared.pixels for one in minibatch if one.prepared is not None]
        begun = time.perf_counter()
        scores = iter(model.score(prepared).scores.tolist() if prepared else [])
        if prepared:
            took = (time.perf_counter() - begun) / len(prepared)
            self._seconds_per_image += 0.2 * (took - self._seconds_per_image)
        return [_result(run, one, scores) for one in minibatch]

    def _write(self, claim: SliceClaim, results: Sequence[ImageResult]) -> bool:
        if not results:
            return True
        with self._engine.begin() as connection:
            written = slices.write(connection, claim, results)
        if written.run_ended:
            self._notifier.finished(Finished([], [], [claim.run_id]))
        return written.claim_valid


def _result(run: Run, read: ReadImage, scores: Iterator[float]) -> ImageResult:
    """The result of an image; `scores` are the scores of the images that could be prepared, in order."""
    if read.prepared is None:
        assert read.failure is not None  # noqa: S101 - it is one or the other
        return ImageResult(read.image, error_code=read.failure.failure, error_detail=read.failure.detail)
    score = next(scores)
    if not math.isfinite(score):
        detail = f"The network's score is {score}."
        return ImageResult(read.image, error_code=Failure.SCORE_NOT_FINITE, error_detail=detail)
    threshold = run.thresholds.for_station(read.image.station_id)
    verdict = decide_verdict(score, threshold.threshold, threshold.review_threshold, read.reasons)
    return ImageResult(read.image, threshold, score, verdict, read.reasons)
