"""The typed responses about re-scoring."""

import datetime as dt
from typing import Any
from uuid import UUID

from linewatch.types.base import Result
from linewatch.types.results import Failure, Model, ModelVersion


class Progress(Result, frozen=True):
    """The progress of a run: `share` of its images, 0 to 1, `rate` in images a second; null if not known."""

    done: int
    share: float | None
    rate: float
    seconds_left: float | None


class RescoreRun(Result, frozen=True):
    """A pass over an archive with a model version and its thresholds, or a challenger.

    Attributes:
        status: `queued`, `running`, `paused`, `completed`, `failed` or `cancelled`.
        kind: `archive`, or `challenger` for one that scores live images in the active version's shadow.
        source: `where`, `folder` or `manifest` as requested; `live` with its `share` for a challenger.
        threshold, review_threshold: used instead of the version's; null if the version's are used (`limits`).
        counts: `total` (null until it is known), `planned`, `completed`, `failed`, `ok`, `ng`, `review`, the flips
            `ok_to_ng` and `ng_to_ok`, and `skipped` for a challenger.
        reason: why it failed.
        activation: when and by whom it was activated, and what was in force before; null if it was not.
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


class GateOutcome(Result, frozen=True):
    """How a run meets one rule of a gate.

    Attributes:
        limit: a share from 0 to 1, or a number of parts.
        measured: the run's value, in the same unit; null if it cannot be measured.
        count, of: the share is `count` of `of`.
        bound: the upper 95 % confidence bound of a share.
        met: false also if it cannot be measured; `detail` says why.
    """

    rule: str
    limit: float
    measured: float | None
    count: int
    of: int
    bound: float | None
    met: bool
    detail: str | None


class RunActivation(Result, frozen=True):
    """The outcome of an activation or of its rollback.

    Attributes:
        activated: whether the run's version and threshold are in force now.
        model_version: the active version.
    """

    activated: bool
    gate: list[GateOutcome]
    run: RescoreRun
    model_version: ModelVersion


class SourceCount(Result, frozen=True):
    """The number of images in the source of a run; there may be more unless it is `exact`."""

    images: int
    exact: bool


class RescoreRunPage(Result, frozen=True):
    """One page of a listing."""

    items: list[RescoreRun]
    next_cursor: str | None


class Before(Result, frozen=True):
    """The recorded result of an image, from before the run; null if there was none."""

    anomaly_score: float | None
    threshold: float | None
    verdict: str
    model_version: int | None


class RescoreResult(Result, frozen=True):
    """The result of a run for one image.

    Attributes:
        number: its position in the run's source, from 1.
        inspection_id, path: the stored inspection, or the path in the folder or manifest.
        before: null if the image has never been inspected.
        reviewed_verdict: what the reviews of the inspection decided; null if they did not.
        flip: `ok_to_ng` and the like if the verdict has changed; else null.
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


class RescoreResultPage(Result, frozen=True):
    """One page of the results of a run."""

    items: list[RescoreResult]
    next_cursor: str | None
