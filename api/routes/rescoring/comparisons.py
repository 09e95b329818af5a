"""`/v1/recipes/{name}/model-versions/{version}/compare/{other}`: two versions on the same inspections."""

import datetime as dt
from typing import Annotated, Any, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.requests.parameters import RecipePath, VersionPath
from api.responses.problems import refuses
from api.services import Context
from core.errors import Code
from core.models.model_versions import ModelVersion
from core.rescoring.reports import version_comparison
from core.rescoring.reports.documents import FlipCount, ReviewedImages
from core.rescoring.run_thresholds import RunThresholds

router = APIRouter(prefix="/v1/recipes/{name}/model-versions", tags=["model versions"])


class ComparedVersion(BaseModel):
    """A compared version, and the thresholds in force that give its verdicts: `general`, and those of `stations`."""

    version: int
    state: str
    active: bool
    thresholds: dict[str, Any]

    @classmethod
    def of(cls, version: ModelVersion, thresholds: RunThresholds) -> Self:
        return cls(version=version.version, state=version.state, active=version.active, thresholds=thresholds.to_json())


class ComparedResult(BaseModel):
    """The score of a version, the same in units of its threshold (null if that is not above 0), and its verdict."""

    anomaly_score: float
    ratio: float | None
    verdict: str


class ComparedPair(BaseModel):
    """An inspection that both versions have scored. `reviewed_verdict` is what its reviews decided, or null."""

    inspection_id: UUID
    a: ComparedResult
    b: ComparedResult
    reviewed_verdict: str | None

    @classmethod
    def of(cls, pair: version_comparison.Pair) -> Self:
        return cls(
            inspection_id=pair.inspection_id,
            a=ComparedResult(**vars(pair.a)),
            b=ComparedResult(**vars(pair.b)),
            reviewed_verdict=None if pair.reviewed == "review" else pair.reviewed,
        )


class MissingResults(BaseModel):
    """How many of the newest inspections this version has not scored, and when the oldest of them was accepted.

    A re-scoring run of the version, with `{"where": {"since": …}}` as its source, adds their results.
    """

    model_version: int
    inspections: int
    since: dt.datetime | None


class VersionComparison(BaseModel):
    """Version `a` and version `b` on the same inspections, by stored scores and the thresholds in force now.

    `flips` count the verdicts that differ, as `<a>_to_<b>`. In `agreement`, `before` is version a and `after` is
    version b.
    """

    recipe: str
    a: ComparedVersion
    b: ComparedVersion
    compared: int = Field(description="number of `pairs`")
    pairs: list[ComparedPair] = Field(description="the newest first")
    flips: list[FlipCount]
    agreement: ReviewedImages
    newest: int = Field(description="number of the newest inspections, in which `missing` counts")
    missing: list[MissingResults] = Field(description="of version a and of version b")

    @classmethod
    def of(cls, comparison: version_comparison.VersionComparison) -> Self:
        compared = len(comparison.pairs)
        return cls(
            recipe=comparison.a.recipe,
            a=ComparedVersion.of(comparison.a, comparison.thresholds_a),
            b=ComparedVersion.of(comparison.b, comparison.thresholds_b),
            compared=compared,
            pairs=[ComparedPair.of(pair) for pair in comparison.pairs],
            flips=[
                FlipCount(flip=f"{before}_to_{after}", count=number, share=number / compared)
                for (before, after), number in sorted(comparison.flips.items())
            ],
            agreement=ReviewedImages.from_agreement(comparison.agreement),
            newest=comparison.newest,
            missing=[MissingResults(**vars(missing)) for missing in comparison.missing],
        )


@router.get("/{version}/compare/{other}", responses=refuses(Code.RECIPE_UNKNOWN))
def compare_model_versions(
    name: RecipePath,
    version: VersionPath,
    other: VersionPath,
    services: Context,
    limit: Annotated[
        int, Query(ge=1, le=version_comparison.MAX_COMPARED, description="the most inspections to compare: the newest")
    ] = version_comparison.MAX_COMPARED,
) -> VersionComparison:
    """Compare two versions on inspections that both have scored: one of them live and the other in a re-scoring run or
    as a challenger, or both in runs.

    Only stored results are read: of each version, those of its 8 newest runs, up to the newest 5,000 of each. To
    compare more, start a re-scoring run over what is `missing`.
    """
    with services.transaction() as connection:
        comparison = version_comparison.compare_versions(connection, name, version, other, at_most=limit)
    return VersionComparison.of(comparison)
