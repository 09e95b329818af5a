"""What a re-scoring run is asked for with: the body of `POST /v1/rescore-runs`, and what a schedule keeps."""

import datetime as dt
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from core.inspection.inspections import Filters
from core.intake.fields import refuse_unstorable
from core.rescoring.maintenance_windows import Window

_Text = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(refuse_unstorable)]
_Place = Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(refuse_unstorable)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class Where(BaseModel):
    """Which stored inspections: the filters of their listing. None means any; only final ones are scored again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Annotated[str | None, Field(description="that of the run, if it is named here, too")] = None
    part_id: _Text | None = None
    lot_id: _Text | None = None
    line_id: _Text | None = None
    station_id: _Text | None = None
    batch_id: UUID | None = None
    verdict: Literal["ok", "ng", "review"] | None = None
    effective_verdict: Literal["ok", "ng", "review"] | None = None
    status: Literal["completed", "failed", "cancelled"] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    max_age_hours: Annotated[
        float | None, Field(gt=0, le=1_000_000, description="as `since`, counted back from the moment the run is made")
    ] = None

    def filters(self, recipe: str) -> Filters:
        """The same as filters of a listing."""
        return Filters(recipe=recipe, **self.model_dump(exclude={"recipe", "max_age_hours"}))

    def as_of(self, now: dt.datetime) -> Self:
        """The same with its age as a moment."""
        if self.max_age_hours is None:
            return self
        since = now - dt.timedelta(hours=self.max_age_hours)
        return self.model_copy(update={"since": max(since, self.since or since), "max_age_hours": None})


class Source(BaseModel):
    """Where the images come from: exactly one of the three."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: Where | None = None
    folder: Annotated[
        _Place | None, Field(description="a folder or an s3://bucket/prefix of images, below LINEWATCH_ARCHIVE_ROOTS")
    ] = None
    manifest: Annotated[
        _Place | None, Field(description="a JSON lines or CSV file that names images, below LINEWATCH_ARCHIVE_ROOTS")
    ] = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(one is not None for one in (self.where, self.folder, self.manifest)) != 1:
            raise ValueError("name exactly one of where, folder and manifest")
        return self


class RunOptions(BaseModel):
    """What is asked of a run, apart from the model version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    source: Source
    threshold: Annotated[
        _Finite | None, Field(description="instead of those in force of the version, for every station")
    ] = None
    review_threshold: _Finite | None = None
    recompute: Annotated[
        bool, Field(description="run the network also where this version has scored the image before")
    ] = False
    window: Annotated[str | None, Field(description="the hours in which it may run, like 22:00-05:00")] = None
    time_zone: Annotated[str, Field(description="of the window, by its IANA name")] = "UTC"
    max_failure_rate: Annotated[
        float, Field(ge=0, le=1, allow_inf_nan=False, description="the run is aborted above this share of failures")
    ] = 0.1

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.source.where is not None and self.source.where.recipe not in (None, self.recipe):
            raise ValueError("source.where.recipe: must be the recipe of the run")
        if self.review_threshold is not None and self.threshold is None:
            raise ValueError("review_threshold: comes with a threshold only")
        if self.threshold is not None and (self.review_threshold or self.threshold) > self.threshold:
            raise ValueError("review_threshold: must not be above the threshold")
        Window.parse(self.window or "00:00-12:00", self.time_zone)  # also a zone without a window must exist
        return self

    def stored_source(self, now: dt.datetime) -> dict[str, Any]:
        """The source as a run keeps it."""
        if self.source.where is not None:
            return {"where": self.source.where.as_of(now).model_dump(mode="json", exclude_none=True)}
        return self.source.model_dump(mode="json", exclude_none=True)


_Version = Annotated[int, Field(ge=1, le=2**31 - 1)]


class RunRequest(RunOptions):
    """A run to be made."""

    model_version: _Version


class ScheduledRequest(RunOptions):
    """The run that a schedule makes again and again."""

    model_version: Annotated[
        _Version | None, Field(description="null for the newest version that is ready when the run is made")
    ] = None

    def of_version(self, version: int) -> RunRequest:
        """The run to be made now."""
        return RunRequest(**{**dict(self), "model_version": version})
