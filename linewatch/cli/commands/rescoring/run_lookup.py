"""Find a re-scoring run by its id or `last`, and describe it."""

from typing import TYPE_CHECKING, Annotated

import typer

from linewatch.cli.failures import CommandFailed
from linewatch.cli.terminal import print_fields, print_json

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.rescoring import RescoreRun

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id; `last` is the newest over an archive.")]

_LAST = "last"


def find_run_id(system: "Client", run: str) -> str:
    """The id of the run that is meant.

    Raises:
        CommandFailed: the last is meant, and there is none.
    """
    if run != _LAST:
        return run
    newest = next((one for one in system.rescore_runs(page_size=20) if one.kind == "archive"), None)
    if newest is None:
        raise CommandFailed("there is no run yet: `linewatch rescore --help` says how to start one")
    return str(newest.id)


def print_run(run: "RescoreRun", as_json: bool) -> None:
    """A run with all that is known of it."""
    fields = run.model_dump(mode="json")
    if as_json:
        print_json(fields)
        return
    print_fields(fields)


def progress_of(run: "RescoreRun") -> str:
    """How fast a run goes, when it ends, and what it has found."""
    said = [f"{run.progress.rate:.1f}/s"] if run.status == "running" else []
    if run.progress.seconds_left is not None:
        said.append(f"{format_seconds(run.progress.seconds_left)} left")
    if run.window and run.status in ("queued", "running") and not run.progress.rate:
        said.append(f"runs {run.window} {run.time_zone}")
    if run.counts["failed"]:
        said.append(f"{run.counts['failed']} failed")
    return ", ".join([*said, f"{run.counts['ok_to_ng']} ok→ng", f"{run.counts['ng_to_ok']} ng→ok"])


def format_seconds(seconds: float) -> str:
    """A time to come, as exactly as it can be known."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
