"""The typed responses about training runs."""

import datetime as dt
from typing import Any
from uuid import UUID

from linewatch.types.base import Result


class TrainingEpoch(Result, frozen=True):
    """An epoch. Losses are in the unit of the detector's score; null if they are not finite.

    Attributes:
        fold: the fold that was left out; null for the final training on all images.
        number: from 1.
    """

    fold: int | None
    number: int
    training_loss: float | None
    validation_loss: float | None


class TrainingProgress(Result, frozen=True):
    """The progress of the current attempt.

    Attributes:
        stage: such as `reading`, `choosing`, `training`; null before the first one.
        done, total: images, candidates or epochs of the stage.
        stage_seconds: how long the stage has taken so far.
        seconds_left: of the stage, at its pace so far; null if it is not known.
        notes: lines for people.
        curve: the loss curve.
    """

    stage: str | None
    done: int | None
    total: int | None
    stage_seconds: float | None
    seconds_left: float | None
    notes: list[str]
    curve: list[TrainingEpoch]


class TrainingResult(Result, frozen=True):
    """The outcome of a completed run.

    Attributes:
        model_state: of the version: `uploaded` until a worker has checked it, then `ready`.
        statement: what the version finds and what it misses, in sentences.
        fit_for_use: false if it finds almost nothing; then `reasons` and `advice` say why and what to try.
        comparison: how its verdicts would differ from those of the newest inspections; null if there were none.
    """

    model_version: int
    model_state: str
    architecture: str
    threshold: float
    statement: list[str]
    fit_for_use: bool | None
    reasons: list[str]
    advice: list[str]
    comparison: dict[str, Any] | None


class TrainingRun(Result, frozen=True):
    """A training in a worker, from uploaded images or from inspections.

    Attributes:
        status: `open`, `queued`, `running`, `completed`, `failed` or `cancelled`.
        images: the number of images of each label: `good`, `test/good` and `test/<type>`.
        reason: why it failed.
        attempt: how often a worker has started it.
        elapsed_seconds: since a worker first started it.
        result: null unless it is completed.
    """

    id: UUID
    status: str
    recipe: str
    options: dict[str, Any]
    inspections: dict[str, Any] | None
    compare: int
    images: dict[str, int]
    progress: TrainingProgress
    reason: str | None
    attempt: int
    elapsed_seconds: float | None
    result: TrainingResult | None
    created_by: str
    created_at: dt.datetime
    queued_at: dt.datetime | None
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.status in ("completed", "failed", "cancelled")


class TrainingRunPage(Result, frozen=True):
    """One page of a listing."""

    items: list[TrainingRun]
    next_cursor: str | None


class AddedTrainingImages(Result, frozen=True):
    """What was added to a run.

    Attributes:
        duplicates: the number of images that the run had already.
        errors: the images that were refused: `external_id` (the file name), `code`, `detail` and `status`.
        images: the number of images of each label that the run has now.
    """

    added: int
    duplicates: int
    errors: list[dict[str, Any]]
    images: dict[str, int]
