"""Groups of commands. Each command is imported when it is called or listed, which keeps startup fast."""

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import click

from linewatch.cli.server_parts import server_is_installed, server_part

_SERVER = "linewatch.server."


class CommandGroup(click.Group):
    """A group that lists its commands in the order in which they were added, and imports them on demand."""

    def __init__(self, *args: Any, imports: Mapping[str, str] | None = None, **settings: Any) -> None:
        """Like `click.Group`; `imports` maps a command's name to its location, `module:attribute`."""
        super().__init__(*args, **{"no_args_is_help": False, **settings})
        self._imports = dict(imports or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order in which help lists them."""
        return [*self._imports, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command with a name, or None."""
        location = self._imports.get(cmd_name)
        if location is None:
            return super().get_command(ctx, cmd_name)
        if location.startswith(_SERVER) and not server_is_installed():
            return _missing(cmd_name, location)
        module, _, attribute = location.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


def _missing(name: str, location: str) -> click.Command:
    """Return a placeholder for a command of the server. Calling it fails, because only the client is installed."""
    return click.Command(
        name,
        callback=partial(server_part, location, f"`linewatch {name}`"),
        help="Needs the server: pip install linewatch",
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED, expose_value=False)],
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


def group(name: str, help: str) -> CommandGroup:  # noqa: A002 - click's name
    """Return a group whose commands are registered with `@group.command()`."""
    return CommandGroup(name, help=help)
