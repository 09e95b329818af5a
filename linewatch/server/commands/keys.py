"""`linewatch keys`: manage API keys. These commands work on the database, not through the api."""

import datetime as dt
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.failures import WrongUse
from linewatch.cli.groups import group
from linewatch.cli.options import LATEST, data_directory_option, json_option
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from core.access.keys import Key

ACTOR = "command"

api_keys = group("keys", help="API keys.")


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


def _shown(key: "Key") -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "scopes": key.scopes,
        "created_at": key.created_at.isoformat(),
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(key.last_used_at),
        "revoked_at": _time(key.revoked_at),
        "requests_per_minute": key.requests_per_minute,
    }


def _time(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


_DURATION = re.compile(r"([1-9]\d{0,4})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _moment(text: str | None) -> dt.datetime | None:
    """When a key expires: after a duration such as `90d`, or at a moment of RFC 3339.

    Raises:
        WrongUse: it is neither, or not before 2200.
    """
    if text is None:
        return None
    duration = _DURATION.fullmatch(text)
    moment: dt.datetime | None = None
    if duration:
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(**{_UNITS[duration[2]]: int(duration[1])})
    else:
        with suppress(ValueError):
            moment = dt.datetime.fromisoformat(text)
    if moment is None or moment.tzinfo is None:
        raise WrongUse(
            f"--expires {text}: give a duration such as 90d or 12h, or a moment such as 2027-01-31T00:00:00Z"
        )
    if moment >= LATEST:
        raise WrongUse(f"--expires {text}: give a moment before {LATEST:%Y}, or leave it out for a key without end")
    return moment


@api_keys.command("create")
@click.argument("name", default="unnamed", help="Who or what will use it.")
@click.option(
    "--scope",
    type=click.Choice(["submit", "read", "admin"]),
    multiple=True,
    help="What it allows; may be repeated; admin allows everything. [submit and read]",
)
@click.option("--expires", help="When it expires: after a duration (90d, 12h) or at a time (RFC 3339). [never]")
@click.option(
    "--rate",
    type=click.IntRange(min=1, max=1_000_000),
    help="Requests a minute that each api process allows it. [no limit]",
)
@data_directory_option
@json_option
def create(
    name: str, scope: tuple[str, ...], expires: str | None, rate: int | None, data: Path | None, as_json: bool
) -> None:
    """Create a key. It is printed once and cannot be shown again."""
    from core.access import keys

    expires_at = _moment(expires)
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
        print_json({**_shown(key), "key": text})
        return
    click.echo(text)
    remark(f"This is the key {key.name!r}, for {', '.join(key.scopes)}. Keep it: it is not shown again.")


@api_keys.command("list")
@data_directory_option
@json_option
def list_keys(data: Path | None, as_json: bool) -> None:
    """List the keys, without their secrets."""
    from core.access import keys

    with _transaction(data) as connection:
        shown = [_shown(key) for key in keys.list_all(connection)]
    if as_json:
        print_json(shown)
        return
    print_table(
        ["prefix", "name", "scopes", "created", "expires", "last used", "a minute", "revoked"],
        [
            [
                one["prefix"],
                one["name"],
                ", ".join(one["scopes"]),
                *(one[column] and one[column][:16] for column in ("created_at", "expires_at", "last_used_at")),
                one["requests_per_minute"],
                one["revoked_at"] and one["revoked_at"][:16],
            ]
            for one in shown
        ],
    )


@api_keys.command()
@click.argument("prefix", help="The key's prefix, as listed, or the whole key.")
@data_directory_option
@json_option
def revoke(prefix: str, data: Path | None, as_json: bool) -> None:
    """Revoke a key; it stops working within seconds."""
    from core.access import keys

    with _transaction(data) as connection:
        key = keys.revoke(connection, _prefix(prefix), actor=ACTOR)
    if as_json:
        print_json(_shown(key))
        return
    remark(f"The key {key.name!r} ({key.prefix}) is revoked.")


def _prefix(text: str) -> str:
    return text.split("_")[1] if text.startswith("lw_") else text
