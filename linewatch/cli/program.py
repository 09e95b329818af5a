"""The program: all commands and their exit codes."""

from collections.abc import Sequence
from pathlib import Path

import click

from linewatch.cli import failures
from linewatch.cli.groups import CommandGroup
from linewatch.cli.terminal import print_any_text


@click.pass_context
def _help(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _version(context: click.Context, _parameter: click.Parameter, requested: bool) -> None:
    if not requested or context.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"linewatch {version('linewatch-client')}")
    context.exit()


program = CommandGroup(
    "linewatch",
    help="Visual inspection for production lines: images in, scores and verdicts out, nothing lost.",
    callback=_help,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version and exit.",
        )
    ],
    invoke_without_command=True,
    context_settings={"show_default": True},
    imports={
        "up": "linewatch.server.commands.up:up",
        "doctor": "linewatch.server.commands.doctor:doctor",
        "support-bundle": "linewatch.server.commands.support_bundle:support_bundle",
        "migrate": "linewatch.server.commands.migrate:migrate",
        "move-store": "linewatch.server.commands.move_store:move_store",
        "backup": "linewatch.server.commands.backup:backup",
        "restore": "linewatch.server.commands.restore:restore",
        "train": "linewatch.server.commands.train:train",
        "calibrate": "linewatch.server.commands.calibrate:calibrate",
        "explain": "linewatch.server.commands.explain:explain",
        "recipes": "linewatch.cli.commands.recipes:recipes",
        "models": "linewatch.cli.commands.models:models",
        "submit": "linewatch.cli.commands.submit:submit",
        "watch": "linewatch.cli.commands.watch:watch",
        "status": "linewatch.cli.commands.status:status",
        "show": "linewatch.cli.commands.inspections:show",
        "list": "linewatch.cli.commands.inspections:list_inspections",
        "image": "linewatch.cli.commands.inspections:image",
        "export": "linewatch.cli.commands.inspections:export",
        "review": "linewatch.cli.commands.inspections:review",
        "part": "linewatch.cli.commands.parts:part",
        "results": "linewatch.cli.commands.results:results",
        "rescore": "linewatch.cli.commands.rescoring.runs:rescore",
        "webhooks": "linewatch.cli.commands.webhooks:webhooks",
        "holds": "linewatch.cli.commands.holds:holds",
        "keys": "linewatch.server.commands.keys:api_keys",
        "retention": "linewatch.server.commands.retention:retention",
    },
)


def run(arguments: Sequence[str]) -> int:
    """Run one command, like `linewatch.cli.run`, and return its exit code."""
    print_any_text()
    try:
        _refuse_non_utf8(arguments)
        with program.make_context("linewatch", list(arguments)) as context:
            program.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        failures.print_error(f"interrupted{_describe_leftovers(arguments)}")
        return failures.INTERRUPTED
    except Exception as error:
        failure = failures.explain(error)
        if failure is None:  # unexpected: show the traceback
            raise
        failures.print_error(failure.line)
        return failure.exit_code
    return 0


def _refuse_non_utf8(arguments: Sequence[str]) -> None:
    """Python decodes bytes that are not UTF-8 to lone surrogates, which JSON, HTTP and the database reject."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise failures.WrongUse(f"{argument.encode(errors='backslashreplace').decode()} is not UTF-8") from None


def _describe_leftovers(arguments: Sequence[str]) -> str:
    """Describe what continues after an interrupted command; empty if nothing does."""
    command = arguments[0] if arguments else ""
    if command == "rescore":
        return "; a run that was started continues (see `linewatch rescore list`)"
    if command == "watch":
        return "; the same command continues where it stopped"
    if command != "submit":
        return ""
    if any(Path(argument).is_dir() for argument in arguments[1:]):
        return "; the same command continues where it stopped"
    return "; images that were accepted will be scored (see `linewatch list`)"
