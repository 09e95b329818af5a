"""The metrics of scoring. What is counted for each image is counted once a minibatch, which costs less."""

from collections.abc import Sequence
from typing import Final

from prometheus_client import Counter, Histogram

from core.metrics import DURATIONS, Distribution
from core.queue.claiming import Claim
from core.queue.finishing import Outcome

MODELS: Final = 100
"""Model versions whose scores a process counts; of further ones, the last used."""

_STAGES = Distribution(
    "linewatch_stage_duration_seconds",
    "How long each image waits in the queue, loads and decodes, and how long a minibatch takes to score and to finish.",
    DURATIONS,
    ["stage"],
)
_PER_IMAGE = {stage: _STAGES.labels(stage) for stage in ("queue", "load", "decode")}
_SCORE, _FINISH = _STAGES.labels("score"), _STAGES.labels("finish")
_FILL = Histogram(
    "linewatch_minibatch_fill_ratio",
    "Images in a minibatch, as a share of the largest one that the worker scores at once.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
)
_IMAGES = Counter("linewatch_scored_images", "Images that were scored: of uploads and of re-scoring runs.")
_SCORES = Distribution(
    "linewatch_anomaly_score_ratio",
    "Anomaly scores of inspections as multiples of their thresholds: from 1 on they are ng.",
    (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0),
    ["recipe", "version"],
    most=MODELS,
)
_RETRIES = Counter("linewatch_retries", "Claims of inspections that were claimed before, and then released or lost.")
RELEASES = Counter(
    "linewatch_releases", "Claims that a worker released unscored, because it could not score them or was to end."
)


def note_claims(claims: Sequence[Claim]) -> None:
    """Count claims that repeat an earlier one."""
    repeated = sum(claim.attempt > 1 for claim in claims)
    if repeated:
        _RETRIES.inc(repeated)


def note_minibatch(images: int, room: int) -> None:
    """Count a minibatch of `images`, of at most `room`."""
    _FILL.observe(images / room)
    _IMAGES.inc(images)


def note_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Count the durations of a minibatch that was scored."""
    timings = [outcome.timings_ms for outcome in outcomes]
    for stage, values in _PER_IMAGE.items():
        values.add([durations[stage] / 1000 for durations in timings if stage in durations])
    scored = next((durations["score"] for durations in timings if "score" in durations), None)
    if scored is not None:
        _SCORE.add([scored / 1000])


def note_finish(seconds: float) -> None:
    """Count how long it took to write the results of a minibatch."""
    _FINISH.add([seconds])


def note_scores(recipe: str, version: str, ratios: Sequence[float]) -> None:
    """Count the scores of a minibatch, as multiples of their thresholds."""
    if ratios:
        _SCORES.labels(recipe, version).add(ratios)
