"""What commands write to a file: whole or not at all, and `-` is standard output."""

import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from linewatch.cli.failures import WrongUse
from linewatch.cli.terminal import print_json, remark

Out = Annotated[Path, typer.Option("--out", help="The file, there once it is whole; - is standard output.")]

Kind = TypeVar("Kind", bound=str)

_STANDARD_OUTPUT = Path("-")


def check(out: Path, as_json: bool) -> None:
    """Look before the work is done whether its result can be written.

    Raises:
        WrongUse: it cannot.
    """
    if not out.parent.is_dir():
        raise WrongUse(f"there is no folder {out.parent} to write to: make it or name another file")
    if out.is_dir():
        raise WrongUse(f"--out {out} is a folder: name a file")
    if out == _STANDARD_OUTPUT and as_json:
        raise WrongUse("--out - and --json both want standard output: leave one of them out")


def kind_of(out: Path, asked: Kind | None, suffixes: Mapping[str, Kind]) -> Kind:
    """What a file is to be written as: as asked, else as its name ends, else the first of them.

    Raises:
        WrongUse: its name says something else than what was asked for.
    """
    said = suffixes.get(out.suffix.lower())
    if asked and said and asked != said:
        raise WrongUse(f"--format {asked} and --out {out.name} contradict each other: leave --format out")
    return asked or said or next(iter(suffixes.values()))


def write(out: Path, download: Callable[[Path], object], *, as_json: bool, **told: Any) -> None:
    """Have `out` written, and say so; in JSON with what else is `told`."""
    if out == _STANDARD_OUTPUT:
        with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:  # whole, or nothing of it
            whole = Path(folder, "whole")
            download(whole)
            with whole.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        return
    download(out)
    if as_json:
        print_json({"out": str(out), **told, "bytes": out.stat().st_size})
        return
    remark(f"{out}: {out.stat().st_size} bytes")
