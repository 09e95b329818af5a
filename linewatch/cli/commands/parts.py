"""`linewatch part`: show the combined verdict of all views of a part."""

import click

from linewatch.cli.commands.inspections import result_of, score_of
from linewatch.cli.options import client, system_options
from linewatch.cli.terminal import print_json, print_table


@click.command("part")
@click.argument("part_id", metavar="PART_ID", help="The part's id.")
@click.option("--recipe", "-r", help="Only inspections of this recipe.")
@click.option("--lot", help="Only inspections of this lot.")
@system_options
def part(part_id: str, recipe: str | None, lot: str | None, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one part: its verdict, and the newest inspection of each of its views."""
    with client(url, api_key) as system:
        result = system.part(part_id, recipe=recipe, lot_id=lot)
    if as_json:
        print_json(result.document)
        return
    click.echo(f"{result.part_id} is {result.effective_verdict or result.status}")
    print_table(
        ["view", "recipe", "result", "score", "id"],
        [
            [view.view, view.recipe, result_of(view.inspection), score_of(view.inspection), view.inspection.id]
            for view in result.views
        ],
        right=["score"],
    )
