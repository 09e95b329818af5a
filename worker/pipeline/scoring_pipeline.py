"""Examining a minibatch: claim, load, decode, score, finish. No transaction is open while any other work is done."""

import hashlib
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import Engine

from core.database import UNUSABLE
from core.errors import Failure
from core.intake.image_decoding import Undecodable
from core.models.verdicts import decide_verdict
from core.queue import claiming, finishing, leases
from core.queue.claiming import Claim
from core.queue.finishing import Finished, Outcome
from core.queue.notifications import Notifier
from core.settings import Settings
from core.storage.image_store import Store, image_key
from core.vision.input.input_checks import InputRanges, failed_checks, measure_image
from core.vision.input.preprocessing import PreparedImage, SizedImage
from worker.pipeline.isolated_decoding import IsolatedDecoder
from worker.pipeline.leases import keep_renewed
from worker.pipeline.loaded_models import LoadedModel, Models, ModelUnavailable

log = logging.getLogger(__name__)

FINISH_TRIES = 4


@dataclass
class _ClaimedImage:
    """A claim on its way: with its prepared image and what is wrong with it, or with the failure that ended it."""

    claim: Claim
    image: PreparedImage | None = None
    reasons: list[str] = field(default_factory=list)
    failure: Undecodable | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)


class ScoringPipeline:
    """Examines what messages name; several threads may do so at once."""

    def __init__(
        self, settings: Settings, engine: Engine, store: Store, models: Models, notifier: Notifier, *, worker: str
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._models = models
        self._notifier = notifier
        self._worker = worker
        self._decoders = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")

    def close(self) -> None:
        self._decoders.shutdown()

    def examine(self, recipe_id: int, priority: str, ids: Sequence[UUID]) -> None:
        """Examine the named inspections, and more of their kind up to a minibatch.

        Raises:
            ModelUnavailable: after the claims were given back.
        """
        by_version: dict[int, list[Claim]] = defaultdict(list)
        for claim in self._claim(recipe_id, priority, ids):
            by_version[claim.model_version_id].append(claim)
        for version_id, claims in by_version.items():  # two, when another version was activated just now
            self._examine(version_id, claims)

    def _claim(self, recipe_id: int, priority: str, ids: Sequence[UUID]) -> list[Claim]:
        with self._engine.begin() as connection:
            return claiming.claim(
                connection,
                recipe_id=recipe_id,
                ids=ids,
                priority=priority,
                at_most=self._settings.minibatch,
                lease_seconds=self._settings.lease_seconds,
                worker=self._worker,
            )

    def _examine(self, version_id: int, claims: Sequence[Claim]) -> None:
        outcomes = [finishing.deadline_outcome(claim.id, claim.attempt) for claim in claims if claim.overdue]
        due = [claim for claim in claims if not claim.overdue]
        try:
            if due:
                with keep_renewed(lambda: self._renew(due), lease_seconds=self._settings.lease_seconds):
                    model = self._models.get(version_id)
                    outcomes += self._score(model, self._prepare(model, due))
        except ModelUnavailable:
            self._release(due, Failure.MODEL_UNAVAILABLE)
            raise
        except (RuntimeError, OSError, MemoryError):
            # The device, the store or this machine is at fault: no part fails for that.
            self._release(due, None)
            raise
        finally:
            if outcomes:
                self._finish(outcomes)

    def _renew(self, claims: Sequence[Claim]) -> bool:
        with self._engine.begin() as connection:
            leases.renew(connection, claims, self._settings.lease_seconds)
        return True

    def _prepare(self, model: LoadedModel, claims: Sequence[Claim]) -> list[_ClaimedImage]:
        trusted = [claim for claim in claims if claim.rescues == 0]

        def prepared(claim: Claim) -> _ClaimedImage:
            return self._prepare_one(claim, model.inputs, lambda _, data: model.prepare(data))

        examined = list(self._decoders.map(prepared, trusted))
        suspects = [claim for claim in claims if claim.rescues > 0]
        with IsolatedDecoder(model.preprocessing, max_pixels=self._settings.max_image_pixels) as decoder:
            examined += [
                self._prepare_one(claim, model.inputs, lambda claim, _: decoder.prepare(self._store.path(_key(claim))))
                for claim in suspects
            ]
        return examined

    def _prepare_one(
        self, claim: Claim, expected: InputRanges | None, prepare: Callable[[Claim, bytes], SizedImage]
    ) -> _ClaimedImage:
        examined = _ClaimedImage(claim, timings_ms={"queue": round(claim.queued_ms, 1)})
        begun = time.perf_counter()
        try:
            data = self._load(claim)
            loaded = time.perf_counter()
            examined.timings_ms["load"] = _ms(loaded - begun)
            image = prepare(claim, data)
            examined.image = image.pixels
            if expected is not None:
                examined.reasons = failed_checks(measure_image(image), expected)
            examined.timings_ms["decode"] = _ms(time.perf_counter() - loaded)
        except Undecodable as failure:
            examined.failure = failure
        return examined

    def _load(self, claim: Claim) -> bytes:
        try:
            data = self._store.read(_key(claim))
        except FileNotFoundError:
            self._store.check()  # a store that is away raises here: that is no image's fault
            raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The stored image is missing.") from None
        if hashlib.sha256(data).digest() != claim.image_sha256:
            raise Undecodable(Failure.IMAGE_CHECKSUM_MISMATCH, "The stored image is not the one that was uploaded.")
        return data

    def _score(self, model: LoadedModel, examined: Sequence[_ClaimedImage]) -> list[Outcome]:
        images = [one.image for one in examined if one.image is not None]
        begun = time.perf_counter()
        scores = iter(model.score(images).scores.tolist() if images else [])
        took = _ms(time.perf_counter() - begun)
        outcomes = []
        for one in examined:
            if one.failure is not None:
                outcomes.append(_failed(one, one.failure.failure, one.failure.detail))
            else:
                one.timings_ms["score"] = took
                outcomes.append(_judged(one, next(scores)))
        return outcomes

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        """Write the outcomes, patiently: what was scored should not have to be scored again."""
        for tries in range(1, FINISH_TRIES + 1):
            try:
                finished = self._write(outcomes)
                break
            except UNUSABLE as error:
                if tries == FINISH_TRIES:
                    raise
                log.warning("could not write %d results, trying again: %s", len(outcomes), error)
                time.sleep(0.2 * 2**tries)
        self._notifier.finished(finished)

    def _write(self, outcomes: Sequence[Outcome]) -> Finished:
        with self._engine.begin() as connection:
            return finishing.finish(connection, outcomes)

    def _release(self, claims: Sequence[Claim], because: Failure | None) -> None:
        with self._engine.begin() as connection:
            claiming.release(connection, claims, because)


def _key(claim: Claim) -> str:
    return image_key(claim.image_day, claim.image_sha256)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _failed(one: _ClaimedImage, code: Failure, detail: str) -> Outcome:
    return Outcome(
        one.claim.id, one.claim.attempt, "failed", error_code=code, error_detail=detail, timings_ms=one.timings_ms
    )


def _judged(one: _ClaimedImage, score: float) -> Outcome:
    if not math.isfinite(score):
        return _failed(one, Failure.SCORE_NOT_FINITE, f"The network's score is {score}.")
    verdict = decide_verdict(score, one.claim.threshold, one.claim.review_threshold, one.reasons)
    return Outcome(
        one.claim.id,
        one.claim.attempt,
        "completed",
        anomaly_score=score,
        verdict=verdict,
        reasons=one.reasons,
        timings_ms=one.timings_ms,
    )
