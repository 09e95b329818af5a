"""`linewatch rescore schedules`: runs that are made again and again."""

import datetime as dt
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from linewatch.cli.commands.rescoring import source_options
from linewatch.cli.commands.rescoring.run_options import (
    Everything,
    Filters,
    Folder,
    Manifest,
    MaxFailureRate,
    Recompute,
    ReviewThreshold,
    Threshold,
    Window,
    require_numbers,
)
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Recipe, Url, client
from linewatch.cli.terminal import print_fields, print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.operations.rescore_schedules import ScheduleChanges
    from linewatch.types.schedules import RescoreSchedule

app = typer.Typer(help="Runs that are made again and again.")

_CRON = "When: minute, hour, day of the month, month, day of the week, as '30 22 * * 1-5'."

Chosen = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name, or its id.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")],
    recipe: Recipe,
    cron: Annotated[str, typer.Option("--cron", help=_CRON)],
    time_zone: Annotated[str, typer.Option("--time-zone", help="Whose clock it goes by, also for --window.")] = "UTC",
    version: Annotated[
        int | None, typer.Option("--model", min=1, help="The model version that scores. [the newest that is ready]")
    ] = None,
    everything: Everything = False,
    filters: Filters = None,
    folder: Folder = None,
    manifest: Manifest = None,
    threshold: Threshold = None,
    review_threshold: ReviewThreshold = None,
    recompute: Recompute = False,
    window: Window = None,
    max_failure_rate: MaxFailureRate = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let runs be made at the times of a cron expression.

    None is made while the one before has not ended.
    """
    source = source_options.source(everything, filters, folder, manifest)
    require_numbers(threshold=threshold, review_threshold=review_threshold)
    with client(url, api_key) as system:
        made = system.create_rescore_schedule(
            name,
            recipe,
            version,
            cron=cron,
            time_zone=time_zone,
            threshold=threshold,
            review_threshold=review_threshold,
            recompute=recompute,
            window=window,
            max_failure_rate=max_failure_rate,
            **source,
        )
    _print_schedule(made, as_json)


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
def change(
    name: Chosen,
    cron: Annotated[str | None, typer.Option("--cron", help=_CRON)] = None,
    time_zone: Annotated[str | None, typer.Option("--time-zone", help="Whose clock it goes by.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let a schedule go by other times.

    The time zone is that of its runs' window, too. What else its runs are asked for with stays.
    """
    if cron is None and time_zone is None:
        raise WrongUse("name what changes, --cron or --time-zone")
    changes: ScheduleChanges = {}
    with client(url, api_key) as system:
        found = _find(system, name)
        if cron is not None:
            changes["cron"] = cron
        if time_zone is not None:
            changes["time_zone"] = time_zone
            if "time_zone" in found.run:
                changes["run"] = {**found.run, "time_zone": time_zone}
        _print_schedule(system.change_rescore_schedule(found.id, **changes), as_json)


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
        _print_schedule(system.change_rescore_schedule(_find(system, name).id, state=state), as_json)


def _print_schedule(one: "RescoreSchedule", as_json: bool) -> None:
    if as_json:
        print_json(one.model_dump(mode="json"))
        return
    comes = f"comes next at {_local(one.next_at)}, local time" if one.next_at else "is disabled"
    remark(f"The schedule {one.name!r} {comes}.")


def _local(moment: dt.datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"
