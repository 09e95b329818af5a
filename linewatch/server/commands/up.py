"""`linewatch up`."""

from pathlib import Path

import click

from linewatch.cli.options import FOLDER_OR_FILE


@click.command("up")
@click.option("--host", envvar="LINEWATCH_HOST", default="127.0.0.1", help="The address to listen on.")
@click.option(
    "--port",
    envvar="LINEWATCH_PORT",
    type=click.IntRange(min=0, max=65535),
    default=8000,
    help="The port to listen on; 0 picks a free one.",
)
@click.option("--data", type=FOLDER_OR_FILE, help="The data directory. [linewatch in the user's data folder]")
@click.option(
    "--scoring-workers",
    type=click.IntRange(min=1),
    help="How many scoring workers to run.  [default: one for each GPU, or for every 8 cores]",
)
@click.option(
    "--device",
    envvar="LINEWATCH_DEVICE",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="The device that scores images.",
)
@click.option("--training/--no-training", default=True, help="Whether to run a training worker. [yes]")
def up(host: str, port: int, data: Path | None, scoring_workers: int | None, device: str, training: bool) -> None:
    """Run the whole system on this machine.

    Starts the database, the queue, the api and the workers. Prints one line, `ready: http://HOST:PORT`, once it accepts
    images. Ctrl-C stops it.
    """
    from linewatch.server.up import run

    exit_code = run(host=host, port=port, data=data, scoring_workers=scoring_workers, device=device, training=training)
    raise click.exceptions.Exit(exit_code)
