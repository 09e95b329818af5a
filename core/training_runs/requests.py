"""The request for a training run: the body of `POST /v1/recipes/{name}/training-runs`."""

import datetime as dt
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from core.intake.fields import Label, Moment
from core.models.bit_depths import BitDepthChoice
from core.models.training_options import (
    AlignmentChoice,
    ArchitectureChoice,
    BackboneChoice,
    ChooseBy,
    PoseChoice,
    ScoreMethod,
    check_options,
)
from core.vision.training.group_by import GroupBy

MAX_INSPECTIONS: Final = 20_000
DEFAULT_PERIOD: Final = dt.timedelta(days=90)
"""Inspections are read from this long before the start of the run, unless `since` says otherwise."""

_Rate = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


def _check_pattern(text: str) -> str:
    if GroupBy.parse(text).pattern is None:
        raise ValueError("must be a regular expression with a group, not a table")
    return text


_Pattern = Annotated[Label, AfterValidator(_check_pattern)]


class TrainingChoices(BaseModel):
    """The options of a training, as of `linewatch train`. An option that is null has its default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Annotated[
        ArchitectureChoice | None,
        Field(description="the detector; `auto`, the default if backbone weights are installed, tries several"),
    ] = None
    budget_seconds: Annotated[
        float | None,
        Field(gt=0, le=7 * 24 * 3600, description="`auto`: how long the whole training may take; 600 by default"),
    ] = None
    max_ms: Annotated[
        float | None,
        Field(gt=0, le=60_000, description="`auto`: the longest time to decode and score an image on one core; 40"),
    ] = None
    choose_by: Annotated[
        ChooseBy | None,
        Field(description="what chooses: synthetic defects on good parts, or the test images, for the threshold too"),
    ] = None
    pose: Annotated[PoseChoice | None, Field(description="whether parts are found and turned upright first")] = None
    alignment: Annotated[AlignmentChoice | None, Field(description="whether images are aligned to the others")] = None
    pooling: Annotated[
        float | None,
        Field(ge=0, le=1, description="the score is the mean of this share of the highest cells; 0: the highest cell"),
    ] = None
    backbone: Annotated[BackboneChoice | None, Field(description="the pretrained network of a feature detector")] = None
    score_method: Annotated[ScoreMethod | None, Field(description="how a conv-autoencoder scores")] = None
    epochs: Annotated[
        int | None, Field(ge=1, le=500, description="passes over the images, of detectors that train a network")
    ] = None
    input_size: Annotated[
        int | None, Field(ge=8, le=4096, description="the side of the network's input in pixels; chosen by default")
    ] = None
    bit_depth: Annotated[BitDepthChoice | None, Field(description="of the images; that of the recipe by default")] = (
        None
    )
    false_reject_rate: Annotated[
        _Rate | None, Field(description="the share of good parts that may be rejected; 0.05, or more for few parts")
    ] = None
    review_rate: Annotated[
        _Rate | None, Field(description="the share of good parts that may be rejected or reviewed; none by default")
    ] = None
    group_by: Annotated[
        _Pattern | None,
        Field(description="a regular expression with a group, which finds the part or lot in the names of uploads"),
    ] = None
    seed: Annotated[int | None, Field(ge=0, le=2**32 - 1, description="of all random numbers; 0 by default")] = None

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        check_options(self)
        return self


class InspectionSource(BaseModel):
    """Which inspections of the recipe a run learns from. Their images are recorded when a worker starts the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    good: Annotated[
        Literal["reviewed", "effective"],
        Field(
            description="the good parts: inspections `reviewed` as ok, or all whose `effective` verdict is ok: also "
            "those that the machine accepted and nobody reviewed"
        ),
    ] = "reviewed"
    defects: Annotated[bool, Field(description="whether inspections reviewed as ng are test images")] = True
    lot_id: Label | None = None
    line_id: Label | None = None
    station_id: Label | None = None
    since: Annotated[
        Moment | None, Field(description="only inspections accepted at or after; by default 90 days before the start")
    ] = None
    until: Annotated[Moment | None, Field(description="only inspections accepted before")] = None
    limit: Annotated[int, Field(ge=1, le=MAX_INSPECTIONS, description="the newest so many of each kind are read")] = (
        2000
    )


class TrainingRequest(BaseModel):
    """A training run to create."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    options: TrainingChoices = Field(default_factory=TrainingChoices)
    inspections: Annotated[
        InspectionSource | None, Field(description="inspections to learn from, besides images that you upload")
    ] = None
    compare: Annotated[
        int, Field(ge=0, le=5000, description="compare with the verdicts of so many of the newest inspections")
    ] = 500
