"""`linewatch holds`: keep a lot or a part, whatever the retention of its recipe says."""

from itertools import islice
from typing import TYPE_CHECKING, Literal

import click

from linewatch.cli.failures import WrongUse
from linewatch.cli.groups import group
from linewatch.cli.options import client, limit_option, system_options
from linewatch.cli.terminal import print_fields, print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.types.holds import LegalHold

_PAGE = 100

holds = group("holds", help="Legal holds: lots and parts of which nothing is removed.")

_hold_argument = click.argument("hold_id", metavar="ID", help="The hold's id, as listed.")


@holds.command("list")
@click.option("--state", type=click.Choice(["active", "released"]), help="Only this state. [all]")
@click.option("--lot", help="Only holds on this lot; with --part, on either.")
@click.option("--part", help="Only holds on this part.")
@limit_option
@system_options
def list_holds(
    state: Literal["active", "released"] | None,
    lot: str | None,
    part: str | None,
    limit: int,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """List holds, newest first. With --json, prints one JSON object per line."""
    with client(url, api_key) as system:
        holds = system.legal_holds(state=state, lot_id=lot, part_id=part, page_size=min(limit, _PAGE))
        listed = list(islice(holds, limit))
    if as_json:
        for hold in listed:
            print_json(hold.document)
        return
    print_table(
        ["set", "on", "state", "by", "reason", "id"],
        [
            [
                f"{hold.created_at.astimezone():%Y-%m-%d %H:%M}",
                _subject(hold),
                hold.state,
                hold.actor,
                hold.reason,
                hold.id,
            ]
            for hold in listed
        ],
    )


@holds.command("set")
@click.option("--lot", help="The lot to keep.")
@click.option("--part", help="The part to keep.")
@click.option("--reason", required=True, help="Why it has to be kept; it is recorded.")
@system_options
def set_hold(lot: str | None, part: str | None, reason: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Keep a lot or a part: its inspections, reviews and images, of all recipes, until the hold is released."""
    if (lot is None) == (part is None):
        raise WrongUse("name either --lot or --part")
    with client(url, api_key) as system:
        hold = system.set_legal_hold(lot_id=lot, part_id=part, reason=reason)
    _print(hold, as_json, f"Nothing of {_subject(hold)} is removed until hold {hold.id} is released.")


@holds.command()
@_hold_argument
@system_options
def show(hold_id: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one hold."""
    with client(url, api_key) as system:
        hold = system.legal_hold(hold_id)
    if as_json:
        print_json(hold.document)
        return
    print_fields({**hold.document, "state": hold.state})


@holds.command()
@_hold_argument
@click.option("--reason", required=True, help="Why it may go; it is recorded.")
@system_options
def release(hold_id: str, reason: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Release a hold. What it kept goes by the retention of its recipe, unless another hold keeps it."""
    with client(url, api_key) as system:
        hold = system.release_legal_hold(hold_id, reason=reason)
    _print(hold, as_json, f"The hold on {_subject(hold)} is released.")


def _print(hold: "LegalHold", as_json: bool, line: str) -> None:
    if as_json:
        print_json(hold.document)
        return
    remark(line)


def _subject(hold: "LegalHold") -> str:
    return f"part {hold.part_id}" if hold.lot_id is None else f"lot {hold.lot_id}"
