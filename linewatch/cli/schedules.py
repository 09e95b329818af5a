"""`linewatch rescore schedules`: runs that are made again and again."""

import datetime as dt
import math
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from linewatch.cli import where
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Recipe, Url, client
from linewatch.cli.terminal import print_fields, print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.schedules import RescoreSchedule

app = typer.Typer(help="Runs that are made again and again.")

Chosen = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name, or its id.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    recipe: Recipe,
    cron: Annotated[
        str,
        typer.Option(
            "--cron", help="When: minute, hour, day of the month, month, day of the week, as '30 22 * * 1-5'."
        ),
    ],
    time_zone: Annotated[str, typer.Option("--time-zone", help="Whose clock it goes by, also for --window.")] = "UTC",
    version: Annotated[
        int | None, typer.Option("--model", min=1, help="The model version that scores. [the newest that is ready]")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All stored inspections of the recipe.")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="KEY=VALUE", help="Stored inspections, as max_age=24h; may be repeated."),
    ] = None,
    folder: Annotated[
        str | None, typer.Option("--folder", help="A folder or an s3:// prefix of pictures, as the server sees it.")
    ] = None,
    manifest: Annotated[
        str | None, typer.Option("--manifest", help="A JSON lines or CSV file that names pictures, likewise.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="Judge with it, not with the version's.")] = None,
    window: Annotated[str | None, typer.Option(help="The hours in which its runs may run, as 22:00-05:00.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let runs be made at the times of a cron expression.

    None is made while the one before has not ended.
    """
    source = where.source(everything, filters, folder, manifest)
    if threshold is not None and not math.isfinite(threshold):
        raise WrongUse(f"--threshold {threshold}: a threshold is a number")
    with client(url, api_key) as system:
        made = system.create_rescore_schedule(
            name, recipe, version, cron=cron, time_zone=time_zone, threshold=threshold, window=window, **source
        )
    _tell(made, as_json)


@app.command("list")
def list_schedules(url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the schedules.

    With --json one a line.
    """
    with client(url, api_key) as system:
        found = system.rescore_schedules()
    if as_json:
        for one in found:
            print_json(one.model_dump(mode="json"))
        return
    print_table(
        ["name", "recipe", "version", "cron", "zone", "next", "last", "outcome"],
        [
            [
                one.name,
                one.run["recipe"],
                one.run.get("model_version") or "newest",
                one.cron,
                one.time_zone,
                _local(one.next_at) or one.state,
                one.last and _local(one.last.at),
                one.last and one.last.outcome,
            ]
            for one in found
        ],
    )


@app.command()
def show(name: Chosen, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show one schedule."""
    with client(url, api_key) as system:
        fields = _find(system, name).model_dump(mode="json")
    if as_json:
        print_json(fields)
        return
    print_fields(fields)


@app.command()
def enable(name: Chosen, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let a schedule go on, with its next time."""
    _set_state(name, "enabled", url, api_key, as_json)


@app.command()
def disable(name: Chosen, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let a schedule rest. A run that it has made goes on."""
    _set_state(name, "disabled", url, api_key, as_json)


@app.command()
def remove(name: Chosen, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """Remove a schedule. The runs that it made stay."""
    with client(url, api_key) as system:
        found = _find(system, name)
        system.delete_rescore_schedule(found.id)
    remark(f"The schedule {found.name!r} is removed.")


def _find(system: "Client", name: str) -> "RescoreSchedule":
    """The schedule that is meant by a name or an id.

    Raises:
        CommandFailed: there is none.
    """
    for one in system.rescore_schedules():
        if name in (one.name, str(one.id)):
            return one
    raise CommandFailed(f"there is no schedule {name!r} (see `linewatch rescore schedules list`)")


def _set_state(name: str, state: Literal["enabled", "disabled"], url: str, api_key: str | None, as_json: bool) -> None:
    with client(url, api_key) as system:
        _tell(system.change_rescore_schedule(_find(system, name).id, state=state), as_json)


def _tell(one: "RescoreSchedule", as_json: bool) -> None:
    if as_json:
        print_json(one.model_dump(mode="json"))
        return
    comes = f"comes next at {_local(one.next_at)}, local time" if one.next_at else "is disabled"
    remark(f"The schedule {one.name!r} {comes}.")


def _local(moment: dt.datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"
