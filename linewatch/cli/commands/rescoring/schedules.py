"""`linewatch rescore schedules`: runs that start at set times."""

import datetime as dt
from typing import TYPE_CHECKING, Any, Literal

import click

from linewatch.cli.commands.rescoring.run_options import run_arguments, run_options
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.groups import group
from linewatch.cli.options import client, connection_options, recipe_option, system_options
from linewatch.cli.terminal import print_fields, print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.operations.rescore_schedules import ScheduleChanges
    from linewatch.types.schedules import RescoreSchedule

schedules = group("schedules", help="Runs that start at set times.")

_CRON = "When: minute, hour, day of the month, month, day of the week, as '30 22 * * 1-5'."

_schedule_argument = click.argument("name", metavar="NAME", help="The schedule's name or id.")


@schedules.command("create")
@click.argument("name", help="Its name.")
@recipe_option
@click.option("--cron", required=True, help=_CRON)
@click.option("--time-zone", default="UTC", help="The time zone of --cron and --window, by its IANA name.")
@click.option("--model", "version", type=click.IntRange(min=1), help="The model version that scores. [newest ready]")
@run_options
@system_options
def create(
    name: str,
    recipe: str,
    version: int | None,
    url: str,
    api_key: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Start runs at the times of a cron expression.

    A time is skipped if the run before has not ended.
    """
    arguments = run_arguments(**options)
    with client(url, api_key) as system:
        made = system.create_rescore_schedule(name, recipe, version, **arguments)
    _print_schedule(made, as_json)


@schedules.command("list")
@system_options
def list_schedules(url: str, api_key: str | None, as_json: bool) -> None:
    """List the schedules.

    With --json, one JSON object a line.
    """
    with client(url, api_key) as system:
        found = system.rescore_schedules()
    if as_json:
        for one in found:
            print_json(one.document)
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


@schedules.command()
@_schedule_argument
@system_options
def show(name: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one schedule."""
    with client(url, api_key) as system:
        fields = _find(system, name).document
    if as_json:
        print_json(fields)
        return
    print_fields(fields)


@schedules.command()
@_schedule_argument
@click.option("--cron", help=_CRON)
@click.option("--time-zone", help="The time zone of --cron, by its IANA name.")
@system_options
def change(name: str, cron: str | None, time_zone: str | None, url: str, api_key: str | None, as_json: bool) -> None:
    """Change the times of a schedule.

    The time zone also applies to the window of its runs. Everything else stays.
    """
    if cron is None and time_zone is None:
        raise WrongUse("name the change: --cron or --time-zone")
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


@schedules.command()
@_schedule_argument
@system_options
def enable(name: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Enable a schedule, from its next time on."""
    _set_state(name, "enabled", url, api_key, as_json)


@schedules.command()
@_schedule_argument
@system_options
def disable(name: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Disable a schedule. A run that it started goes on."""
    _set_state(name, "disabled", url, api_key, as_json)


@schedules.command()
@_schedule_argument
@connection_options
def remove(name: str, url: str, api_key: str | None) -> None:
    """Remove a schedule. Its runs stay."""
    with client(url, api_key) as system:
        found = _find(system, name)
        system.delete_rescore_schedule(found.id)
    remark(f"The schedule {found.name!r} is removed.")


def _find(system: "Client", name: str) -> "RescoreSchedule":
    """The schedule with this name or id.

    Raises:
        CommandFailed: it does not exist.
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
        print_json(one.document)
        return
    state = f"starts its next run at {_local(one.next_at)}, local time" if one.next_at else "is disabled"
    remark(f"The schedule {one.name!r} {state}.")


def _local(moment: dt.datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"
