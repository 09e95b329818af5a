"""What a person sees: results on standard output, progress and remarks on standard error."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

_WIDTH_WITHOUT_TERMINAL = 240  # characters, so that nothing is cut in a pipe


def results() -> Console:
    """Where results go."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)


def remarks() -> Console:
    """Where everything goes that is no result."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def remark(line: str) -> None:
    """Tell a person something that is no result."""
    remarks().print(line, markup=False)


class Notes(TextColumn):
    """What else is said beside a bar: the field `notes` of its task."""

    def __init__(self) -> None:
        super().__init__("{task.fields[notes]}", markup=False)


def progress(*more: ProgressColumn) -> Progress:
    """A progress bar, with columns of its own at its end; silent where nobody looks on."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *more,
        console=remarks(),
        disable=not sys.stderr.isatty(),
    )


def print_json(value: Any) -> None:
    """One JSON value on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table on standard output; None is shown as a dash."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    results().print(table)
