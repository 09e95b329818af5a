"""What a person sees: results on standard output, progress and remarks on standard error."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
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


def progress(*details: str) -> Progress:
    """A progress bar; silent unless on a terminal. `details` are formats of what else is shown of a `task`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *(TextColumn(one, markup=False) for one in details),
        console=remarks(),
        disable=not sys.stderr.isatty(),
    )


def print_json(value: Any) -> None:
    """One JSON value on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def print_fields(fields: Mapping[str, Any]) -> None:
    """One thing on standard output, a field a line; what is empty is left out."""
    for name, value in fields.items():
        if value not in (None, [], {}):
            results().print(f"{name:18} {value}", markup=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table on standard output; None is shown as a dash."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("–" if cell is None else str(cell) for cell in row))
    results().print(table)
