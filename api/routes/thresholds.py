"""`/v1/recipes/{name}/model-versions/{version}/threshold` and what helps to choose one: previews, scores, history."""

import datetime as dt
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from sqlalchemy import Connection

from api.requests.parameters import (
    Label,
    Limit,
    Moment,
    Reason,
    RecipePath,
    VersionPath,
    decode_number_cursor,
)
from api.responses.problems import refuses
from api.responses.thresholds import ExpectedFalseRejectRate, ScoreHistogram, ThresholdHistory, ThresholdPreview
from api.services import Actor, Context
from core.documents.documents import Threshold
from core.errors import Code, Refused
from core.inspection import score_histogram, threshold_preview
from core.models import model_versions, thresholds
from core.vision.calibration.expected_rate import MAX_SENT_SCORES, expected_rate
from core.vision.calibration.record import Calibration

router = APIRouter(
    prefix="/v1/recipes/{name}/model-versions/{version}",
    tags=["model versions"],
    responses=refuses(Code.RECIPE_UNKNOWN),
)

_PERIOD = dt.timedelta(days=30)


class _Limits(BaseModel):
    """A threshold, and where it applies."""

    threshold: FiniteFloat
    review_threshold: FiniteFloat | None = None
    station_id: Label | None = None
    since: Moment | None = None

    @model_validator(mode="after")
    def _are_in_order(self) -> Self:
        if self.review_threshold is not None and self.review_threshold > self.threshold:
            raise ValueError("review_threshold must not be above threshold")
        return self


class _Preview(_Limits):
    """The query of a preview."""

    station_id: Annotated[Label | None, Query(description="by default all stations without a station threshold")] = None
    since: Annotated[Moment | None, Query(description="by default 30 days ago")] = None


class NewThreshold(_Limits):
    """A threshold to set or to preview.

    `calibration` is the record of its calibration; omit it for a threshold set by hand. `held_out_scores` are those of
    the good parts of the calibration: with them, the expected false-reject rate of other thresholds can be told later.
    With `preview` nothing is set. The response shows what the threshold would have changed among the inspections
    accepted `since`, by default in the last 30 days.
    """

    model_config = ConfigDict(extra="forbid")

    calibration: Calibration | None = None
    held_out_scores: Annotated[list[FiniteFloat], Field(max_length=MAX_SENT_SCORES)] | None = None
    reason: Annotated[Reason | None, Field(description="why it is set, for the history and the audit log")] = None
    preview: bool = False

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.calibration is not None and self.calibration.threshold != self.threshold:
            raise ValueError("threshold differs from the threshold of its calibration")
        review = self.calibration.review if self.calibration is not None else None
        if review is not None and review.threshold != self.review_threshold:
            raise ValueError("review_threshold differs from the review threshold of its calibration")
        if self.held_out_scores is not None and (
            self.calibration is None or len(self.held_out_scores) != self.calibration.sample_size
        ):
            raise ValueError("held_out_scores must be the sample of the calibration")
        if self.since is not None and not self.preview:
            raise ValueError("since is allowed only with preview")
        return self


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ThresholdPreview,
        "description": "With `preview`: what it would have changed. Nothing is set.",
    },
    201: {"model": Threshold, "description": "The threshold is set."},
}


@router.post("/threshold", status_code=201, responses=_RESPONSES, response_model=None)
def set_threshold(
    name: RecipePath, version: VersionPath, new: NewThreshold, services: Context, actor: Actor, response: Response
) -> Threshold | ThresholdPreview:
    """Set the threshold of a version. It applies to all inspections that are claimed from now on.

    With `"preview": true`, nothing is set. Instead, past verdicts that it would have changed are counted, with up to 20
    examples of each kind, as by `GET …/threshold-preview`, which needs the scope `read` only.
    """
    if new.preview:
        response.status_code = 200
        with services.snapshot() as connection:
            return _preview(connection, model_versions.get(connection, name, version), new)
    with services.transaction() as connection:
        model_version = model_versions.get(connection, name, version)
        threshold = thresholds.append(
            connection,
            model_version,
            threshold=new.threshold,
            review_threshold=new.review_threshold,
            station_id=new.station_id,
            calibration=new.calibration.model_dump(mode="json") if new.calibration else None,
            actor=actor,
            reason=new.reason,
            held_out_scores=new.held_out_scores,
        )
    return Threshold.of(threshold)


