"""`linewatch retention`: what the policies of the recipes remove, and how much that frees."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.options import data_directory_option, json_option
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from core.retention.removals import Removal, Scope
    from core.settings import Settings
    from core.storage.image_store import Store


@click.command("retention")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed now.")
@data_directory_option
@json_option
def retention(dry_run: bool, data: Path | None, as_json: bool) -> None:
    """Remove what the retention of the recipes lets go, without waiting for housekeeping.

    Housekeeping removes the same in the background, at most for a minute out of ten. Prints the number of images,
    inspections, re-scoring runs and bundles by recipe, and the bytes that this frees on disks.
    """
    from core.database import create_unbounded
    from linewatch.server.commands.server_settings import settings_of

    settings = settings_of(data)
    engine = create_unbounded(settings, name="retention")
    try:
        removals = _removals(settings, engine, dry_run=dry_run)
        names = _names(engine)
    finally:
        engine.dispose()
    rows = [
        {"recipe": names.get(one.recipe_id or 0), "kind": one.kind, "number": one.number, "bytes": one.bytes}
        for one in removals
    ]
    total = sum(one.bytes for one in removals)
    if as_json:
        print_json({"dry_run": dry_run, "removed": rows, "bytes": total})
        return
    _print(rows, total, dry_run=dry_run)


def _removals(settings: "Settings", engine: "Engine", *, dry_run: bool) -> "list[Removal]":
    from core.retention import rounds
    from core.retention.removals import Scope
    from core.storage.stores import open_store

    scope = Scope(engine, dt.datetime.now(dt.UTC).date(), settings.feed_days)
    store = open_store(settings)
    if dry_run:
        return rounds.totals(rounds.plan(scope, store))
    return rounds.totals(_all_removals(scope, store))


def _all_removals(scope: "Scope", store: "Store") -> "Iterator[Removal]":
    """Remove what has ended, in as many rounds as it takes: one removes a limited number of inspections."""
    from core.retention import rounds

    has_removed = True
    while has_removed:
        has_removed = False
        for one in (one for step in rounds.steps(scope, store) for one in step):
            has_removed |= one.kind == "inspections"
            yield one


def _names(engine: "Engine") -> dict[int, str]:
    from core.models import recipes

    with engine.begin() as connection:
        return {recipe.id: recipe.name for recipe in recipes.list_all(connection)}


def _print(rows: list[dict[str, Any]], total: int, *, dry_run: bool) -> None:
    if not rows:
        remark("Nothing has to be removed now.")
        return
    print_table(
        ["recipe", "kind", "number", "bytes"],
        [[row["recipe"] or "(no inspection)", row["kind"], row["number"], row["bytes"]] for row in rows],
    )
    remark(f"{'This would free' if dry_run else 'This has freed'} {total / 1e6:,.1f} MB.")
