"""Score a minibatch: claim, load, decode, score, finish. No transaction is open during any other work."""

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Engine

from core.database import UNUSABLE
from core.errors import Failure
from core.logs import bound
from core.models.verdicts import decide_verdict
from core.queue import claiming, finishing, leases
from core.queue.claiming import Claim
from core.queue.finishing import Finished, Outcome
from core.queue.leases import MAX_RESCUES, RESCUES_TO_SCORE_ALONE
from core.queue.notifications import Notifier
from core.settings import Settings
from core.storage.image_store import Store
from core.system.final_counts import FinalCounts
from worker.pipeline import metrics
from worker.pipeline.image_spans import ImageSpans, Times
from worker.pipeline.leases import keep_renewed, write_when_usable
from worker.pipeline.loaded_models import UNSCORABLE, LoadedModel, Models, ModelUnavailable
from worker.pipeline.preparing import ClaimedImage, ImagePreparer, milliseconds


class ScoringPipeline:
    """Scores the inspections that messages name. Several threads may use it."""

    def __init__(
        self, settings: Settings, engine: Engine, store: Store, models: Models, notifier: Notifier, *, worker: str
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._models = models
        self._notifier = notifier
        self._worker = worker
        self._preparer = ImagePreparer(settings, store)
        self._final_counts = FinalCounts()

    def close(self) -> None:
        self._preparer.close()

    def score_minibatch(self, recipe_id: int, priority: str, ids: Sequence[UUID]) -> None:
        """Score the inspections of `ids`, and more of their kind up to a minibatch.

        Images that may have killed several workers are scored last. Each is claimed alone, so that it takes no other
        with it if it kills this worker, too.

        Raises:
            ModelUnavailable: the claims were released.
            worker.pipeline.faults.WorkerUnfit: this process must end; the claims were released or are finished.
        """
        claims = self._claim(recipe_id, priority, ids, at_most=self._models.minibatch)
        suspects = [claim for claim in claims if claim.rescues >= RESCUES_TO_SCORE_ALONE]
        if suspects:
            self._release(suspects, None)
        self._score_by_version([claim for claim in claims if claim.rescues < RESCUES_TO_SCORE_ALONE])
        for suspect in suspects:
            self._score_by_version(self._claim(recipe_id, priority, [suspect.id], at_most=1))
        self._preparer.require_few_stuck()

    def _score_by_version(self, claims: Sequence[Claim]) -> None:
        by_version: dict[int, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_version[claim.model_version_id].append(claim)
        while by_version:  # two if another version was just activated
            version_id, claims_of_version = by_version.popitem()
            try:
                with bound(inspection_ids=[claim.id for claim in claims_of_version]):
                    self._score_claims(version_id, claims_of_version)
            except Exception:
                for claims_of_version in by_version.values():
                    self._release(claims_of_version, None)
                raise

    def _claim(self, recipe_id: int, priority: str, ids: Sequence[UUID], *, at_most: int) -> list[Claim]:
        with self._engine.begin() as connection:
            claims = claiming.claim(
                connection,
                recipe_id=recipe_id,
                ids=ids,
                priority=priority,
                at_most=at_most,
                lease_seconds=self._settings.lease_seconds,
                worker=self._worker,
            )
        metrics.note_claims(claims)
        return claims

    def _score_claims(self, version_id: int, claims: Sequence[Claim]) -> None:
        with ImageSpans(claims) as spans:
            self._score_traced(version_id, claims, spans)

    def _score_traced(self, version_id: int, claims: Sequence[Claim], spans: ImageSpans) -> None:
        unscored = {claim.id: outcome for claim in claims if (outcome := _outcome_without_scoring(claim))}
        if unscored:
            outcomes = list(unscored.values())
            spans.end_unscored(outcomes, self._finish(outcomes, spans))
        held = {claim.id: claim for claim in claims if claim.id not in unscored}
        if not held:
            return
        try:
            with keep_renewed(lambda: self._renew(list(held.values())), lease_seconds=self._settings.lease_seconds):
                model = self._models.get(version_id)
                for group in self._preparer.groups(model, list(held.values())):
                    begun = time.perf_counter()
                    outcomes = _outcomes(model, group)
                    scored = time.perf_counter()
                    self._models.throughput.note(sum(one.image is not None for one in group), model.minibatch)
                    metrics.note_outcomes(outcomes)
                    metrics.note_scores(*model.label, _score_ratios(group, outcomes))
                    finish = time.perf_counter()
                    written = self._finish(outcomes, spans)
                    times = Times(begun, scored, finish, time.perf_counter())
                    spans.end(group, outcomes, times, written, label=model.label)
                    for image in group:
                        del held[image.claim.id]
        except ModelUnavailable:
            self._release(list(held.values()), Failure.MODEL_UNAVAILABLE)
            raise
        except (RuntimeError, OSError, MemoryError, *UNUSABLE):
            # The device, the store, this machine or the database is at fault, not an image.
            self._release(list(held.values()), None)
            raise

    def _renew(self, claims: Sequence[Claim]) -> bool:
        with self._engine.begin() as connection:
            leases.renew(connection, claims, self._settings.lease_seconds)
        return True

    def _finish(self, outcomes: Sequence[Outcome], spans: ImageSpans) -> Sequence[UUID]:
        """Write outcomes. Return the inspections that were still held."""
        begun = time.perf_counter()
        finished = write_when_usable(lambda: self._write(outcomes, spans), f"{len(outcomes)} results")
        metrics.note_finish(time.perf_counter() - begun)
        self._final_counts.add(finished)
        self._notifier.finished(finished)
        return finished.inspections

    def _write(self, outcomes: Sequence[Outcome], spans: ImageSpans) -> Finished:
        with self._engine.begin() as connection:
            finished = finishing.finish(connection, outcomes, spans.contexts)
            self._final_counts.learn(connection, finished)
        return finished

    def _release(self, claims: Sequence[Claim], because: Failure | None) -> None:
        def release() -> None:
            with self._engine.begin() as connection:
                claiming.release(connection, claims, because)

        write_when_usable(release, f"the release of {len(claims)} inspections")
        metrics.RELEASES.inc(len(claims))


def _outcome_without_scoring(claim: Claim) -> Outcome | None:
    """The outcome of a claim that must not be scored; None if it may be scored."""
    if claim.overdue:
        return finishing.deadline_outcome(claim.id, claim.attempt)
    if claim.rescues >= MAX_RESCUES:
        detail = f"Scoring this image ended its worker {claim.rescues} times."
        return Outcome(claim.id, claim.attempt, "failed", error_code=Failure.POISON, error_detail=detail)
    return None


def _outcomes(model: LoadedModel, group: Sequence[ClaimedImage]) -> list[Outcome]:
    """Score the images of a group."""
    images = [claimed.image for claimed in group if claimed.image is not None]
    begun = time.perf_counter()
    scores = iter(model.score_each(images))
    took = milliseconds(time.perf_counter() - begun)
    outcomes = []
    for claimed in group:
        if claimed.failure is not None:
            outcomes.append(_failed(claimed, claimed.failure.failure, claimed.failure.detail))
        else:
            claimed.timings_ms["score"] = took
            outcomes.append(_completed(claimed, next(scores)))
    return outcomes


def _score_ratios(group: Sequence[ClaimedImage], outcomes: Sequence[Outcome]) -> list[float]:
    """The scores of a group as multiples of their thresholds; a threshold of 0 has none."""
    return [
        outcome.anomaly_score / claimed.claim.threshold
        for claimed, outcome in zip(group, outcomes, strict=True)
        if outcome.anomaly_score is not None and claimed.claim.threshold > 0
    ]


def _failed(claimed: ClaimedImage, code: Failure, detail: str) -> Outcome:
    claim = claimed.claim
    return Outcome(
        claim.id, claim.attempt, "failed", error_code=code, error_detail=detail, timings_ms=claimed.timings_ms
    )


def _completed(claimed: ClaimedImage, score: float | None) -> Outcome:
    if score is None:
        return _failed(claimed, Failure.POISON, UNSCORABLE)
    if not math.isfinite(score):
        return _failed(claimed, Failure.SCORE_NOT_FINITE, f"The network's score is {score}.")
    claim, measured = claimed.claim, claimed.measured
    return Outcome(
        claim.id,
        claim.attempt,
        "completed",
        anomaly_score=score,
        verdict=decide_verdict(score, claim.threshold, claim.review_threshold, claimed.reasons),
        reasons=claimed.reasons,
        timings_ms=claimed.timings_ms,
        brightness=None if measured is None else measured.brightness,
        contrast=None if measured is None else measured.contrast,
        sharpness=None if measured is None else measured.sharpness,
    )
