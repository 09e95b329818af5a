"""`linewatch rescore`: score an archive again, follow that, and read what would change."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from linewatch.cli import rescore_actions, where
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import Notes, print_json, print_table, progress, remark, results

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.rescoring import RescoreResult
    from linewatch.results import RescoreRun

_PAGE = 100
_LAST = "last"

app = typer.Typer(help="Score an archive again with another model version or threshold, and see what would change.")

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or last for the newest.")]
Limit = Annotated[int, typer.Option(min=1, help="How many at most.")]
Verdict = Literal["ok", "ng", "review"]


@app.callback(invoke_without_command=True)
def rescore(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="What is inspected.")] = None,
    model: Annotated[int | None, typer.Option("--model", min=1, help="The model version that scores.")] = None,
    conditions: where.WhereOption = None,
    everything: where.AllOption = False,
    folder: where.FolderOption = None,
    manifest: where.ManifestOption = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="Instead of that of the version.")] = None,
    review_threshold: Annotated[float | None, typer.Option("--review-threshold", help="With --threshold.")] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Run the network also where this version has scored before.")
    ] = False,
    window: Annotated[str | None, typer.Option("--window", help="The hours in which it may run: 22:00-05:00.")] = None,
    time_zone: Annotated[str, typer.Option("--time-zone", help="Of the window, such as Europe/Berlin.")] = "UTC",
    max_failure_rate: Annotated[
        float, typer.Option("--max-failure-rate", min=0, max=1, help="It is aborted above this share of failures.")
    ] = 0.1,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's id and return.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Score an archive again and follow that to its end; Ctrl-C leaves the run to itself.

    1 if the run fails or is cancelled.
    """
    if context.invoked_subcommand is not None:
        return
    if recipe is None or model is None:
        raise WrongUse("name what scores: --recipe NAME and --model VERSION")
    source = where.source(conditions, _seen_from_here(folder), _seen_from_here(manifest), everything)
    with client(url, api_key) as system:
        run = system.rescore(
            recipe,
            model,
            **source,
            threshold=threshold,
            review_threshold=review_threshold,
            recompute=recompute,
            window=window,
            time_zone=time_zone,
            max_failure_rate=max_failure_rate,
        )
        if not detach:
            remark(f"Run {run.id} is made.")
    if detach:
        print_json(run.model_dump(mode="json")) if as_json else typer.echo(run.id)
        return
    _follow(str(run.id), url, api_key, as_json)


def _seen_from_here(place: str | None) -> str | None:
    """A relative path as an absolute one; URLs stay."""
    return place if place is None or place.startswith("s3://") else str(Path(place).absolute())


def _id(system: "Client", run: str) -> str:
    """The id that was named; refuses `last` where there is no run."""
    if run != _LAST:
        return run
    newest = next(system.rescore_runs(page_size=1), None)
    if newest is None:
        raise CommandFailed("there is no run yet: start one with `linewatch rescore --recipe … --model … --all`")
    return str(newest.id)


def _follow(run: str, url: str, api_key: str | None, as_json: bool) -> None:
    with client(url, api_key, follows=True) as system, progress(Notes()) as bar:
        run_id = _id(system, run)
        line = bar.add_task("re-scoring", total=None, notes="")
        for now in system.follow_rescore_run(run_id):
            bar.update(
                line, description=now.status, total=now.counts["total"], completed=now.progress.done, notes=_notes(now)
            )
    _tell_outcome(now, as_json)


def _notes(run: "RescoreRun") -> str:
    left = run.progress.seconds_left
    said = [f"{run.progress.rate:.1f}/s"] if run.status == "running" else []
    said += [f"{_duration(left)} left"] if left is not None else []
    said += [f"{run.counts['failed']} failed"] if run.counts["failed"] else []
    return ", ".join([*said, _flips(run)])


def _flips(run: "RescoreRun") -> str:
    return f"{run.counts['ok_to_ng']} ok→ng, {run.counts['ng_to_ok']} ng→ok"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _tell_outcome(run: "RescoreRun", as_json: bool) -> None:
    """What became of a run that has ended."""
    if as_json:
        print_json(run.model_dump(mode="json"))
    else:
        counts = ", ".join(f"{run.counts[name]} {name}" for name in ("ok", "ng", "review", "failed"))
        results().print(f"{run.progress.done} pictures: {counts}; {_flips(run)}", markup=False)
        remark(f"What would change: linewatch rescore report {run.id} --format html --out report.html")
    if run.status != "completed":
        raise CommandFailed(f"run {run.id} {_ended(run)}")


def _ended(run: "RescoreRun") -> str:
    return "was cancelled" if run.status == "cancelled" else f"failed: {run.reason}"


