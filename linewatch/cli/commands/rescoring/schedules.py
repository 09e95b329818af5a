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

_CRON = "The times: minute, hour, day of the month, month, day of the week, such as '30 22 * * 1-5'."

_schedule_argument = click.argument("name", metavar="NAME", help="The schedule's name or id.")


@schedules.command("create")
@click.argument("name", help="The schedule's name.")
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

    A time is skipped if the previous run has not ended.
    """
    arguments = run_arguments(**options)
    with client(url, api_key) as system:
        schedule = system.create_rescore_schedule(name, recipe, version, **arguments)
    _print_schedule(schedule, as_json)


@schedules.command("list")
@system_options
def list_schedules(url: str, api_key: str | None, as_json: bool) -> None:
    """List the schedules.

    With --json, prints one JSON object per line.
    """
    with client(url, api_key) as system:
        listed = system.rescore_schedules()
    if as_json:
        for schedule in listed:
            print_json(schedule.document)
        return
    print_table(
        ["name", "recipe", "version", "cron", "zone", "next", "last", "outcome"],
        [
            [
                schedule.name,
                schedule.run["recipe"],
                schedule.run.get("model_version") or "newest",
                schedule.cron,
                schedule.time_zone,
                _local(schedule.next_at) or schedule.state,
                schedule.last and _local(schedule.last.at),
                schedule.last and schedule.last.outcome,
            ]
            for schedule in listed
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

    The time zone also applies to the window of its runs. Everything else stays as it is.
    """
    if cron is None and time_zone is None:
        raise WrongUse("name the change: --cron or --time-zone")
    changes: ScheduleChanges = {}
    with client(url, api_key) as system:
        schedule = _find(system, name)
        if cron is not None:
            changes["cron"] = cron
        if time_zone is not None:
            changes["time_zone"] = time_zone
            if "time_zone" in schedule.run:
                changes["run"] = {**schedule.run, "time_zone": time_zone}
        _print_schedule(system.change_rescore_schedule(schedule.id, **changes), as_json)


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
    """Disable a schedule. A run that it started continues."""
    _set_state(name, "disabled", url, api_key, as_json)


@schedules.command()
@_schedule_argument
@connection_options
def remove(name: str, url: str, api_key: str | None) -> None:
    """Remove a schedule. Its runs stay."""
    with client(url, api_key) as system:
        schedule = _find(system, name)
        system.delete_rescore_schedule(schedule.id)
    remark(f"The schedule {schedule.name!r} is removed.")


def _find(system: "Client", name: str) -> "RescoreSchedule":
    """Return the schedule with this name or id.

    Raises:
        CommandFailed: there is no such schedule.
    """
    for schedule in system.rescore_schedules():
        if name in (schedule.name, str(schedule.id)):
            return schedule
    raise CommandFailed(f"there is no schedule {name!r} (see `linewatch rescore schedules list`)")


def _set_state(name: str, state: Literal["enabled", "disabled"], url: str, api_key: str | None, as_json: bool) -> None:
    with client(url, api_key) as system:
        _print_schedule(system.change_rescore_schedule(_find(system, name).id, state=state), as_json)


def _print_schedule(schedule: "RescoreSchedule", as_json: bool) -> None:
    if as_json:
        print_json(schedule.document)
        return
    state = "is disabled"
    if schedule.next_at:
        state = f"starts its next run at {_local(schedule.next_at)}, local time"
    remark(f"The schedule {schedule.name!r} {state}.")


def _local(moment: dt.datetime | None) -> str | None:
    return None if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M}"
