"""The options that say what a re-scoring run is asked for with, now or by a schedule."""

import math
from typing import Annotated

import typer

from linewatch.cli.failures import WrongUse

Everything = Annotated[bool, typer.Option("--all", help="All stored inspections of the recipe.")]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="KEY=VALUE", help="Stored inspections, as lot=L-1 or max_age=24h; may be repeated."
    ),
]
Folder = Annotated[
    str | None, typer.Option("--folder", help="A folder or an s3:// prefix of images, as the server sees it.")
]
Manifest = Annotated[
    str | None, typer.Option("--manifest", help="A JSON lines or CSV file that names images, likewise.")
]
Threshold = Annotated[float | None, typer.Option(help="Judge with it, not with the version's.")]
ReviewThreshold = Annotated[float | None, typer.Option(help="Comes with a threshold, and not above it.")]
Recompute = Annotated[
    bool, typer.Option("--recompute", help="Run the network also where this version has scored before.")
]
Window = Annotated[str | None, typer.Option(help="The hours in which it may run, as 22:00-05:00.")]
MaxFailureRate = Annotated[
    float | None, typer.Option(min=0, max=1, help="A run is aborted above this share of failures. [0.1]")
]


def require_numbers(**thresholds: float | None) -> None:
    """Refuse what is written as a number and is none.

    Raises:
        WrongUse: a threshold is infinite or not a number.
    """
    for name, value in thresholds.items():
        if value is not None and not math.isfinite(value):
            raise WrongUse(f"--{name.replace('_', '-')} {value}: a threshold is a number")