@app.command()
def attach(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Follow a run to its end; Ctrl-C leaves it to itself.

    1 if it fails or is cancelled.
    """
    _follow(run, url, api_key, as_json)


@app.command("list")
def list_runs(
    recipe: Annotated[str | None, typer.Option("--recipe", "-r")] = None,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first.

    With --json one a line.
    """
    with client(url, api_key) as system:
        found = list(islice(system.rescore_runs(recipe=recipe, page_size=min(limit, _PAGE)), limit))
    if as_json:
        for one in found:
            print_json(one.model_dump(mode="json"))
        return
    print_table(
        ["made", "recipe", "model", "state", "done", "total", "ok→ng", "ng→ok", "id"],
        [
            [
                f"{one.created_at.astimezone():%Y-%m-%d %H:%M}",
                one.recipe,
                one.model.version,
                one.status,
                one.progress.done,
                *(one.counts[name] for name in ("total", "ok_to_ng", "ng_to_ok")),
                one.id,
            ]
            for one in found
        ],
        right=["model", "done", "total", "ok→ng", "ng→ok"],
    )


def _tell(run: "RescoreRun", as_json: bool) -> None:
    if as_json:
        print_json(run.model_dump(mode="json"))
        return
    for name, value in run.model_dump(mode="json").items():
        if value not in (None, [], {}):
            results().print(f"{name:18} {value}", markup=False)


@app.command()
def show(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show one run."""
    with client(url, api_key) as system:
        _tell(system.rescore_run(_id(system, run)), as_json)


def _turned(run: "RescoreRun", as_json: bool) -> None:
    if as_json:
        print_json(run.model_dump(mode="json"))
        return
    remark(f"Run {run.id} is {run.status}, {run.progress.done} pictures done.")


@app.command()
def pause(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let a run rest; what is scored stays."""
    with client(url, api_key) as system:
        _turned(system.pause_run(_id(system, run)), as_json)


@app.command()
def resume(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Let a paused run go on where it was."""
    with client(url, api_key) as system:
        _turned(system.resume_run(_id(system, run)), as_json)


@app.command()
def cancel(run: RunId, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """End a run for good; what is scored stays."""
    with client(url, api_key) as system:
        _turned(system.cancel_run(_id(system, run)), as_json)


@app.command("results")
def list_results(
    run: RunId,
    verdict: Annotated[Verdict | None, typer.Option("--verdict", help="The new one.")] = None,
    before: Annotated[Verdict | None, typer.Option("--before", help="The recorded one.")] = None,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the pictures of a run, in the order of its source.

    With --json one a line.
    """
    with client(url, api_key) as system:
        found = system.rescore_results(
            _id(system, run), verdict=verdict, before_verdict=before, page_size=min(limit, _PAGE)
        )
        _print_results(islice(found, limit), as_json)


@app.command()
def flips(
    run: RunId,
    before: Annotated[Verdict | None, typer.Option("--from", help="Only from this verdict.")] = None,
    after: Annotated[Verdict | None, typer.Option("--to", help="Only to this one.")] = None,
    limit: Limit = 20,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List the pictures of a run whose verdict would change.

    With --json one a line.
    """
    with client(url, api_key) as system:
        found = system.rescore_flips(_id(system, run), before=before, after=after, page_size=min(limit, _PAGE))
        _print_results(islice(found, limit), as_json)


def _print_results(found: "Iterable[RescoreResult]", as_json: bool) -> None:
    if as_json:
        for one in found:
            print_json(one.model_dump(mode="json"))
        return
    print_table(
        ["number", "picture", "before", "after", "score", "threshold", "reviewed"],
        [
            [
                one.number,
                one.path or one.external_id or one.inspection_id,
                one.before.verdict if one.before else None,
                one.error.code if one.error else one.verdict,
                _decimal(one.anomaly_score),
                _decimal(one.threshold),
                one.reviewed_verdict,
            ]
            for one in found
        ],
        right=["number", "score", "threshold"],
    )


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.6f}"


Out = Annotated[Path | None, typer.Option("--out", help="The file, there once it is whole.")]


def _checked(out: Path) -> Path:
    if not out.parent.is_dir():
        raise WrongUse(f"there is no folder {out.parent} to write to: make it or name another file")
    if out.is_dir():
        raise WrongUse(f"--out {out} is a folder: name a file")
    return out


@app.command()
def report(
    run: RunId,
    kind: Annotated[Literal["json", "html"], typer.Option("--format", help="html is a page to mail.")] = "json",
    out: Out = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Get the report of a run: what would change, as JSON or as one HTML page."""
    if kind == "json":
        with client(url, api_key) as system:
            found: Any = system.rescore_report(_id(system, run))
        if out is None:
            print_json(found)
            return
        import json

        _checked(out).write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")
    else:
        if out is None:
            raise WrongUse("--format html needs a file: --out report.html")
        with client(url, api_key) as system:
            system.download_rescore_report(_id(system, run), _checked(out))
    _written(out, kind, as_json)


@app.command()
def export(
    run: RunId,
    out: Annotated[Path, typer.Option("--out", help="The file, there once it is whole.")],
    kind: Annotated[Literal["csv", "parquet"], typer.Option("--format", help="What it is written as.")] = "csv",
    flips_only: Annotated[bool, typer.Option("--flips", help="Only what would change.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Write the results of a run to a file, one picture a row."""
    with client(url, api_key) as system:
        system.export_rescore_run(_id(system, run), _checked(out), format=kind, flips=flips_only)
    _written(out, kind, as_json)


def _written(out: Path, kind: str, as_json: bool) -> None:
    if as_json:
        print_json({"out": str(out), "format": kind, "bytes": out.stat().st_size})
        return
    remark(f"{out}: {out.stat().st_size} bytes")


app.command()(rescore_actions.activate)
app.command()(rescore_actions.rollback)
