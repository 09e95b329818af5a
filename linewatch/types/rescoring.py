"""What a running system answers about re-scoring, typed."""

import datetime as dt
from typing import Any
from uuid import UUID

from linewatch.types.results import Failure, Model, ModelVersion, Result


class Progress(Result):
    """How far a run is: `share` of its images from 0 to 1, `rate` in images a second; null: not known."""

    done: int
    share: float | None
    rate: float
    seconds_left: float | None


class RescoreRun(Result):
    """A pass over an archive with a model version and its thresholds, or a challenger.

    Attributes:
        status: `queued`, `running`, `paused`, `completed`, `failed` or `cancelled`.
        kind: `archive`, or `challenger` for one that scores live images in the active version's shadow.
        source: `where`, `folder` or `manifest` with what it was asked for; of a challenger `live` with its `share`.
        threshold, review_threshold: those that it judges with; null for those of the version, which are in `limits`.
        counts: `total` (null until it is known), `planned`, `completed`, `failed`, `ok`, `ng`, `review`, the flips
            `ok_to_ng` and `ng_to_ok`, and `skipped` of a challenger.
        reason: why it failed.
        activation: when and by whom it was activated, and what was in force before; null where it was not.
    """

    id: UUID
    status: str
    kind: str
    recipe: str
    model: Model
    source: dict[str, Any]
    recompute: bool
    threshold: float | None
    review_threshold: float | None
    limits: dict[str, Any]
    window: str | None
    time_zone: str | None
    max_failure_rate: float
    schedule_id: UUID | None
    reason: str | None
    counts: dict[str, int | None]
    progress: Progress
    activation: dict[str, Any] | None
    created_by: str
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.status in ("completed", "failed", "cancelled")


class GateOutcome(Result):
    """How a run fares with one rule of a gate.

    Attributes:
        limit: a share from 0 to 1, or a number of parts.
        measured: what the run has, in the same unit; null where nothing can be said.
        count, of: the share is `count` of `of`.
        bound: of a share: with 95 % confidence it is not above this.
        met: false also where nothing can be said; `detail` says why.
    """

    rule: str
    limit: float
    measured: float | None
    count: int
    of: int
    bound: float | None
    met: bool
    detail: str | None


class RunActivation(Result):
    """What came of an activation or of its rollback.

    Attributes:
        activated: whether what the run assessed scores now.
        model_version: the one that scores now.
    """

    activated: bool
    gate: list[GateOutcome]
    run: RescoreRun
    model_version: ModelVersion


class RescoreRunPage(Result):
    """One page of a listing."""

    items: list[RescoreRun]
    next_cursor: str | None


class Before(Result):
    """What was recorded of an image before a run scored it; null where there was none."""

    anomaly_score: float | None
    threshold: float | None
    verdict: str
    model_version: int | None


class RescoreResult(Result):
    """What a run made of one image.

    Attributes:
        number: its place in the run's source, from 1.
        inspection_id, path: the stored inspection, or where the image lies in the folder or by the manifest.
        before: null where the image has never been inspected.
        reviewed_verdict: of the newest review of the inspection; null without a review.
        flip: `ok_to_ng` and the like where the verdict is another than before; else null.
    """

    number: int
    inspection_id: UUID | None
    path: str | None
    external_id: str | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    captured_at: dt.datetime | None
    metadata: dict[str, Any] | None
    image_sha256: str | None
    before: Before | None
    anomaly_score: float | None
    threshold: float | None
    review_threshold: float | None
    verdict: str | None
    reviewed_verdict: str | None
    flip: str | None
    reasons: list[str]
    error: Failure | None
    scored_at: dt.datetime


class RescoreResultPage(Result):
    """One page of the results of a run."""

    items: list[RescoreResult]
    next_cursor: str | None
