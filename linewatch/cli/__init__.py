"""The `linewatch` command. What is heavy is imported inside the commands, so that `linewatch --help` is quick."""

import sys
from collections.abc import Sequence

import typer
from typer.main import get_command

from linewatch.cli import (
    calibrate,
    doctor,
    explain,
    failures,
    feed,
    inspections,
    keys,
    migrate,
    models,
    parts,
    status,
    submit,
    train,
    up,
    webhooks,
)

app = typer.Typer(
    name="linewatch",
    help="Visual inspection for production lines: images in, scores and verdicts out, nothing lost.",
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(up.up)
app.command()(doctor.doctor)
app.command()(migrate.migrate)
app.command()(train.train)
app.command()(calibrate.calibrate)
app.command()(explain.explain)
app.add_typer(models.app, name="models")
app.command()(submit.submit)
app.command()(status.status)
app.command()(inspections.show)
app.command("list")(inspections.list_inspections)
app.command()(inspections.export)
app.command()(inspections.review)
app.command()(parts.part)
app.command()(feed.results)
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(keys.app, name="keys")


def run(arguments: Sequence[str]) -> int:
    """Run one command: 0 done, 1 the work failed, 2 wrong use, 130 interrupted. A failure is one line on stderr."""
    try:
        result = get_command(app).main(list(arguments), prog_name="linewatch", standalone_mode=False)
    except Exception as error:
        failure = failures.explain(error)
        if failure is None:  # not foreseen: a defect, whose traceback is wanted
            raise
        failures.tell(failure.line)
        return failure.exit_code
    code = result if isinstance(result, int) else 0
    if code == failures.INTERRUPTED:
        failures.tell("interrupted; what had been accepted goes on (see `linewatch list`)")
    return code


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))
