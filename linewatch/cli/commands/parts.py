"""`linewatch part`: what all the views of one part say together."""

import click

from linewatch.cli.commands.inspections import result_of, score_of
from linewatch.cli.options import client, system_options
from linewatch.cli.terminal import print_json, print_table


@click.command("part")
@click.argument("part_id", metavar="PART_ID", help="The part's id.")
@click.option("--recipe", "-r", help="Only what this recipe inspected.")
@click.option("--lot", help="Only inspections of this lot.")
@system_options
def part(part_id: str, recipe: str | None, lot: str | None, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one part: its verdict, and the newest inspection of each of its views."""
    with client(url, api_key) as system:
        found = system.part(part_id, recipe=recipe, lot_id=lot)
    if as_json:
        print_json(found.document)
        return
    click.echo(f"{found.part_id} is {found.effective_verdict or found.status}")
    print_table(
        ["view", "recipe", "result", "score", "id"],
        [
            [one.view, one.recipe, result_of(one.inspection), score_of(one.inspection), one.inspection.id]
            for one in found.views
        ],
        right=["score"],
    )