@router.get("/threshold-preview")
def preview_threshold(
    name: RecipePath, version: VersionPath, query: Annotated[_Preview, Query()], services: Context
) -> ThresholdPreview:
    """Preview a threshold: count the past verdicts that it would have changed, with up to 20 examples of each kind.

    They are those at `station_id`, or at all stations without a station threshold; at most the newest 100,000
    inspections are compared. The preview also has the agreement with reviews, and the false-reject rate to expect.
    """
    with services.snapshot() as connection:
        return _preview(connection, model_versions.get(connection, name, version), query)


def _preview(connection: Connection, version: model_versions.ModelVersion, limits: _Limits) -> ThresholdPreview:
    parameters: dict[str, Any] = {
        "threshold": limits.threshold,
        "review_threshold": limits.review_threshold,
        "station_id": limits.station_id,
        "since": limits.since or dt.datetime.now(dt.UTC) - _PERIOD,
    }
    preview = threshold_preview.preview(connection, version, **parameters)
    return ThresholdPreview.of(preview, _expected_rate(connection, version, limits), **parameters)


def _expected_rate(
    connection: Connection, version: model_versions.ModelVersion, limits: _Limits
) -> ExpectedFalseRejectRate | None:
    sample = thresholds.newest_held_out_scores(connection, version.id, limits.station_id)
    if sample is None:
        return None
    calibration = Calibration.model_validate(sample.calibration)
    return ExpectedFalseRejectRate.of(expected_rate(calibration, sample.scores, limits.threshold), calibration)


class _History(BaseModel):
    """The query of the history of thresholds."""

    station_id: Annotated[Label | None, Query(description="only those of this station")] = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("/thresholds", responses=refuses(Code.INVALID_CURSOR))
def list_thresholds(
    name: RecipePath, version: VersionPath, query: Annotated[_History, Query()], services: Context
) -> ThresholdHistory:
    """List all thresholds that the version has had, newest first, with who set them and why.

    To undo a change, set the threshold before it again. That is a change, too.
    """
    with services.transaction() as connection:
        version_id = model_versions.get(connection, name, version).id
        items, following = thresholds.list_page(
            connection,
            version_id,
            station_id=query.station_id,
            before=decode_number_cursor(query.cursor),
            limit=query.limit,
        )
        in_force = {threshold.id for threshold in thresholds.in_force(connection, version_id)}
    return ThresholdHistory.of(items, in_force, following)


class _Scores(BaseModel):
    """The query of a histogram of scores."""

    since: Annotated[Moment | None, Query(description="by default 30 days ago")] = None
    until: Annotated[Moment | None, Query(description="by default now")] = None
    station_id: Annotated[Label | None, Query(description="by default all stations without a station threshold")] = None
    bins: Annotated[int, Query(ge=1, le=200)] = 50


@router.get("/scores")
def get_scores(
    name: RecipePath, version: VersionPath, query: Annotated[_Scores, Query()], services: Context
) -> ScoreHistogram:
    """Get the histogram of the scores of the version's completed inspections, accepted from `since` up to `until`.

    At most the newest 100,000 inspections are in it, the same ones that a preview of a threshold compares.
    """
    since = query.since or dt.datetime.now(dt.UTC) - _PERIOD
    if query.until is not None and since >= query.until:
        raise Refused(Code.INVALID_FIELD, "since: must be before until.")
    period: dict[str, Any] = {"since": since, "until": query.until, "station_id": query.station_id}
    with services.snapshot() as connection:
        model_version = model_versions.get(connection, name, version)
        histogram = score_histogram.read(connection, model_version, **period, bins=query.bins)
    return ScoreHistogram.of(histogram, recipe=name, version=version, **period)
