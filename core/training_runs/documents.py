"""The JSON document of a training run."""

import datetime as dt
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, Field

from core.training_runs import runs


class TrainingEpoch(BaseModel):
    """An epoch of the training. Losses are in the unit of the detector's score; null if they are not finite."""

    fold: int | None = Field(description="the fold that was left out; null for the final training on all images")
    number: int = Field(description="from 1")
    training_loss: float | None
    validation_loss: float | None


class TrainingProgress(BaseModel):
    """The progress of the current attempt, not older than about a second."""

    stage: str | None = Field(
        description="`grouping`, `reading`, `choosing`, `training`, `calibrating`, `detectability`, `evaluating`, "
        "`comparing` or `writing`; null before the first one"
    )
    done: int | None = Field(description="images, candidates or epochs of the stage that are done")
    total: int | None
    stage_seconds: float | None = Field(description="how long the stage has taken so far")
    seconds_left: float | None = Field(description="of the stage, at its pace so far; null if it is not known")
    notes: list[str] = Field(description="lines for people")
    curve: list[TrainingEpoch] = Field(description="the loss curve: the epochs so far, of detectors that have any")


class TrainingResult(BaseModel):
    """The outcome of a completed run."""

    model_version: int
    model_state: str = Field(
        description="of the version: `uploaded` until a worker has checked it, `ready`, `rejected`"
    )
    architecture: str
    threshold: float
    statement: list[str] = Field(description="what the version finds and what it misses, in sentences")
    fit_for_use: bool | None = Field(description="false if it finds almost nothing; null if that was not measured")
    reasons: list[str] = Field(description="why it is not fit for use")
    advice: list[str] = Field(description="what to try then")
    comparison: dict[str, Any] | None = Field(
        description="how its verdicts would differ from those of the newest inspections, and how often each agrees "
        "with people: `inspections`, `missing`, `unscored`, `changes`, `trained_on`, `agreement`, "
        "`agreement_without_training`; null without an active version or inspections"
    )


class TrainingRun(BaseModel):
    """A training in a worker, from uploaded images or from inspections.

    `images` has the number of images of each label: `good`, `test/good` and `test/<type>`. Those of inspections are
    counted once a worker has started the run.
    """

    id: UUID
    status: str = Field(description="`open`, `queued`, `running`, `completed`, `failed` or `cancelled`")
    recipe: str
    options: dict[str, Any]
    inspections: dict[str, Any] | None
    compare: int
    images: dict[str, int]
    progress: TrainingProgress
    reason: str | None = Field(description="why it failed, in one line")
    attempt: int = Field(description="how often a worker has started it; it continues from its checkpoints")
    elapsed_seconds: float | None = Field(description="since a worker first started it")
    result: TrainingResult | None
    created_by: str
    created_at: dt.datetime
    queued_at: dt.datetime | None
    started_at: dt.datetime | None
    finished_at: dt.datetime | None

    @classmethod
    def from_run(cls, run: runs.Run) -> Self:
        same = ("id", "recipe", "options", "inspections", "compare", "images", "reason", "attempt")
        times = ("created_at", "queued_at", "started_at", "finished_at")
        progress = TrainingProgress(
            **{name: getattr(run, name) for name in ("stage", "done", "total", "notes", "curve")},
            stage_seconds=_rounded(run.stage_seconds),
            seconds_left=_rounded(run.seconds_left),
        )
        result = None
        if run.result is not None:
            result = TrainingResult(model_version=run.model_version, model_state=run.model_state, **run.result)
        return cls(
            **{name: getattr(run, name) for name in (*same, *times)},
            status=run.state,
            progress=progress,
            elapsed_seconds=_rounded(run.elapsed_seconds),
            result=result,
            created_by=run.actor,
        )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
