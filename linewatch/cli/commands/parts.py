"""`linewatch part`: what all the views of one part say together."""

from typing import Annotated

import typer

from linewatch.cli.commands.inspections import result_of, score_of
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import print_json, print_table, results


def part(
    part_id: Annotated[str, typer.Argument(metavar="PART_ID", help="The part's id.")],
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="Only what this recipe inspected.")] = None,
    lot: Annotated[str | None, typer.Option("--lot", help="Only what was of this lot.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one part: its verdict, and the newest inspection of each of its views."""
    with client(url, api_key) as system:
        found = system.part(part_id, recipe=recipe, lot_id=lot)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    results().print(f"{found.part_id} is {found.effective_verdict or found.status}", markup=False)
    print_table(
        ["view", "recipe", "result", "score", "id"],
        [
            [one.view, one.recipe, result_of(one.inspection), score_of(one.inspection), one.inspection.id]
            for one in found.views
        ],
        right=["score"],
    )
