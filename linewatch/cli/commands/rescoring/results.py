"""`linewatch rescore results`, `flips`, `report` and `export`: what a run made of its images."""

from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from linewatch.cli.commands.rescoring.run_lookup import RunId, find_run_id
from linewatch.cli.files import Out, check, kind_of, write
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from linewatch.types.rescoring import RescoreResult

_PAGE = 100
_Verdict = Literal["ok", "ng", "review"]
_TABLES: dict[str, Literal["csv", "parquet"]] = {".csv": "csv", ".parquet": "parquet"}
_REPORTS: dict[str, Literal["html", "json"]] = {".html": "html", ".htm": "html", ".json": "json"}

Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]


def results_of_run(
    run: RunId,
    verdict: Annotated[_Verdict | None, typer.Option("--verdict", help="The run's.")] = None,
    before: Annotated[_Verdict | None, typer.Option("--before", help="The recorded one.")] = None,
    line: Annotated[str | None, typer.Option("--line")] = None,
    station: Annotated[str | None, typer.Option("--station")] = None,
    error: Annotated[str | None, typer.Option("--error", metavar="CODE", help="Failed for this.")] = None,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List what a run made of its images, in the order of its source.

    With --json one a line.
    """
    with client(url, api_key) as system:
        found = system.rescore_results(
            find_run_id(system, run),
            page_size=min(limit, _PAGE),
            verdict=verdict,
            before_verdict=before,
            line_id=line,
            station_id=station,
            error_code=error,
        )
        _print(islice(found, limit), as_json)


def flips(
    run: RunId,
    before: Annotated[_Verdict | None, typer.Option("--from", help="The recorded verdict.")] = None,
    after: Annotated[_Verdict | None, typer.Option("--to", help="The run's.")] = None,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the images whose verdict would be another one.

    With --json one a line.
    """
    with client(url, api_key) as system:
        found = system.rescore_flips(find_run_id(system, run), before=before, after=after, page_size=min(limit, _PAGE))
        _print(islice(found, limit), as_json)


def report(
    run: RunId,
    kind: Annotated[
        Literal["json", "html"] | None,
        typer.Option("--format", help="What it is written as. [as the file's name ends]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file, there once it is whole. [standard output]")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run: what would change.

    As HTML it is one file that needs nothing beside it; JSON where nothing else is said.
    """
    file = Path("-") if out is None else out
    check(file, as_json and (out is not None or kind == "html"))
    written_as = kind or _REPORTS.get(file.suffix.lower(), "json")
    kind_of(file, written_as, _REPORTS)
    with client(url, api_key) as system:
        download = partial(system.download_rescore_report, find_run_id(system, run), format=written_as)
        write(file, download, as_json=as_json, format=written_as)


def export(
    run: RunId,
    out: Out,
    kind: Annotated[
        Literal["csv", "parquet"] | None,
        typer.Option("--format", help="What it is written as. [as the file's name ends, or csv]"),
    ] = None,
    only_flips: Annotated[bool, typer.Option("--flips", help="Only images whose verdict is another one.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Write all results of a run to a file, one a row."""
    check(out, as_json)
    written_as = kind_of(out, kind, _TABLES)
    with client(url, api_key) as system:
        download = partial(system.export_rescore_results, find_run_id(system, run), format=written_as, flips=only_flips)
        write(out, download, as_json=as_json, format=written_as)


def _print(found: "Iterable[RescoreResult]", as_json: bool) -> None:
    if as_json:
        for one in found:
            print_json(one.model_dump(mode="json"))
        return
    print_table(
        ["no", "image", "before", "now", "score before", "score", "threshold", "reviewed", "inspection or path"],
        [
            [
                one.number,
                one.external_id,
                one.before.verdict if one.before else None,
                f"failed: {one.error.code}" if one.error else one.verdict,
                _number(one.before.anomaly_score if one.before else None),
                _number(one.anomaly_score),
                _number(one.threshold),
                one.reviewed_verdict,
                one.inspection_id or one.path,
            ]
            for one in found
        ],
        right=["no", "score before", "score", "threshold"],
    )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"
