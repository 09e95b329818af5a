"""Score a minibatch: claim, load, decode, score, finish. No transaction is open during any other work."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Engine

from core.database import UNUSABLE
from core.errors import Failure
from core.models.verdicts import decide_verdict
from core.queue import claiming, finishing, leases
from core.queue.claiming import Claim
from core.queue.finishing import Finished, Outcome
from core.queue.notifications import Notifier
from core.settings import Settings
from core.storage.image_store import Store
from worker.pipeline.leases import keep_renewed
from worker.pipeline.loaded_models import LoadedModel, Models, ModelUnavailable
from worker.pipeline.preparing import ClaimedImage, ImagePreparer, milliseconds

log = logging.getLogger(__name__)

FINISH_TRIES = 4


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

    def close(self) -> None:
        self._preparer.close()

    def score_minibatch(self, recipe_id: int, priority: str, ids: Sequence[UUID]) -> None:
        """Score the inspections of `ids`, and more of their kind up to a minibatch.

        Raises:
            ModelUnavailable: the claims were released.
        """
        by_version: dict[int, list[Claim]] = defaultdict(list)
        for claim in self._claim(recipe_id, priority, ids):
            by_version[claim.model_version_id].append(claim)
        for version_id, claims in by_version.items():  # two if another version was just activated
            self._score_claims(version_id, claims)

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

    def _score_claims(self, version_id: int, claims: Sequence[Claim]) -> None:
        overdue = [claim for claim in claims if claim.overdue]
        if overdue:
            self._finish([finishing.deadline_outcome(claim.id, claim.attempt) for claim in overdue])
        held = {claim.id: claim for claim in claims if not claim.overdue}
        if not held:
            return
        try:
            with keep_renewed(lambda: self._renew(list(held.values())), lease_seconds=self._settings.lease_seconds):
                model = self._models.get(version_id)
                for group in self._preparer.groups(model, list(held.values())):
                    self._finish(_outcomes(model, group))
                    for image in group:
                        del held[image.claim.id]
        except ModelUnavailable:
            self._release(list(held.values()), Failure.MODEL_UNAVAILABLE)
            raise
        except (RuntimeError, OSError, MemoryError):
            # The device, the store or this machine is at fault, not an image.
            self._release(list(held.values()), None)
            raise

    def _renew(self, claims: Sequence[Claim]) -> bool:
        with self._engine.begin() as connection:
            leases.renew(connection, claims, self._settings.lease_seconds)
        return True

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        """Write the outcomes. Retry if the database is down, to avoid scoring the images again."""
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


def _failed(claimed: ClaimedImage, code: Failure, detail: str) -> Outcome:
    claim = claimed.claim
    return Outcome(
        claim.id, claim.attempt, "failed", error_code=code, error_detail=detail, timings_ms=claimed.timings_ms
    )


def _completed(claimed: ClaimedImage, score: float | None) -> Outcome:
    if score is None:
        return _failed(claimed, Failure.POISON, "The model cannot score this image, though it scores others.")
    if not math.isfinite(score):
        return _failed(claimed, Failure.SCORE_NOT_FINITE, f"The network's score is {score}.")
    claim = claimed.claim
    return Outcome(
        claim.id,
        claim.attempt,
        "completed",
        anomaly_score=score,
        verdict=decide_verdict(score, claim.threshold, claim.review_threshold, claimed.reasons),
        reasons=claimed.reasons,
        timings_ms=claimed.timings_ms,
    )
