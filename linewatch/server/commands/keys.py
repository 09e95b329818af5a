"""`linewatch keys`: manage API keys. These commands access the database directly, not through the api."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.durations import parse_duration
from linewatch.cli.failures import WrongUse
from linewatch.cli.groups import group
from linewatch.cli.options import LATEST, data_directory_option, json_option
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from core.access.keys import Key

ACTOR = "command"

api_keys = group("keys", help="Manage API keys.")


@contextmanager
def _transaction(data: Path | None) -> "Iterator[Connection]":
    from core.database import create_pool
    from linewatch.server.commands.server_settings import settings_of

    engine = create_pool(settings_of(data), size=1, name="keys")
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _fields(key: "Key") -> dict[str, Any]:
    """Return the fields of a key as JSON, without the secret."""
    return {
        "prefix": key.prefix,
        "name": key.name,
        "scopes": key.scopes,
        "created_at": key.created_at.isoformat(),
        "expires_at": _iso(key.expires_at),
        "last_used_at": _iso(key.last_used_at),
        "revoked_at": _iso(key.revoked_at),
        "requests_per_minute": key.requests_per_minute,
    }


def _iso(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _parse_expiry(text: str | None) -> dt.datetime | None:
    """Return when a key expires, given as a duration such as `90d` or as an RFC 3339 time.

    Raises:
        WrongUse: the text is neither, or the time is not before 2200.
    """
    if text is None:
        return None
    duration = parse_duration(text)
    moment: dt.datetime | None = None
    if duration:
        moment = dt.datetime.now(dt.UTC) + duration
    else:
        with suppress(ValueError):
            moment = dt.datetime.fromisoformat(text)
    if moment is None or moment.tzinfo is None:
        raise WrongUse(f"--expires {text}: use a duration such as 90d or 12h, or a time such as 2027-01-31T00:00:00Z")
    if moment >= LATEST:
        raise WrongUse(
            f"--expires {text}: use a time before {LATEST:%Y}, or omit --expires for a key that never expires"
        )
    return moment


@api_keys.command("create")
@click.argument("name", default="unnamed", help="A name for the person or system that uses the key.")
@click.option(
    "--scope",
    type=click.Choice(["submit", "read", "admin"]),
    multiple=True,
    help="A scope of the key; may be repeated; admin includes the others. [submit and read]",
)
@click.option("--expires", help="When the key expires: a duration (90d, 12h) or a time (RFC 3339). [never]")
@click.option(
    "--rate",
    type=click.IntRange(min=1, max=1_000_000),
    help="The requests per minute that each api process allows. [no limit]",
)
@data_directory_option
@json_option
def create(
    name: str, scope: tuple[str, ...], expires: str | None, rate: int | None, data: Path | None, as_json: bool
) -> None:
    """Create a key and print it. It cannot be shown again."""
    from core.access import keys

    expires_at = _parse_expiry(expires)
    with _transaction(data) as connection:
        key, text = keys.create(
            connection,
            name,
            scope or ("submit", "read"),
            actor=ACTOR,
            expires_at=expires_at,
            requests_per_minute=rate,
        )
    if as_json:
        print_json({**_fields(key), "key": text})
        return
    click.echo(text)
    remark(f"This is the key {key.name!r} with {', '.join(key.scopes)} scope. Store it now: it is not shown again.")


@api_keys.command("list")
@data_directory_option
@json_option
def list_keys(data: Path | None, as_json: bool) -> None:
    """List the keys, without their secrets."""
    from core.access import keys

    with _transaction(data) as connection:
        rows = [_fields(key) for key in keys.list_all(connection)]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["prefix", "name", "scopes", "created", "expires", "last used", "per minute", "revoked"],
        [
            [
                row["prefix"],
                row["name"],
                ", ".join(row["scopes"]),
                *(row[column] and row[column][:16] for column in ("created_at", "expires_at", "last_used_at")),
                row["requests_per_minute"],
                row["revoked_at"] and row["revoked_at"][:16],
            ]
            for row in rows
        ],
    )


@api_keys.command()
@click.argument("prefix", help="The key's prefix, as listed, or the whole key.")
@data_directory_option
@json_option
def revoke(prefix: str, data: Path | None, as_json: bool) -> None:
    """Revoke a key. It stops working within seconds."""
    from core.access import keys

    with _transaction(data) as connection:
        key = keys.revoke(connection, _parse_prefix(prefix), actor=ACTOR)
    if as_json:
        print_json(_fields(key))
        return
    remark(f"The key {key.name!r} ({key.prefix}) is revoked.")


def _parse_prefix(text: str) -> str:
    return text.split("_")[1] if text.startswith("lw_") else text
