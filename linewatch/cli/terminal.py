"""Print results to standard output, and progress and remarks to standard error."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from tqdm import tqdm


def print_any_text() -> None:
    """Escape characters that the streams cannot encode, such as names of files, instead of failing.

    Consoles of Windows and logs of services have encodings of their own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def remark(line: str) -> None:
    """Print a line that is not a result, above any progress bar."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


def progress_bar(title: str, total: int | None = None, *, done: int = 0) -> "tqdm[NoReturn]":
    """A progress bar on a terminal; prints nothing elsewhere. Use it in a `with` block."""
    from tqdm import tqdm

    bar: tqdm[NoReturn] = tqdm(
        desc=title,
        total=total,
        initial=done,
        file=sys.stderr,
        disable=not sys.stderr.isatty(),
        bar_format="{desc} {bar:40} {n_fmt}/{total_fmt} {elapsed} {postfix}",
    )
    return bar


def advance_to(bar: "tqdm[NoReturn]", done: int) -> None:
    """Set the progress of a bar."""
    bar.update(done - bar.n)


def print_json(value: Any) -> None:
    """Print a JSON value on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print an object to standard output, one field per line. Empty fields are omitted."""
    for name, value in fields.items():
        if value not in (None, "", [], {}):
            click.echo(f"{name:18} {value}")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table to standard output; None is shown as a dash.

    Args:
        right: the columns that are aligned to the right.
    """
    from tabulate import tabulate

    texts = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    alignment = ["right" if column in right else "left" for column in columns]
    click.echo(
        tabulate(
            texts, headers=list(columns), tablefmt="plain", colalign=alignment if texts else None, disable_numparse=True
        )
    )
