"""`linewatch rescore results`, `flips`, `report` and `export`: the results of a run."""

from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from linewatch.cli.commands.rescoring.run_lookup import find_run_id, run_argument
from linewatch.cli.files import check, kind_of, out_option, write
from linewatch.cli.options import FOLDER_OR_FILE, client, limit_option, system_options
from linewatch.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from linewatch.types.rescoring import RescoreResult

_PAGE = 100
_Verdict = Literal["ok", "ng", "review"]
_TABLES: dict[str, Literal["csv", "parquet"]] = {".csv": "csv", ".parquet": "parquet"}
_REPORTS: dict[str, Literal["html", "json"]] = {".html": "html", ".htm": "html", ".json": "json"}

_VERDICT = click.Choice(["ok", "ng", "review"])


@click.command("results")
@run_argument
@click.option("--verdict", type=_VERDICT, help="The run's verdict.")
@click.option("--before", type=_VERDICT, help="The recorded verdict.")
@click.option("--line", "line_id", help="Only this line.")
@click.option("--station", "station_id", help="Only this station.")
@click.option("--error", metavar="CODE", help="Failed with this code.")
@limit_option
@system_options
def list_results(
    run: str,
    verdict: _Verdict | None,
    before: _Verdict | None,
    line_id: str | None,
    station_id: str | None,
    error: str | None,
    limit: int,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """List the results of a run, in the order of its source.

    With --json, prints one JSON object per line.
    """
    with client(url, api_key) as system:
        matching = system.rescore_results(
            find_run_id(system, run),
            page_size=min(limit, _PAGE),
            verdict=verdict,
            before_verdict=before,
            line_id=line_id,
            station_id=station_id,
            error_code=error,
        )
        _print(islice(matching, limit), as_json)


@click.command("flips")
@run_argument
@click.option("--from", "before", type=_VERDICT, help="The recorded verdict.")
@click.option("--to", "after", type=_VERDICT, help="The run's verdict.")
@limit_option
@system_options
def flips(
    run: str, before: _Verdict | None, after: _Verdict | None, limit: int, url: str, api_key: str | None, as_json: bool
) -> None:
    """List the images whose verdict would change.

    With --json, prints one JSON object per line.
    """
    with client(url, api_key) as system:
        matching = system.rescore_flips(
            find_run_id(system, run), before=before, after=after, page_size=min(limit, _PAGE)
        )
        _print(islice(matching, limit), as_json)


@click.command("report")
@run_argument
@click.option(
    "--format", "kind", type=click.Choice(["json", "html"]), help="The format. [by the file's suffix, or json]"
)
@click.option("--out", type=FOLDER_OR_FILE, help="The file, created once it is complete. [standard output]")
@system_options
def report(
    run: str, kind: Literal["json", "html"] | None, out: Path | None, url: str, api_key: str | None, as_json: bool
) -> None:
    """Write the report of a run, which shows what would change.

    HTML is one self-contained file. The default is JSON.
    """
    file = Path("-") if out is None else out
    check(file, as_json and (out is not None or kind == "html"))
    written_as = kind or _REPORTS.get(file.suffix.lower(), "json")
    kind_of(file, written_as, _REPORTS)
    with client(url, api_key) as system:
        download = partial(system.download_rescore_report, find_run_id(system, run), format=written_as)
        write(file, download, as_json=as_json, format=written_as)


@click.command("export")
@run_argument
@out_option
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "parquet"]),
    help="The file's format. [by its suffix, or csv]",
)
@click.option("--flips", "only_flips", is_flag=True, help="Only images whose verdict would change.")
@system_options
def export(
    run: str,
    out: Path,
    kind: Literal["csv", "parquet"] | None,
    only_flips: bool,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Write all results of a run to a file, one per row."""
    check(out, as_json)
    written_as = kind_of(out, kind, _TABLES)
    with client(url, api_key) as system:
        download = partial(system.export_rescore_results, find_run_id(system, run), format=written_as, flips=only_flips)
        write(out, download, as_json=as_json, format=written_as)


def _print(results: "Iterable[RescoreResult]", as_json: bool) -> None:
    if as_json:
        for result in results:
            print_json(result.document)
        return
    print_table(
        ["no", "image", "before", "now", "score before", "score", "threshold", "reviewed", "inspection or path"],
        [
            [
                result.number,
                result.external_id,
                result.before.verdict if result.before else None,
                f"failed: {result.error.code}" if result.error else result.verdict,
                _number(result.before.anomaly_score if result.before else None),
                _number(result.anomaly_score),
                _number(result.threshold),
                result.reviewed_verdict,
                result.inspection_id or result.path,
            ]
            for result in results
        ],
        right=["no", "score before", "score", "threshold"],
    )


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"
