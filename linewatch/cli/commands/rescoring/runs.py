"""`linewatch rescore`: an archive scored again, followed, and steered."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from linewatch.cli.commands.rescoring import activation, schedules, source_options
from linewatch.cli.commands.rescoring import results as result_commands
from linewatch.cli.commands.rescoring.run_lookup import RunId, find_run_id, print_run, progress_of
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
from linewatch.cli.failures import CommandFailed, Detached, WrongUse
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import print_json, print_table, progress, remark, results

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.rescoring import RescoreRun

_PAGE = 100

app = typer.Typer(help="Score archives again, and see what would change.")


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="What is inspected.")] = None,
    version: Annotated[int | None, typer.Option("--model", min=1, help="The model version that scores.")] = None,
    everything: Everything = False,
    filters: Filters = None,
    folder: Folder = None,
    manifest: Manifest = None,
    threshold: Threshold = None,
    review_threshold: ReviewThreshold = None,
    recompute: Recompute = False,
    window: Window = None,
    time_zone: Annotated[str | None, typer.Option(help="Of the window, by its IANA name. [UTC]")] = None,
    max_failure_rate: MaxFailureRate = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's id and do not wait for its end.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Score an archive again with a model version, and see what would change.

    The run is followed until its end, unless it is detached; Ctrl-C detaches, too. Without a subcommand this starts a
    run. 1 if it failed or was cancelled.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    if recipe is None or version is None:
        raise WrongUse("a run needs --recipe and --model (see `linewatch rescore --help`)")
    require_numbers(threshold=threshold, review_threshold=review_threshold)
    with client(url, api_key) as system:
        run = system.rescore(
            recipe,
            version,
            **source_options.source(everything, filters, folder, manifest),
            threshold=threshold,
            review_threshold=review_threshold,
            recompute=recompute,
            window=window,
            time_zone=time_zone,
            max_failure_rate=max_failure_rate,
        )
        if detach:
            if as_json:
                print_run(run, as_json)
                return
            results().print(str(run.id))
            return
        _finish(_follow(system, run), as_json)


def _refuse_options_before(context: typer.Context) -> None:
    """Options of a run that stand before a subcommand would be lost."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise WrongUse(f"name options after `{context.invoked_subcommand}`, not before it")


def _follow(system: "Client", run: "RescoreRun") -> "RescoreRun":
    """Show the progress of a run until its end.

    Raises:
        Detached: a person has interrupted it.
    """
    try:
        if not run.final:
            remark(f"Run {run.id}; Ctrl-C leaves it alone, and `linewatch rescore attach {run.id}` follows it again.")
        with progress("{task.fields[told]}") as bar:
            task = bar.add_task(run.status, total=None, told="")
            for now in system.follow_run(run.id):
                bar.update(
                    task,
                    description=now.status,
                    completed=now.progress.done,
                    total=now.counts["total"],
                    told=progress_of(now),
                )
            return now
    except KeyboardInterrupt:
        raise Detached(f"run {run.id} goes on; `linewatch rescore attach {run.id}` follows it again") from None


def _finish(run: "RescoreRun", as_json: bool) -> None:
    """Print what a run came to.

    Raises:
        CommandFailed: it failed, or was cancelled.
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
        raise CommandFailed(f"run {run.id} was cancelled; results that were there are kept")
    remark(f"What would change: `linewatch rescore report {run.id} --out report.html`")


@app.command()
def attach(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Follow a run until its end. 1 if it failed or was cancelled."""
    with client(url, api_key) as system:
        _finish(_follow(system, system.rescore_run(find_run_id(system, run))), as_json)


@app.command("list")
def list_runs(
    recipe: Annotated[str | None, typer.Option("--recipe", "-r")] = None,
    status: Annotated[
        Literal["queued", "running", "paused", "completed", "failed", "cancelled"] | None, typer.Option("--status")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first, challengers among them.

    With --json one a line.
    """
    with client(url, api_key) as system:
        found = list(islice(system.rescore_runs(recipe=recipe, status=status, page_size=min(limit, _PAGE)), limit))
    if as_json:
        for one in found:
            print_json(one.model_dump(mode="json"))
        return
    print_table(
        ["made", "recipe", "version", "status", "done", "of", "failed", "ok→ng", "ng→ok", "id"],
        [
            [
                f"{one.created_at.astimezone():%Y-%m-%d %H:%M}",
                one.recipe,
                one.model.version,
                f"{one.status} (challenger)" if one.kind == "challenger" else one.status,
                one.progress.done,
                *(one.counts[name] for name in ("total", "failed", "ok_to_ng", "ng_to_ok")),
                one.id,
            ]
            for one in found
        ],
        right=["version", "done", "of", "failed", "ok→ng", "ng→ok"],
    )


@app.command()
def show(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show one run."""
    with client(url, api_key) as system:
        print_run(system.rescore_run(find_run_id(system, run)), as_json)


@app.command()
def pause(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Pause a run: it stops at its next minibatch and keeps what it has scored."""
    with client(url, api_key) as system:
        _print_run_as(system.pause_run(find_run_id(system, run)), as_json)


@app.command()
def resume(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let a paused run go on where it stopped."""
    with client(url, api_key) as system:
        _print_run_as(system.resume_run(find_run_id(system, run)), as_json)


@app.command()
def cancel(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """End a run before it is done; its results stay, and it cannot be resumed."""
    with client(url, api_key) as system:
        _print_run_as(system.cancel_run(find_run_id(system, run)), as_json)


def _print_run_as(run: "RescoreRun", as_json: bool) -> None:
    if as_json:
        print_run(run, as_json)
        return
    remark(f"Run {run.id} is {run.status}; {run.progress.done} images have their result.")


app.command("results")(result_commands.results_of_run)
app.command()(result_commands.flips)
app.command()(result_commands.report)
app.command()(result_commands.export)
app.command()(activation.activate)
app.command()(activation.rollback)
app.add_typer(schedules.app, name="schedules")
