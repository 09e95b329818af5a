"""`linewatch show`, `list`, `image`, `export` and `review`: read inspections and overrule their verdicts."""

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.files import check, kind_of, out_option, replace_with, write
from linewatch.cli.options import (
    EARLIEST,
    FOLDER_OR_FILE,
    LATEST,
    client,
    limit_option,
    recipe_filter_option,
    system_options,
    together,
)
from linewatch.cli.terminal import print_fields, print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.types.results import Inspection

_PAGE = 100
_Kind = Literal["csv", "parquet"]
_SUFFIXES: dict[str, _Kind] = {".csv": "csv", ".parquet": "parquet"}

moment_type = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"])
"""A time for `with_zone`."""
inspection_argument = click.argument("inspection_id", metavar="ID", help="The inspection's id.")

_filter_options = together(
    [
        recipe_filter_option,
        click.option("--lot", "lot_id", help="Only this lot."),
        click.option("--part", "part_id", help="Only this part."),
        click.option("--line", "line_id", help="Only this line."),
        click.option("--station", "station_id", help="Only this station."),
        click.option("--batch", "batch_id", help="Only this batch, by its id."),
        click.option("--verdict", type=click.Choice(["ok", "ng", "review"]), help="The machine's verdict."),
        click.option(
            "--effective-verdict",
            type=click.Choice(["ok", "ng", "review"]),
            help="The verdict that counts: what reviews decided, else the machine's.",
        ),
        click.option(
            "--reviewed",
            type=click.Choice(["ok", "ng", "any", "none"]),
            help="The verdict that reviews decided; any: there is a review, none: there is not.",
        ),
        click.option(
            "--status",
            type=click.Choice(["queued", "running", "completed", "failed", "cancelled"]),
            help="Only this status.",
        ),
        click.option("--model-version", type=int, help="Scored by this version of the recipe."),
        click.option("--min-score", type=float, help="Scores from here, inclusive."),
        click.option("--max-score", type=float, help="Scores up to here, inclusive."),
        click.option("--min-score-ratio", type=float, help="Scores from this multiple of their threshold."),
        click.option("--max-score-ratio", type=float, help="Scores up to this multiple of their threshold."),
        click.option("--reviewer", help="Reviewed by this person."),
        click.option("--since", type=moment_type, help="Accepted at or after; local time without a zone."),
        click.option("--until", type=moment_type, help="Accepted before."),
    ]
)
"""The filters of a listing or an export, named like those of `Client.inspections`."""


@click.command("show")
@inspection_argument
@click.option("--wait", type=click.FloatRange(min=0), default=0, help="Seconds to wait for the result.")
@system_options
def show(inspection_id: str, wait: float, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one inspection."""
    with client(url, api_key) as system:
        inspection = system.inspection(inspection_id, wait=wait)
    if as_json:
        print_json(inspection.document)
        return
    print_fields(inspection.document)


@click.command("list")
@_filter_options
@limit_option
@system_options
def list_inspections(limit: int, url: str, api_key: str | None, as_json: bool, **filters: Any) -> None:
    """List inspections, newest first.

    With --json, prints one JSON object per line.
    """
    filters |= {name: with_zone(filters[name]) for name in ("since", "until")}
    with client(url, api_key) as system:
        matching = system.inspections(page_size=min(limit, _PAGE), **filters)
        print_inspections(islice(matching, limit), as_json)


@click.command("image")
@inspection_argument
@click.option("--out", type=FOLDER_OR_FILE, help="The file to write; - is standard output.")
@click.option("--link", "is_link", is_flag=True, help="Print a link that anyone can use for a while, without a key.")
@system_options
def image(inspection_id: str, out: Path | None, is_link: bool, url: str, api_key: str | None, as_json: bool) -> None:
    """Write the image of an inspection to a file, as it was submitted, or print a link to it.

    There are links if images are in a bucket and LINEWATCH_STORE_LINK_SECONDS is set.
    """
    if (out is None) != is_link:
        raise WrongUse("name either --out or --link")
    if out is not None:
        check(out, as_json)
    with client(url, api_key) as system:
        if out is not None:
            write(out, lambda path: replace_with(path, system.image(inspection_id)), as_json=as_json)
            return
        link = system.image_link(inspection_id)
    if link is None:
        raise CommandFailed(f"{url} gives no links: use --out, or see LINEWATCH_STORE_LINK_SECONDS")
    if as_json:
        print_json({"link": link})
        return
    click.echo(link)


@click.command("export")
@out_option
@click.option(
    "--format", "kind", type=click.Choice(["csv", "parquet"]), help="The file's format. [by its suffix, or csv]"
)
@_filter_options
@system_options
def export(out: Path, kind: _Kind | None, url: str, api_key: str | None, as_json: bool, **filters: Any) -> None:
    """Write inspections to a file, newest first, one per row.

    The filters are those of `linewatch list`.
    """
    check(out, as_json)
    written_as = kind_of(out, kind, _SUFFIXES)
    filters |= {name: with_zone(filters[name]) for name in ("since", "until")}
    with client(url, api_key) as system:
        write(out, partial(system.export, format=written_as, **filters), as_json=as_json, format=written_as)


def with_zone(moment: datetime | None) -> datetime | None:
    """Read a time without a zone as local time.

    Raises:
        WrongUse: the time is outside the range that the api accepts.
    """
    if moment is None:
        return None
    convertible = EARLIEST.year - 1 <= moment.year <= LATEST.year  # other years may overflow in another zone
    if not convertible or not EARLIEST <= (zoned := moment.astimezone()) < LATEST:
        raise WrongUse(f"{moment.date()} is out of range: --since and --until must be between 1970 and 2200")
    return zoned


@click.command("review")
@inspection_argument
@click.option("--verdict", type=click.Choice(["ok", "ng"]), required=True, help="Your verdict.")
@click.option("--reviewer", required=True, help="Your name.")
@click.option("--reason", required=True, help="The reason.")
@system_options
def review(
    inspection_id: str,
    verdict: Literal["ok", "ng"],
    reviewer: str,
    reason: str,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Overrule a verdict.

    The machine's verdict stays on record; yours is the effective one from now on. If the recipe asks for a second
    review, another person must agree first.
    """
    with client(url, api_key) as system:
        reviewed = system.review(inspection_id, verdict, reviewer=reviewer, reason=reason)
    if as_json:
        print_json(reviewed.document)
        return
    remark(f"Inspection {reviewed.id} is {reviewed.effective_verdict}; the machine's verdict was {reviewed.verdict}.")


def print_inspections(inspections: "Iterable[Inspection]", as_json: bool) -> None:
    """Print inspections as a table, or as one JSON object per line."""
    if as_json:
        for inspection in inspections:
            print_json(inspection.document)
        return
    print_table(
        ["image", "result", "score", "threshold", "part", "id"],
        [
            [
                inspection.external_id,
                result_of(inspection),
                score_of(inspection),
                _number(inspection.threshold),
                inspection.part_id,
                inspection.id,
            ]
            for inspection in inspections
        ],
        right=["score", "threshold"],
    )


def result_of(inspection: "Inspection") -> str:
    """Return the result of an inspection as text: its error code, its effective verdict, or its status."""
    if inspection.error is not None:
        return f"{inspection.status}: {inspection.error.code}"
    return inspection.effective_verdict or inspection.status


def score_of(inspection: "Inspection") -> str | None:
    """Return the score of an inspection as text."""
    return _number(inspection.anomaly_score)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"
