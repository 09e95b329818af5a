"""The options that describe a re-scoring run, started now or by a schedule."""

import math
from collections.abc import Sequence
from typing import Any

import click

from linewatch.cli.commands.rescoring.source_options import source
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import together

run_options = together(
    [
        click.option("--all", "everything", is_flag=True, help="All stored inspections of the recipe."),
        click.option(
            "--where",
            "filters",
            metavar="KEY=VALUE",
            multiple=True,
            help="Stored inspections that match a filter, such as lot=L-1 or max_age=24h; may be repeated.",
        ),
        click.option("--folder", help="A folder or an s3:// prefix of images, as the server sees it."),
        click.option("--manifest", help="A JSON lines or CSV file that lists images, as the server sees it."),
        click.option("--threshold", type=float, help="Use this threshold instead of the version's."),
        click.option("--review-threshold", type=float, help="Used with --threshold, and not above it."),
        click.option("--recompute", is_flag=True, help="Also score images again that this version has already scored."),
        click.option("--window", help="The hours in which it may run, such as 22:00-05:00."),
        click.option(
            "--max-failure-rate",
            type=click.FloatRange(min=0, max=1),
            help="Abort the run if a larger share of its images fails. [0.1]",
        ),
    ]
)
"""The options that `run_arguments` converts."""


def run_arguments(
    everything: bool, filters: Sequence[str], folder: str | None, manifest: str | None, **options: Any
) -> dict[str, Any]:
    """Convert the options to arguments of `Client.rescore` or `Client.create_rescore_schedule`.

    Raises:
        WrongUse: not exactly one source is named, or a threshold is infinite or NaN.
    """
    for name in ("threshold", "review_threshold"):
        value = options[name]
        if value is not None and not math.isfinite(value):
            raise WrongUse(f"--{name.replace('_', '-')} {value}: a threshold must be a finite number")
    return {**source(everything, filters, folder, manifest), **options}
