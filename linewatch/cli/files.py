"""Write files, complete or not at all; `-` is standard output."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from linewatch.cli.failures import WrongUse
from linewatch.cli.options import FOLDER_OR_FILE
from linewatch.cli.terminal import print_json, remark

out_option = click.option(
    "--out", type=FOLDER_OR_FILE, required=True, help="The file, created once it is complete; - is standard output."
)

Kind = TypeVar("Kind", bound=str)

_STANDARD_OUTPUT = Path("-")


def check(out: Path, as_json: bool) -> None:
    """Check that the result can be written, before the work is done.

    Raises:
        WrongUse: it cannot be written.
    """
    if not out.parent.is_dir():
        raise WrongUse(f"the folder {out.parent} does not exist: create it or name another file")
    if out.is_dir():
        raise WrongUse(f"--out {out} is a folder: name a file")
    if out == _STANDARD_OUTPUT and as_json:
        raise WrongUse("--out - and --json both write to standard output: use only one of them")


def kind_of(out: Path, requested: Kind | None, suffixes: Mapping[str, Kind]) -> Kind:
    """Return the format of a file: as requested, else by its suffix, else the first of `suffixes`.

    Raises:
        WrongUse: the suffix contradicts `requested`.
    """
    by_suffix = suffixes.get(out.suffix.lower())
    if requested and by_suffix and requested != by_suffix:
        raise WrongUse(f"--format {requested} and --out {out.name} contradict each other: omit --format")
    return requested or by_suffix or next(iter(suffixes.values()))


def replace_with(path: Path, content: bytes) -> None:
    """Write a file, which appears once it is complete."""
    draft = path.with_name(f"{path.name}.part")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write(out: Path, download: Callable[[Path], object], *, as_json: bool, **fields: Any) -> None:
    """Download to `out` and print a report; in JSON it includes `fields`."""
    if out == _STANDARD_OUTPUT:
        with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:  # complete or not at all
            complete = Path(folder, "complete")
            download(complete)
            with complete.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        return
    download(out)
    if as_json:
        print_json({"out": str(out), **fields, "bytes": out.stat().st_size})
        return
    remark(f"{out}: {out.stat().st_size} bytes")
