"""`linewatch up`."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def up(
    host: Annotated[str, typer.Option(envvar="LINEWATCH_HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="LINEWATCH_PORT", min=0, max=65535, help="The port to listen on; 0 takes a free one.")
    ] = 8000,
    data: Annotated[Path | None, typer.Option(help="Where everything is kept.")] = None,
    scoring_workers: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 1,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option("--device", envvar="LINEWATCH_DEVICE", help="What computes."),
    ] = "auto",
) -> None:
    """Run the whole system on this machine.

    Database, queue, api, workers. Prints one line, `ready: http://HOST:PORT`, when it takes work; Ctrl-C stops it.
    """
    from linewatch.server.up import run

    raise typer.Exit(run(host=host, port=port, data=data, scoring_workers=scoring_workers, device=device))
