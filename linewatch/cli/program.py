"""All commands. What is heavy is imported inside them, so that `linewatch --help` is quick."""

from collections.abc import Sequence
from pathlib import Path

import typer
from typer.main import get_command

from linewatch.cli import failures
from linewatch.cli.commands import inspections, models, parts, results, status, submit, webhooks
from linewatch.cli.commands.rescoring import runs
from linewatch.server.commands import calibrate, doctor, explain, keys, migrate, train, up

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
app.command()(results.results)
app.add_typer(runs.app, name="rescore")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(keys.app, name="keys")


def run(arguments: Sequence[str]) -> int:
    """As `linewatch.cli.run`, apart from an interrupt that comes between two commands."""
    try:
        _refuse_what_is_no_text(arguments)
        result = get_command(app).main(list(arguments), prog_name="linewatch", standalone_mode=False)
    except Exception as error:
        failure = failures.explain(error)
        if failure is None:  # not foreseen: a defect, whose traceback is wanted
            raise
        failures.print_error(failure.line)
        return failure.exit_code
    code = result if isinstance(result, int) else 0
    if code == failures.INTERRUPTED:
        failures.print_error(f"interrupted{_what_is_left(arguments)}")
    return code


def _refuse_what_is_no_text(arguments: Sequence[str]) -> None:
    """Bytes that are not UTF-8 come as lone surrogates, which neither JSON, nor HTTP, nor the database take."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise failures.WrongUse(f"{argument.encode(errors='backslashreplace').decode()} is not UTF-8") from None


def _what_is_left(arguments: Sequence[str]) -> str:
    """What becomes of the work of a command that was interrupted, as far as that needs saying."""
    command = arguments[0] if arguments else ""
    if command == "rescore":
        return "; a run that had been made goes on (see `linewatch rescore list`)"
    if command != "submit":
        return ""
    if any(Path(one).is_dir() for one in arguments[1:]):
        return "; the same command goes on where it was"
    return "; what had been accepted goes on (see `linewatch list`)"
