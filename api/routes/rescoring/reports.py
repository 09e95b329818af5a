"""`/v1/rescore-runs/{id}`: the results of a run: listings, a file, a report and heatmaps."""

import asyncio
import datetime as dt
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from api import on_demand
from api.exports import DOWNLOAD_SLOT, FILE, FileFormat, send
from api.requests.parameters import Label, Limit, decode_number_cursor
from api.responses.downloads import Download
from api.responses.problems import refuses
from api.responses.schemas import RescoreResultPage, binary
from api.routes.inspections import IMMUTABLE, MAP_REFUSALS
from api.services import Context, Services
from core.documents.exports import Format
from core.errors import Code, Refused
from core.inspection import inspected_images
from core.rescoring import runs
from core.rescoring.reports import exports, report, results
from core.rescoring.reports.documents import RescoreReport, RescoreResult
from core.rescoring.reports.results import ResultFilters, RunResult
from core.rescoring.runs import Run

router = APIRouter(prefix="/v1/rescore-runs/{run_id}", tags=["re-scoring"])

_Verdict = Literal["ok", "ng", "review"]
Number = Annotated[int, Path(ge=1, le=2**63 - 1)]


class _Results(BaseModel):
    """The query of a listing of results."""

    verdict: Annotated[_Verdict | None, Query(description="the verdict of the run")] = None
    before_verdict: Annotated[_Verdict | None, Query(description="the recorded verdict")] = None
    line_id: Label | None = None
    station_id: Label | None = None
    error_code: Annotated[Label | None, Query(description="only images that failed with this code")] = None
    cursor: str | None = None
    limit: Limit = 100


class _Flips(BaseModel):
    """The query of a listing of flips."""

    model_config = ConfigDict(populate_by_name=True)

    was: Annotated[_Verdict | None, Field(alias="from", description="the recorded verdict")] = None
    now: Annotated[_Verdict | None, Field(alias="to", description="the verdict of the run")] = None
    cursor: str | None = None
    limit: Limit = 100


@router.get("/results", responses=refuses(Code.INVALID_CURSOR))
def list_rescore_results(run_id: UUID, query: Annotated[_Results, Query()], services: Context) -> RescoreResultPage:
    """List the results of a run, in the order of its source. A running run adds more."""
    filters = ResultFilters(**{name: getattr(query, name) for name in ResultFilters.__dataclass_fields__})
    with services.transaction() as connection:
        runs.get(connection, run_id)
        page = results.list_page(
            connection, run_id, filters, after=decode_number_cursor(query.cursor), limit=query.limit
        )
    return _page(*page)


@router.get("/flips", responses=refuses(Code.INVALID_CURSOR))
def list_rescore_flips(run_id: UUID, query: Annotated[_Flips, Query()], services: Context) -> RescoreResultPage:
    """List the results whose verdict differs from the recorded verdict, in the order of the source."""
    with services.transaction() as connection:
        runs.get(connection, run_id)
        page = results.flips_page(
            connection,
            run_id,
            before=query.was,
            verdict=query.now,
            after=decode_number_cursor(query.cursor),
            limit=query.limit,
        )
    return _page(*page)


def _page(items: list[RunResult], following: int | None) -> RescoreResultPage:
    return RescoreResultPage(
        items=[RescoreResult.from_result(result) for result in items],
        next_cursor=None if following is None else str(following),
    )


class _Report(BaseModel):
    """The format of a report: `json` for programs, `html` for people."""

    format: Literal["json", "html"] = "json"


class _Export(BaseModel):
    """The file format and the contents."""

    format: FileFormat = Format.CSV
    flips: Annotated[bool, Field(description="only results whose verdict differs from the recorded verdict")] = False


@router.get("/export", response_class=Download, responses=FILE | refuses(Code.BUSY), dependencies=[DOWNLOAD_SLOT])
async def export_rescore_results(run_id: UUID, query: Annotated[_Export, Query()], services: Context) -> Download:
    """Download the results of a run as one file, in the order of its source; with `flips`, only changed verdicts.

    Each result is one flat row: the fields of a RescoreResult, the decisive review, and `metadata` as JSON text. Times
    are UTC. As with `/v1/inspections/export`, the response can end without its last chunk, and 503 `busy` is possible.
    """
    pages = results.pages(services.engine, run_id, flips=query.flips)
    name = f"rescore-{run_id}{'-flips' if query.flips else ''}"
    return await send(services, pages, exports.COLUMNS, query.format, name)


_PAGE = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    "X-Content-Type-Options": "nosniff",
}
_HTML: dict[int | str, dict[str, Any]] = {200: {"content": {"text/html": {"schema": {"type": "string"}}}}}


@router.get("/report", response_model=RescoreReport, responses=_HTML | refuses(Code.TIMEOUT))
async def get_rescore_report(
    run_id: UUID, services: Context, query: Annotated[_Report, Query()]
) -> RescoreReport | Response:
    """Get the report of a run: its results compared with the recorded verdicts and the reviews.

    You can get it at any time; before the run has ended, it covers the results so far. With `format=html` it is a
    self-contained page. The page shows images whose verdict would change, up to 12 from ok to ng and 12 from ng to ok,
    with heatmaps before and after. For images without an earlier inspection, it shows those with the highest scores. A
    worker renders the page. If that takes too long, the response is 503 `timeout`, but the worker continues: retry.
    """
    document = await asyncio.to_thread(report.build_report, services.engine, run_id)
    if query.format == "json":
        return document
    page = await on_demand.rescore_report(services, run_id, document.digest)
    return Response(page, media_type="text/html; charset=utf-8", headers=_PAGE)


@router.get("/results/{number}/heatmap", response_class=Response, responses=binary("image/png") | MAP_REFUSALS)
async def get_rescore_heatmap(run_id: UUID, number: Number, services: Context) -> Response:
    """Get a PNG of a result's image with the anomaly map of the run's version, on the scale of the run's threshold.

    `/v1/inspections/{id}/heatmap` shows the recorded result instead. 409 `invalid_transition` if the result has no
    score, or if its image is not in the store, for example because it is from an archive.
    """
    run, result = await asyncio.to_thread(_result, services, run_id, number)
    if result.anomaly_score is None or result.threshold is None:
        raise Refused(Code.INVALID_TRANSITION, f"Result {number} of run {run_id} has no score, so it has no heatmap.")
    if result.image_day is None or result.image_sha256 is None:
        raise Refused(Code.INVALID_TRANSITION, f"The image of result {number} is not in the store.")
    await asyncio.to_thread(_check_stored, services, result.image_day, result.image_sha256)
    data = await on_demand.heatmap(
        services,
        result.image_day,
        result.image_sha256,
        run.model_version_id,
        run.model_sha256,
        score=result.anomaly_score,
        threshold=result.threshold,
    )
    return Response(data, media_type="image/png", headers=IMMUTABLE)


def _check_stored(services: Services, day: dt.date, sha256: bytes) -> None:
    with services.transaction() as connection:
        inspected_images.check_recorded(connection, day, sha256)


def _result(services: Services, run_id: UUID, number: int) -> tuple[Run, RunResult]:
    with services.transaction() as connection:
        return runs.get(connection, run_id), results.get(connection, run_id, number)
