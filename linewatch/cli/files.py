"""Files that commands write: complete or not at all; `-` is standard output."""

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
        raise WrongUse(f"there is no folder {out.parent} to write to: make it or name another file")
    if out.is_dir():
        raise WrongUse(f"--out {out} is a folder: name a file")
    if out == _STANDARD_OUTPUT and as_json:
        raise WrongUse("--out - and --json both want standard output: leave one of them out")


def kind_of(out: Path, asked: Kind | None, suffixes: Mapping[str, Kind]) -> Kind:
    """The format of a file: as asked, else by its suffix, else the first of `suffixes`.

    Raises:
        WrongUse: the suffix contradicts `asked`.
    """
    said = suffixes.get(out.suffix.lower())
    if asked and said and asked != said:
        raise WrongUse(f"--format {asked} and --out {out.name} contradict each other: leave --format out")
    return asked or said or next(iter(suffixes.values()))


def write(out: Path, download: Callable[[Path], object], *, as_json: bool, **facts: Any) -> None:
    """Download to `out` and report it; in JSON together with `facts`."""
    if out == _STANDARD_OUTPUT:
        with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:  # complete or not at all
            whole = Path(folder, "whole")
            download(whole)
            with whole.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        return
    download(out)
    if as_json:
        print_json({"out": str(out), **facts, "bytes": out.stat().st_size})
        return
    remark(f"{out}: {out.stat().st_size} bytes")
