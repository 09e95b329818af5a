"""`/v1/rescore-runs/{id}`: what a run has found, image by image, as a file, and as a report."""

import asyncio
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api import on_demand
from api.exports import DOWNLOAD_SLOT, FILE, FileFormat, send
from api.requests.parameters import Label, Limit
from api.responses.downloads import Download
from api.responses.problems import refuses
from api.responses.schemas import RescoreResultPage, binary
from api.routes.inspections import IMMUTABLE, MAP_REFUSALS
from api.services import Context, Services
from core.documents.exports import Format
from core.errors import Code, Refused
from core.rescoring import runs
from core.rescoring.reports import exports, report, results
from core.rescoring.reports.documents import RescoreReport, RescoreResult
from core.rescoring.reports.results import ResultFilters, RunResult
from core.rescoring.runs import Run

router = APIRouter(prefix="/v1/rescore-runs/{run_id}", tags=["re-scoring"])

_Verdict = Literal["ok", "ng", "review"]
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


class _Results(BaseModel):
    """What a listing of results is narrowed to, its cursor and its size."""

    verdict: Annotated[_Verdict | None, Query(description="what the run says")] = None
    before_verdict: Annotated[_Verdict | None, Query(description="what was recorded")] = None
    line_id: Label | None = None
    station_id: Label | None = None
    error_code: Annotated[Label | None, Query(description="only images that failed with this code")] = None
    cursor: str | None = None
    limit: Limit = 100


class _Flips(BaseModel):
    """Which changes of the verdict, the cursor and the size of the listing."""

    model_config = ConfigDict(populate_by_name=True)

    was: Annotated[_Verdict | None, Field(alias="from", description="the verdict that was recorded")] = None
    now: Annotated[_Verdict | None, Field(alias="to", description="the verdict of the run")] = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("/results", responses=refuses(Code.INVALID_CURSOR))
def list_rescore_results(run_id: UUID, asked: Annotated[_Results, Query()], services: Context) -> RescoreResultPage:
    """The results of a run, in the order of its source. While it runs there will be more."""
    filters = ResultFilters(**{name: getattr(asked, name) for name in ResultFilters.__dataclass_fields__})
    with services.transaction() as connection:
        runs.get(connection, run_id)
        page = results.list_page(connection, run_id, filters, after=_after(asked.cursor), limit=asked.limit)
    return _page(*page)


@router.get("/flips", responses=refuses(Code.INVALID_CURSOR))
def list_rescore_flips(run_id: UUID, asked: Annotated[_Flips, Query()], services: Context) -> RescoreResultPage:
    """The results whose verdict is not the one that was recorded, in the order of the source."""
    with services.transaction() as connection:
        runs.get(connection, run_id)
        page = results.flips_page(
            connection, run_id, before=asked.was, verdict=asked.now, after=_after(asked.cursor), limit=asked.limit
        )
    return _page(*page)


def _page(items: list[RunResult], following: int | None) -> RescoreResultPage:
    return RescoreResultPage(
        items=[RescoreResult.from_result(one) for one in items],
        next_cursor=None if following is None else str(following),
    )


def _after(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
        raise Refused(Code.INVALID_CURSOR, "cursor: not one that this listing gave out.")
    return int(cursor)


class _Report(BaseModel):
    """As a document for programs, or as a page for people."""

    format: Literal["json", "html"] = "json"


class _Export(BaseModel):
    """The kind of file, and what is in it."""

    format: FileFormat = Format.CSV
    flips: Annotated[bool, Field(description="only the verdicts that changed")] = False


@router.get("/export", response_class=Download, responses=FILE | refuses(Code.BUSY), dependencies=[DOWNLOAD_SLOT])
async def export_rescore_results(run_id: UUID, asked: Annotated[_Export, Query()], services: Context) -> Download:
    """The results of a run as one file, in the order of its source; with `flips` only the verdicts that changed.

    One flat row each: the fields of a RescoreResult, the newest review, `metadata` as JSON text. Times are UTC. The
    answer may break off as that of `/v1/inspections/export`; 503 `busy` as there.
    """
    pages = results.pages(services.engine, run_id, flips=asked.flips)
    name = f"rescore-{run_id}{'-flips' if asked.flips else ''}"
    return await send(services, pages, exports.COLUMNS, asked.format, name)


_PAGE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    "X-Content-Type-Options": "nosniff",
}
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}


@router.get("/report", response_model=RescoreReport, responses=_HTML | refuses(Code.TIMEOUT))
async def get_rescore_report(
    run_id: UUID, services: Context, asked: Annotated[_Report, Query()]
) -> RescoreReport | Response:
    """What would change: the results of a run beside what was recorded and what people said.

    It may be asked for at any time, also of a run that has not ended, and says what there is then. With `format=html`
    it is one page that needs nothing but itself, with the images that would change, 12 each from ok to ng and from
    ng to ok, and their heatmaps before and after; for images without an
    earlier inspection, those with the highest scores. A worker renders it; 503 `timeout` if that takes too long: it
    continues, so ask again.
    """
    found = await asyncio.to_thread(report.build_report, services.engine, run_id)
    if asked.format == "json":
        return found
    page = await on_demand.rescore_report(services, run_id, found.digest)
    return Response(page, media_type="text/html; charset=utf-8", headers=_PAGE)


@router.get("/results/{number}/heatmap", response_class=Response, responses=binary("image/png") | MAP_REFUSALS)
async def get_rescore_heatmap(run_id: UUID, number: Number, services: Context) -> Response:
    """The image of a result under the heat that the run's version gives it, on the scale of the run's threshold.

    As `/v1/inspections/{id}/heatmap`, which shows what was recorded. 409 `invalid_transition` for a result without a
    score, and for an image that is not in the store, as that of an archive.
    """
    run, found = await asyncio.to_thread(_result, services, run_id, number)
    if found.anomaly_score is None or found.threshold is None:
        raise Refused(Code.INVALID_TRANSITION, f"Result {number} of run {run_id} has no score, so it has no heatmap.")
    if found.image_day is None or found.image_sha256 is None:
        raise Refused(Code.INVALID_TRANSITION, f"The image of result {number} is not in the store.")
    data = await on_demand.heatmap(
        services,
        found.image_day,
        found.image_sha256,
        run.model_version_id,
        run.model_sha256,
        score=found.anomaly_score,
        threshold=found.threshold,
    )
    return Response(data, media_type="image/png", headers=IMMUTABLE)


def _result(services: Services, run_id: UUID, number: int) -> tuple[Run, RunResult]:
    with services.transaction() as connection:
        return runs.get(connection, run_id), results.get(connection, run_id, number)
