"""`linewatch show`, `list`, `export` and `review`: what became of images, and what a person says of it."""

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from linewatch.cli.failures import WrongUse
from linewatch.cli.files import Out, check, kind_of, write
from linewatch.cli.options import DEFAULT_URL, EARLIEST, LATEST, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import print_fields, print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.client import Filters
    from linewatch.types.results import Inspection

_PAGE = 100
_Kind = Literal["csv", "parquet"]
_SUFFIXES: dict[str, _Kind] = {".csv": "csv", ".parquet": "parquet"}


def show(
    inspection_id: Annotated[str, typer.Argument(metavar="ID", help="The inspection's id.")],
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the result.")] = 0,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one inspection."""
    with client(url, api_key) as system:
        found = system.inspection(inspection_id, wait=wait)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_fields(found.model_dump(mode="json"))


# What a listing and an export may be narrowed to
Recipe = Annotated[str | None, typer.Option("--recipe", "-r")]
Lot = Annotated[str | None, typer.Option("--lot")]
Part = Annotated[str | None, typer.Option("--part")]
Line = Annotated[str | None, typer.Option("--line")]
Station = Annotated[str | None, typer.Option("--station")]
Batch = Annotated[str | None, typer.Option("--batch", help="The id of a batch.")]
Verdict = Annotated[Literal["ok", "ng", "review"] | None, typer.Option("--verdict", help="The machine's.")]
EffectiveVerdict = Annotated[
    Literal["ok", "ng", "review"] | None,
    typer.Option("--effective-verdict", help="The one that counts; review waits for a person."),
]
Status = Annotated[Literal["queued", "running", "completed", "failed", "cancelled"] | None, typer.Option("--status")]
_MOMENTS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
Since = Annotated[
    datetime | None,
    typer.Option("--since", formats=_MOMENTS, help="Accepted then or later; local time without a zone."),
]
Until = Annotated[datetime | None, typer.Option("--until", formats=_MOMENTS, help="Accepted before.")]


def list_inspections(
    recipe: Recipe = None,
    lot: Lot = None,
    part: Part = None,
    line: Line = None,
    station: Station = None,
    batch: Batch = None,
    verdict: Verdict = None,
    effective_verdict: EffectiveVerdict = None,
    state: Status = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List inspections, newest first.

    With --json one a line.
    """
    filters: Filters = {"recipe": recipe, "lot_id": lot, "part_id": part, "line_id": line, "station_id": station}
    filters |= {"batch_id": batch, "verdict": verdict, "effective_verdict": effective_verdict, "status": state}
    filters |= {"since": _zoned(since), "until": _zoned(until)}
    with client(url, api_key) as system:
        matching = system.inspections(page_size=min(limit, _PAGE), **filters)
        print_inspections(islice(matching, limit), as_json)


def export(
    out: Out,
    kind: Annotated[
        _Kind | None, typer.Option("--format", help="What it is written as. [as the file's name ends, or csv]")
    ] = None,
    recipe: Recipe = None,
    lot: Lot = None,
    part: Part = None,
    line: Line = None,
    station: Station = None,
    batch: Batch = None,
    verdict: Verdict = None,
    effective_verdict: EffectiveVerdict = None,
    state: Status = None,
    since: Since = None,
    until: Until = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Write inspections to a file, newest first, one a row.

    The options narrow it down as those of `linewatch list` do.
    """
    check(out, as_json)
    written_as = kind_of(out, kind, _SUFFIXES)
    filters: Filters = {"recipe": recipe, "lot_id": lot, "part_id": part, "line_id": line, "station_id": station}
    filters |= {"batch_id": batch, "verdict": verdict, "effective_verdict": effective_verdict, "status": state}
    filters |= {"since": _zoned(since), "until": _zoned(until)}
    with client(url, api_key) as system:
        download = partial(system.export, format=written_as, **filters)
        write(out, download, as_json=as_json, format=written_as)


def _zoned(moment: datetime | None) -> datetime | None:
    """A moment that was given without a zone is this machine's local time.

    Raises:
        WrongUse: it does not lie in our time.
    """
    if moment is None:
        return None
    near = EARLIEST.year - 1 <= moment.year <= LATEST.year  # others may have no equal in another zone
    if not near or not EARLIEST <= (zoned := moment.astimezone()) < LATEST:
        raise WrongUse(f"{moment.date()} is out of reach: --since and --until lie between 1970 and 2200")
    return zoned


def review(
    inspection_id: Annotated[str, typer.Argument(metavar="ID", help="The inspection's id.")],
    verdict: Annotated[Literal["ok", "ng"], typer.Option("--verdict", help="What a person found.")],
    reviewer: Annotated[str, typer.Option("--reviewer", help="Your name.")],
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Overrule a verdict.

    The machine's stays on record; the person's is the effective one from now on.
    """
    with client(url, api_key) as system:
        reviewed = system.review(inspection_id, verdict, reviewer=reviewer, reason=reason)
    if as_json:
        print_json(reviewed.model_dump(mode="json"))
        return
    remark(f"Inspection {reviewed.id} is {reviewed.effective_verdict}; the machine found {reviewed.verdict}.")


def print_inspections(inspections: "Iterable[Inspection]", as_json: bool) -> None:
    """Print inspections as a table, or as one JSON object a line."""
    if as_json:
        for one in inspections:
            print_json(one.model_dump(mode="json"))
        return
    print_table(
        ["image", "result", "score", "threshold", "part", "id"],
        [
            [one.external_id, result_of(one), score_of(one), _number(one.threshold), one.part_id, one.id]
            for one in inspections
        ],
        right=["score", "threshold"],
    )


def result_of(one: "Inspection") -> str:
    """What became of an image, in a word: why it failed, the verdict that counts, or where it is."""
    if one.error is not None:
        return f"{one.status}: {one.error.code}"
    return one.effective_verdict or one.status


def score_of(one: "Inspection") -> str | None:
    """Its score, for people."""
    return _number(one.anomaly_score)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"
