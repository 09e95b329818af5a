"""`linewatch results`: inspections as they become final, each once, from wherever a reader has got to."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linewatch.cli.commands.inspections import result_of, score_of
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Url, client
from linewatch.cli.terminal import print_json, remark

if TYPE_CHECKING:
    from linewatch.types.results import FeedItem

_COLUMNS = "{:19}  {:20}  {:>10}  {:20}  {:24}  {:36}  {}"
_HEADER = _COLUMNS.format("finished", "result", "score", "part", "image", "id", "cursor")


def results(
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on for ever with what comes.")] = False,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="CURSOR|now|oldest", help="Where to begin. [a kept place, or oldest]"),
    ] = None,
    consumer: Annotated[
        str | None, typer.Option("--consumer", help="The system keeps the place under this name.")
    ] = None,
    cursor_file: Annotated[
        Path | None, typer.Option("--cursor-file", help="The place is kept in this file, which is made.")
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", "-r", help="Only inspections of it.")] = None,
    reviews: Annotated[bool, typer.Option("--reviews", help="An inspection comes again when it is reviewed.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Print inspections as they become final, each once, in an order that never changes.

    Where the place is kept, the next call goes on there: a page counts once it was printed. With --json one a line.
    With --follow it waits for a system that is away until it is back.
    """
    if cursor_file is not None and not cursor_file.parent.is_dir():
        raise WrongUse(f"there is no folder {cursor_file.parent} for the cursor file: make it or name another one")
    with client(url, api_key, follows=follow) as system:
        read = partial(
            system.results, consumer=consumer, recipe=recipe, include_reviews=reviews, cursor_file=cursor_file
        )
        items = _followed(partial(read, follow=True), after) if follow else read(after)
        for number, one in enumerate(items):
            if as_json:
                print_json(one.model_dump(mode="json"))
            else:
                sys.stdout.write(f"{_HEADER}\n{_line(one)}\n" if number == 0 else f"{_line(one)}\n")
            sys.stdout.flush()  # it counts as printed once the next one is asked for


def _followed(read: "Callable[[str | None], Iterator[FeedItem]]", after: str | None) -> "Iterator[FeedItem]":
    """Follow the feed for ever. If the cursor is lost, say so and continue with what is still known."""
    from linewatch.errors import CursorLost

    while True:
        try:
            yield from read(after)
        except CursorLost as lost:
            remark(f"Results may be missing here: {lost}; it goes on with --after {lost.resume_after}")
            after = lost.resume_after


def _line(one: "FeedItem") -> str:
    finished = f"{one.finished_at.astimezone():%Y-%m-%d %H:%M:%S}" if one.finished_at else None
    reviewed = " (reviewed)" if one.feed_event == "reviewed" else ""
    cells = [finished, result_of(one) + reviewed, score_of(one), one.part_id, one.external_id, one.id, one.cursor]
    return _COLUMNS.format(*("–" if cell is None else str(cell) for cell in cells))
