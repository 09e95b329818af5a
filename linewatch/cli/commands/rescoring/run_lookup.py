"""Find a re-scoring run by its id or `last`, and describe it."""

from typing import TYPE_CHECKING

import click

from linewatch.cli.failures import CommandFailed
from linewatch.cli.terminal import print_fields, print_json

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.rescoring import RescoreRun

run_argument = click.argument("run", metavar="RUN", help="The run's id; `last` is the newest run over an archive.")

_LAST = "last"


def find_run_id(system: "Client", run: str) -> str:
    """Return the id of a run.

    Raises:
        CommandFailed: `run` is `last` and there is no run.
    """
    if run != _LAST:
        return run
    newest = next((known for known in system.rescore_runs(page_size=20) if known.kind == "archive"), None)
    if newest is None:
        raise CommandFailed("there is no run yet: see `linewatch rescore --help` to start one")
    return str(newest.id)


def print_run(run: "RescoreRun", as_json: bool) -> None:
    """Print a run with all of its fields."""
    fields = run.document
    if as_json:
        print_json(fields)
        return
    print_fields(fields)


def progress_of(run: "RescoreRun") -> str:
    """Describe a run's rate, remaining time and flips."""
    facts = [f"{run.progress.rate:.1f}/s"] if run.status == "running" else []
    if run.progress.seconds_left is not None:
        facts.append(f"{format_seconds(run.progress.seconds_left)} left")
    if run.window and run.status in ("queued", "running") and not run.progress.rate:
        facts.append(f"runs {run.window} {run.time_zone}")
    if run.counts["failed"]:
        facts.append(f"{run.counts['failed']} failed")
    return ", ".join([*facts, f"{run.counts['ok_to_ng']} ok→ng", f"{run.counts['ng_to_ok']} ng→ok"])


def format_seconds(seconds: float) -> str:
    """Format a remaining time, rounded like an estimate."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
