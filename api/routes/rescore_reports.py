"""`/v1/rescore-runs/{id}`: what a run has found, picture by picture, as a file, and as a report."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from api.context import Context
from api.downloads import Download
from api.fields import Label, Limit
from api.files import FILE, PLACE, FileFormat, send
from api.problems import refuses
from api.schemas import RescoreResultPage
from core.errors import Code, Refused
from core.exports import Format
from core.rescoring import exports, report, results, runs
from core.rescoring.documents import RescoreResult
from core.rescoring.report import RescoreReport
from core.rescoring.results import Filters, Scored

router = APIRouter(prefix="/v1/rescore-runs/{run_id}", tags=["re-scoring"])

_Verdict = Literal["ok", "ng", "review"]


class _Results(BaseModel):
    """What a listing of results is narrowed to, its cursor and its size."""

    verdict: Annotated[_Verdict | None, Query(description="what the run says")] = None
    before_verdict: Annotated[_Verdict | None, Query(description="what was recorded")] = None
    line_id: Label | None = None
    station_id: Label | None = None
    error_code: Annotated[Label | None, Query(description="only pictures that failed with this code")] = None
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
    filters = Filters(**{name: getattr(asked, name) for name in Filters.__dataclass_fields__})
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


def _page(items: list[Scored], following: int | None) -> RescoreResultPage:
    return RescoreResultPage(
        items=[RescoreResult.of(one) for one in items], next_cursor=None if following is None else str(following)
    )


def _after(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
        raise Refused(Code.INVALID_CURSOR, "cursor: not one that this listing gave out.")
    return int(cursor)


class _Export(BaseModel):
    """The kind of file, and what is in it."""

    format: FileFormat = Format.CSV
    flips: Annotated[bool, Field(description="only the verdicts that changed")] = False


@router.get("/export", response_class=Download, responses=FILE | refuses(Code.BUSY), dependencies=[PLACE])
async def export_rescore_results(run_id: UUID, asked: Annotated[_Export, Query()], services: Context) -> Download:
    """The results of a run as one file, in the order of its source; with `flips` only the verdicts that changed.

    One flat row each: the fields of a RescoreResult, the newest review, `metadata` as JSON text. Times are UTC. The
    answer may break off as that of `/v1/inspections/export`; 503 `busy` as there.
    """
    pages = results.pages(services.engine, run_id, flips=asked.flips)
    name = f"rescore-{run_id}{'-flips' if asked.flips else ''}"
    return await send(services, pages, exports.COLUMNS, asked.format, name)


@router.get("/report")
def get_rescore_report(run_id: UUID, services: Context) -> RescoreReport:
    """What would change: the results of a run beside what was recorded and what people said.

    It may be asked for at any time, also of a run that has not ended, and says what there is then.
    """
    return report.of(services.engine, run_id)
