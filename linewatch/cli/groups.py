"""Groups of commands. Each command is imported when it is called or listed, so that none waits for the others."""

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
        """As click's, apart from `imports`: where each command is, by its name, as `module:attribute`."""
        super().__init__(*args, **{"no_args_is_help": False, **settings})
        self._imports = dict(imports or {})

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order in which help lists them."""
        return [*self._imports, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name; None for an unknown one."""
        place = self._imports.get(cmd_name)
        if place is None:
            return super().get_command(ctx, cmd_name)
        if place.startswith(_SERVER) and not server_is_installed():
            return _missing(cmd_name, place)
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


def _missing(name: str, place: str) -> click.Command:
    """Stands for a command of the server where only the client is installed; calling it says so."""
    return click.Command(
        name,
        callback=partial(server_part, place, f"`linewatch {name}`"),
        help="Needs the server: pip install linewatch",
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED, expose_value=False)],
        add_help_option=False,
        context_settings={"ignore_unknown_options": True},
    )


def group(name: str, help: str) -> CommandGroup:  # noqa: A002 - click's word
    """A group whose commands are registered with `@group.command()`."""
    return CommandGroup(name, help=help)
