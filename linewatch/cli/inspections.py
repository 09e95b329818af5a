"""`linewatch show` and `linewatch list`: what became of pictures."""

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import print_json, print_table, results

if TYPE_CHECKING:
    from linewatch.results import Inspection

_PAGE = 100


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
    for name, value in found.model_dump(mode="json").items():
        if value not in (None, [], {}):
            results().print(f"{name:18} {value}", markup=False)


def list_inspections(
    recipe: Annotated[str | None, typer.Option("--recipe", "-r")] = None,
    lot: Annotated[str | None, typer.Option()] = None,
    part: Annotated[str | None, typer.Option()] = None,
    line: Annotated[str | None, typer.Option()] = None,
    station: Annotated[str | None, typer.Option()] = None,
    batch: Annotated[str | None, typer.Option(help="The id of a batch.")] = None,
    verdict: Annotated[Literal["ok", "ng", "review"] | None, typer.Option()] = None,
    state: Annotated[
        Literal["queued", "running", "completed", "failed", "cancelled"] | None, typer.Option("--status")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List inspections, newest first.

    With --json one a line.
    """
    with client(url, api_key) as system:
        matching = system.inspections(
            page_size=min(limit, _PAGE),
            recipe=recipe,
            lot_id=lot,
            part_id=part,
            line_id=line,
            station_id=station,
            batch_id=batch,
            verdict=verdict,
            status=state,
        )
        print_inspections(islice(matching, limit), as_json)


def print_inspections(inspections: "Iterable[Inspection]", as_json: bool) -> None:
    """Print inspections as a table, or as one JSON object a line."""
    if as_json:
        for one in inspections:
            print_json(one.model_dump(mode="json"))
        return
    print_table(
        ["picture", "result", "score", "threshold", "part", "id"],
        [
            [one.external_id, _result(one), _number(one.anomaly_score), _number(one.threshold), one.part_id, one.id]
            for one in inspections
        ],
        right=["score", "threshold"],
    )


def _result(one: "Inspection") -> str:
    if one.error is not None:
        return f"{one.status}: {one.error.code}"
    return one.effective_verdict or one.status


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"
