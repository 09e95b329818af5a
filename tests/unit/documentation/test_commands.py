"""The documentation, the deployments and the messages of the code name commands that exist, with options that exist."""

from pathlib import Path

import click
import pytest

from tests.fixtures.compose import ROOT
from tests.fixtures.named_commands import commands_in, parse

NOTES = ROOT / "deploy/helm/linewatch/templates/NOTES.txt"
FOLDERS = {"docs": ".md", "deploy": "", "api": ".py", "core": ".py", "linewatch": ".py", "worker": ".py"}
FILES = [ROOT / "README.md", ROOT / "docker-compose.yml"] + [
    path
    for folder, suffix in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob(f"*{suffix}"))
    if path.is_file() and path.suffix != ".pyc"
]
COMMANDS = {path: list(commands_in(path)) for path in FILES}


@pytest.mark.parametrize(
    "path", [path for path, found in COMMANDS.items() if found], ids=lambda path: str(path.relative_to(ROOT))
)
def test_named_commands_and_their_options_exist(path: Path) -> None:
    for command in COMMANDS[path]:
        parse(command)


def test_the_notes_of_the_chart_create_an_admin_key() -> None:
    assert COMMANDS[NOTES] == [["keys", "create", "admin", "--scope", "admin"]]


@pytest.mark.parametrize(
    "text", ["linewatch demo", "linewatch keys make", "linewatch keys create x --scopes admin", "linewatch up -q"]
)
def test_a_command_that_does_not_exist_is_found(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"`{text}` was enough.\n```sh\nkubectl exec api -- {text} \\\n  | tee file # a remark\n```\n")
    inline, block = commands_in(page)
    assert inline == block
    with pytest.raises(click.UsageError):
        parse(inline)
