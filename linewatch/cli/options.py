"""Options that several commands share, and the client that they describe."""

import datetime as dt
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from linewatch.cli.terminal import remark

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.errors import LinewatchError

EARLIEST, LATEST = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (1970, 2200))
"""Moments lie between them, as the api has it."""
_SILENT = 1.0  # seconds of waiting before it is mentioned

Url = Annotated[str, typer.Option("--url", envvar="LINEWATCH_URL", help="The running system.")]
DEFAULT_URL = "http://127.0.0.1:8000"
ApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="LINEWATCH_API_KEY", help="lw_…, where the system asks for one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else there.")]
Recipe = Annotated[str, typer.Option("--recipe", "-r", help="What is inspected.")]
Version = Annotated[int | None, typer.Option("--version", min=1, help="A model version; the active one by default.")]
Data = Annotated[Path, typer.Option("--data", help="A folder of images.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="What computes.")]
FalseRejectRate = Annotated[
    float | None,
    typer.Option("--false-reject-rate", min=0, max=1, help="The share of good parts that may be rejected. [0.05]"),
]
Activate = Annotated[bool, typer.Option("--activate", help="Let the version score once it is ready.")]
DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data", help="The data directory of a `linewatch up`, where LINEWATCH_DATABASE_URL names no server."
    ),
]


def client(url: str, api_key: str | None, *, follows: bool = False) -> "Client":
    """A client of the running system; use it in a `with` block. Long waits are printed as remarks."""
    from linewatch.client import Client

    return Client(url, api_key=api_key, on_wait=WaitNotice(follows=follows).tell)


class WaitNotice:
    """Tells a person what is waited for. Of the calls of a command the first one alone, unless it follows."""

    def __init__(self, *, follows: bool) -> None:
        self._follows = follows
        self._told = False
        self._lock = Lock()  # several images may be under way

    def tell(self, error: "LinewatchError | None", seconds: float) -> None:
        """What `Client` calls as its `on_wait`."""
        with self._lock:
            if error is not None and seconds >= _SILENT and not self._told:
                self._told = True
                remark(f"Waiting: {error}; it is tried again{' until it goes on' if self._follows else ''}.")
            elif error is None and self._told and self._follows:
                self._told = False
                remark(f"It goes on, after {seconds:.0f} s.")
