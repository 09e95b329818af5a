"""`linewatch results`: print inspections as they become final, each once, from where you stopped."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from linewatch.cli.commands.inspections import result_of, score_of
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import FOLDER_OR_FILE, client, system_options
from linewatch.cli.terminal import print_json, remark

if TYPE_CHECKING:
    from linewatch.types.results import FeedItem

_COLUMNS = "{:19}  {:20}  {:>10}  {:20}  {:24}  {:36}  {}"
_HEADER = _COLUMNS.format("finished", "result", "score", "part", "image", "id", "cursor")


@click.command("results")
@click.option("--follow", "-f", is_flag=True, help="Keep printing new results until you interrupt it.")
@click.option("--after", metavar="CURSOR|now|oldest", help="Where to begin. [the saved cursor, or oldest]")
@click.option("--consumer", help="Save the cursor in the system, under this name.")
@click.option("--cursor-file", type=FOLDER_OR_FILE, help="Save the cursor in this file.")
@click.option("--recipe", "-r", help="Only this recipe.")
@click.option("--reviews", is_flag=True, help="Print an inspection again when it is reviewed.")
@system_options
def results(
    follow: bool,
    after: str | None,
    consumer: str | None,
    cursor_file: Path | None,
    recipe: str | None,
    reviews: bool,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Print inspections as they become final, each once, in an order that never changes.

    With --consumer or --cursor-file, the next call continues after the last printed result. With --follow, it waits
    while the system is down. With --json, prints one JSON object per line.
    """
    if cursor_file is not None and not cursor_file.parent.is_dir():
        raise WrongUse(
            f"the folder {cursor_file.parent} of the cursor file does not exist: create it or name another one"
        )
    with client(url, api_key, follows=follow) as system:
        read = partial(
            system.results, consumer=consumer, recipe=recipe, include_reviews=reviews, cursor_file=cursor_file
        )
        items = _followed(partial(read, follow=True), after) if follow else read(after)
        for number, item in enumerate(items):
            if as_json:
                print_json(item.document)
            else:
                sys.stdout.write(f"{_HEADER}\n{_line(item)}\n" if number == 0 else f"{_line(item)}\n")
            sys.stdout.flush()  # the next iteration acknowledges this item


def _followed(read: "Callable[[str | None], Iterator[FeedItem]]", after: str | None) -> "Iterator[FeedItem]":
    """Follow the feed without end. If the cursor is lost, print a remark and continue at the oldest kept result."""
    from linewatch.errors import CursorLost

    while True:
        try:
            yield from read(after)
        except CursorLost as lost:
            remark(f"Results may be missing here: {lost}; continuing with --after {lost.resume_after}")
            after = lost.resume_after


def _line(item: "FeedItem") -> str:
    finished = f"{item.finished_at.astimezone():%Y-%m-%d %H:%M:%S}" if item.finished_at else None
    reviewed = " (reviewed)" if item.feed_event == "reviewed" else ""
    cells = [finished, result_of(item) + reviewed, score_of(item), item.part_id, item.external_id, item.id, item.cursor]
    return _COLUMNS.format(*("–" if cell is None else str(cell) for cell in cells))
