"""The request for a re-scoring run: the body of `POST /v1/rescore-runs`, which a schedule stores as well."""

import datetime as dt
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from core.inspection.inspections import Filters, Reviewed
from core.intake.fields import Moment, refuse_unstorable
from core.rescoring.maintenance_windows import MaintenanceWindow

_Text = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(refuse_unstorable)]
_Location = Annotated[str, StringConstraints(min_length=1, max_length=4000), AfterValidator(refuse_unstorable)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class Where(BaseModel):
    """Selects stored inspections, by `ids` and the filters of `GET /v1/inspections`. Only final ones are scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Annotated[str | None, Field(description="must be the recipe of the run, if given")] = None
    ids: Annotated[
        list[UUID] | None,
        Field(min_length=1, max_length=1000, description="only these inspections; ids of other recipes are left out"),
    ] = None
    part_id: _Text | None = None
    lot_id: _Text | None = None
    line_id: _Text | None = None
    station_id: _Text | None = None
    batch_id: UUID | None = None
    verdict: Literal["ok", "ng", "review"] | None = None
    effective_verdict: Literal["ok", "ng", "review"] | None = None
    reviewed: Reviewed | None = None
    status: Literal["completed", "failed", "cancelled"] | None = None
    since: Moment | None = None
    until: Moment | None = None
    max_age_hours: Annotated[
        float | None, Field(gt=0, le=1_000_000, description="like `since`, counted back from the creation of the run")
    ] = None

    def filters(self, recipe: str) -> Filters:
        """Return the filters of `core.inspection.inspections` that select the same inspections, apart from `ids`."""
        return Filters(recipe=recipe, **self.model_dump(exclude={"recipe", "ids", "max_age_hours"}))

    def resolve_age(self, now: dt.datetime) -> Self:
        """Return a copy in which `since` replaces `max_age_hours`."""
        if self.max_age_hours is None:
            return self
        since = now - dt.timedelta(hours=self.max_age_hours)
        return self.model_copy(update={"since": max(since, self.since or since), "max_age_hours": None})


class Source(BaseModel):
    """Where the images come from. Give exactly one of the three."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: Where | None = None
    folder: Annotated[
        _Location | None,
        Field(description="a folder or s3://bucket/prefix with images, below LINEWATCH_ARCHIVE_ROOTS"),
    ] = None
    manifest: Annotated[
        _Location | None, Field(description="a JSON lines or CSV file that lists images, below LINEWATCH_ARCHIVE_ROOTS")
    ] = None

    @model_validator(mode="after")
    def _check_exactly_one(self) -> Self:
        if sum(source is not None for source in (self.where, self.folder, self.manifest)) != 1:
            raise ValueError("name exactly one of where, folder and manifest")
        return self


class RunOptions(BaseModel):
    """Everything that a request for a run says, except the model version."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    source: Source
    threshold: Annotated[
        _Finite | None, Field(description="replaces the version's thresholds, those of stations included")
    ] = None
    review_threshold: _Finite | None = None
    recompute: Annotated[
        bool, Field(description="run the network even for images that this version has scored before")
    ] = False
    window: Annotated[str | None, Field(description="the hours in which the run may work, like 22:00-05:00")] = None
    time_zone: Annotated[str, Field(description="IANA name of the window's time zone")] = "UTC"
    max_failure_rate: Annotated[
        float, Field(ge=0, le=1, allow_inf_nan=False, description="the run fails above this share of failed images")
    ] = 0.1

    @model_validator(mode="after")
    def _check_combination(self) -> Self:
        if self.source.where is not None and self.source.where.recipe not in (None, self.recipe):
            raise ValueError("source.where.recipe: must be the recipe of the run")
        if self.review_threshold is not None and self.threshold is None:
            raise ValueError("review_threshold: requires a threshold")
        if self.threshold is not None and (self.review_threshold or self.threshold) > self.threshold:
            raise ValueError("review_threshold: must not be above the threshold")
        # A time zone is checked even if no window uses it.
        MaintenanceWindow.parse(self.window or "00:00-12:00", self.time_zone)
        return self

    def source_json(self, now: dt.datetime) -> dict[str, Any]:
        """Return the source as a run that is created at this moment stores it."""
        if self.source.where is not None:
            return {"where": self.source.where.resolve_age(now).model_dump(mode="json", exclude_none=True)}
        return self.source.model_dump(mode="json", exclude_none=True)


_Version = Annotated[int, Field(ge=1, le=2**31 - 1)]


class RunRequest(RunOptions):
    """A run to create."""

    model_version: _Version


class ScheduledRequest(RunOptions):
    """The run that a schedule creates at each of its times."""

    model_version: Annotated[
        _Version | None, Field(description="null: the newest version that is ready when a run is created")
    ] = None

    def with_version(self, version: int) -> RunRequest:
        """Return the request for a run of this version."""
        return RunRequest(**{**dict(self), "model_version": version})
