"""Options that several commands share, and the client that they describe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from linewatch.client import Client

Url = Annotated[str, typer.Option("--url", envvar="LINEWATCH_URL", help="The running system.")]
DEFAULT_URL = "http://127.0.0.1:8000"
ApiKey = Annotated[
    str | None, typer.Option("--api-key", envvar="LINEWATCH_API_KEY", help="lw_…, where the system asks for one.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, and nothing else there.")]
Recipe = Annotated[str, typer.Option("--recipe", "-r", help="What is inspected.")]
Version = Annotated[int | None, typer.Option("--version", min=1, help="A model version; the active one by default.")]
Data = Annotated[Path, typer.Option("--data", help="A folder of pictures.")]
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


def client(url: str, api_key: str | None) -> "Client":
    """The running system that was named; use it in a `with` block."""
    from linewatch.client import Client

    return Client(url, api_key=api_key)
