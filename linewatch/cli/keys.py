"""`linewatch keys`: who may use the api. They work on the database, not through the api."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linewatch.cli.options import AsJson, DataDirectory
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from core.keys import Key

ACTOR = "command"

app = typer.Typer(help="API keys.")


class Scope(StrEnum):
    """What a key allows; admin allows everything."""

    SUBMIT = "submit"
    READ = "read"
    ADMIN = "admin"


@contextmanager
def _transaction(data: Path | None) -> "Iterator[Connection]":
    from core.database import create_pool
    from linewatch.cli.servers import settings_of

    engine = create_pool(settings_of(data), size=1, name="keys")
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _shown(key: "Key") -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "scopes": key.scopes,
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")] = "unnamed",
    scope: Annotated[
        list[Scope] | None,
        typer.Option(help="What it allows; may be repeated. [submit and read]"),
    ] = None,
    data: DataDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is printed once and cannot be had again."""
    from core import keys

    with _transaction(data) as connection:
        key, text = keys.create(connection, name, scope or [Scope.SUBMIT, Scope.READ], actor=ACTOR)
    if as_json:
        print_json({**_shown(key), "key": text})
        return
    typer.echo(text)
    remark(f"This is the key {name!r}, for {', '.join(key.scopes)}. Keep it: it is not shown again.")


@app.command("list")
def list_keys(data: DataDirectory = None, as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    from core import keys

    with _transaction(data) as connection:
        shown = [_shown(key) for key in keys.list_all(connection)]
    if as_json:
        print_json(shown)
        return
    print_table(
        ["prefix", "name", "scopes", "created", "revoked"],
        [[one["prefix"], one["name"], ", ".join(one["scopes"]), one["created_at"], one["revoked_at"]] for one in shown],
    )


@app.command()
def revoke(
    prefix: Annotated[str, typer.Argument(help="The key's prefix, as listed, or the whole key.")],
    data: DataDirectory = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key; within seconds it is refused."""
    from core import keys

    with _transaction(data) as connection:
        key = keys.revoke(connection, _prefix(prefix), actor=ACTOR)
    if as_json:
        print_json(_shown(key))
        return
    remark(f"The key {key.name!r} ({key.prefix}) is revoked.")


def _prefix(text: str) -> str:
    return text.split("_")[1] if text.startswith("lw_") else text
