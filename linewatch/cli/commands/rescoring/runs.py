"""`linewatch rescore`: start, follow, pause and cancel re-scoring runs."""

from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import click

from linewatch.cli.commands.rescoring import activation, results, schedules
from linewatch.cli.commands.rescoring.run_lookup import find_run_id, print_run, progress_of, run_argument
from linewatch.cli.commands.rescoring.run_options import run_arguments, run_options
from linewatch.cli.failures import CommandFailed, Detached, WrongUse
from linewatch.cli.groups import CommandGroup
from linewatch.cli.options import client, limit_option, recipe_filter_option, system_options
from linewatch.cli.terminal import advance_to, print_json, print_table, progress_bar, remark

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.rescoring import RescoreRun

_PAGE = 100


@click.group("rescore", cls=CommandGroup, invoke_without_command=True)
@click.option("--recipe", "-r", help="The recipe.")
@click.option("--model", "version", type=click.IntRange(min=1), help="The model version that scores.")
@run_options
@click.option("--time-zone", help="The time zone of --window, by its IANA name. [UTC]")
@click.option("--detach", is_flag=True, help="Print the run's id and do not wait for its end.")
@system_options
@click.pass_context
def rescore(
    context: click.Context,
    /,
    recipe: str | None,
    version: int | None,
    detach: bool,
    url: str,
    api_key: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Score an archive again with a model version, and see what would change.

    Without a subcommand this starts a run and follows it until it ends; with --detach it only starts the run. Ctrl-C
    detaches, too. Exits with 1 if the run failed or was cancelled.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    if recipe is None or version is None:
        raise WrongUse("a run needs --recipe and --model (see `linewatch rescore --help`)")
    arguments = run_arguments(**options)
    with client(url, api_key) as system:
        run = system.rescore(recipe, version, **arguments)
        if not detach:
            _finish(_follow(system, run), as_json)
        elif as_json:
            print_run(run, as_json)
        else:
            click.echo(str(run.id))


def _refuse_options_before(context: click.Context) -> None:
    """Reject options before a subcommand, where they would have no effect."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise WrongUse(f"name options after `{context.invoked_subcommand}`, not before it")


def _follow(system: "Client", run: "RescoreRun") -> "RescoreRun":
    """Show the progress of a run until it ends.

    Raises:
        Detached: the user pressed Ctrl-C.
    """
    try:
        if not run.final:
            remark(f"Run {run.id}; Ctrl-C does not stop it, and `linewatch rescore attach {run.id}` follows it again.")
        with progress_bar(run.status) as bar:
            for snapshot in system.follow_run(run.id):
                bar.total = snapshot.counts["total"]
                bar.set_description_str(snapshot.status, refresh=False)
                bar.set_postfix_str(progress_of(snapshot), refresh=False)
                advance_to(bar, snapshot.progress.done)
                bar.refresh()
            return snapshot
    except KeyboardInterrupt:
        raise Detached(f"run {run.id} continues; `linewatch rescore attach {run.id}` follows it again") from None


def _finish(run: "RescoreRun", as_json: bool) -> None:
    """Print the counts of a run that has ended.

    Raises:
        CommandFailed: the run failed or was cancelled.
    """
    if as_json:
        print_run(run, as_json)
    else:
        names = ("completed", "failed", "ok", "ng", "review", "ok_to_ng", "ng_to_ok")
        columns = [name.replace("_to_", "→") for name in names]
        print_table(columns, [[run.counts[name] for name in names]], right=columns)
    if run.status == "failed":
        raise CommandFailed(f"run {run.id} failed: {run.reason}")
    if run.status == "cancelled":
        raise CommandFailed(f"run {run.id} was cancelled; its results so far are kept")
    remark(f"To see what would change: `linewatch rescore report {run.id} --out report.html`")


@rescore.command()
@run_argument
@system_options
def attach(run: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Follow a run until it ends. Exits with 1 if it failed or was cancelled."""
    with client(url, api_key) as system:
        _finish(_follow(system, system.rescore_run(find_run_id(system, run))), as_json)


@rescore.command("list")
@recipe_filter_option
@click.option(
    "--status",
    type=click.Choice(["queued", "running", "paused", "completed", "failed", "cancelled"]),
    help="Only this status.",
)
@limit_option
@system_options
def list_runs(
    recipe: str | None,
    status: Literal["queued", "running", "paused", "completed", "failed", "cancelled"] | None,
    limit: int,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """List runs, newest first, including challengers.

    With --json, prints one JSON object per line.
    """
    with client(url, api_key) as system:
        runs = list(islice(system.rescore_runs(recipe=recipe, status=status, page_size=min(limit, _PAGE)), limit))
    if as_json:
        for run in runs:
            print_json(run.document)
        return
    print_table(
        ["created", "recipe", "version", "status", "done", "of", "failed", "ok→ng", "ng→ok", "id"],
        [
            [
                f"{run.created_at.astimezone():%Y-%m-%d %H:%M}",
                run.recipe,
                run.model.version,
                f"{run.status} (challenger)" if run.kind == "challenger" else run.status,
                run.progress.done,
                *(run.counts[name] for name in ("total", "failed", "ok_to_ng", "ng_to_ok")),
                run.id,
            ]
            for run in runs
        ],
        right=["version", "done", "of", "failed", "ok→ng", "ng→ok"],
    )


@rescore.command()
@run_argument
@system_options
def show(run: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one run."""
    with client(url, api_key) as system:
        print_run(system.rescore_run(find_run_id(system, run)), as_json)


@rescore.command()
@run_argument
@system_options
def pause(run: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Pause a run. It stops after its current minibatch and keeps its results."""
    with client(url, api_key) as system:
        _print_run_as(system.pause_run(find_run_id(system, run)), as_json)


@rescore.command()
@run_argument
@system_options
def resume(run: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Resume a paused run where it stopped."""
    with client(url, api_key) as system:
        _print_run_as(system.resume_run(find_run_id(system, run)), as_json)


@rescore.command()
@run_argument
@system_options
def cancel(run: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Cancel a run. Its results so far are kept; it cannot be resumed."""
    with client(url, api_key) as system:
        _print_run_as(system.cancel_run(find_run_id(system, run)), as_json)


def _print_run_as(run: "RescoreRun", as_json: bool) -> None:
    if as_json:
        print_run(run, as_json)
        return
    remark(f"Run {run.id} is {run.status}; {run.progress.done} images have a result.")


for command in (
    results.list_results,
    results.flips,
    results.report,
    results.export,
    activation.activate,
    activation.rollback,
    schedules.schedules,
):
    rescore.add_command(command)
