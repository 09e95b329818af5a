"""Options that several commands share, and the client that they describe."""

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import click

from linewatch.cli.terminal import remark

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.errors import LinewatchError

EARLIEST, LATEST = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (1970, 2200))
"""The api accepts times between them."""
_SILENT = 1.0  # seconds of waiting before it is printed

AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])

FOLDER_OR_FILE = click.Path(path_type=Path)


class _BitDepth(click.Choice[str]):
    """`auto`, or a bit depth, which becomes an int."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        chosen = super().convert(str(value), param, ctx)
        return chosen if chosen == "auto" else int(chosen)


bit_depth_type = _BitDepth(["auto", "8", "10", "12", "14", "16"])


def together(options: Sequence[Callable[[Any], Any]]) -> Callable[[AnyFunction], AnyFunction]:
    """Several options as one decorator; `--help` lists them in this order."""

    def decorate(command: AnyFunction) -> AnyFunction:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_url = click.option(
    "--url", envvar="LINEWATCH_URL", default="http://127.0.0.1:8000", help="The address of the running system."
)
_api_key = click.option("--api-key", envvar="LINEWATCH_API_KEY", help="lw_…, if the system requires a key.")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to standard output, and nothing else.")
connection_options = together([_url, _api_key])
"""For a parameter `url` and a parameter `api_key`: the arguments of `client`."""
system_options = together([_url, _api_key, json_option])
"""`connection_options`, and `--json` for a parameter `as_json`."""
recipe_option = click.option("--recipe", "-r", required=True, help="The recipe.")
recipe_filter_option = click.option("--recipe", "-r", help="Only this recipe.")
part_options = together(
    [
        click.option("--lot", help="The lot of the parts."),
        click.option("--part", help="The part that the images show."),
        click.option("--view", help="The view of the part, if a part has several images."),
        click.option("--line", help="The line that made the parts."),
        click.option("--station", help="The station that took the images."),
    ]
)
"""The fields that all images of a command have in common: `lot`, `part`, `view`, `line` and `station`."""
version_option = click.option("--version", type=click.IntRange(min=1), help="A model version. [the active one]")
limit_option = click.option("--limit", type=click.IntRange(min=1), default=20, help="The largest number to list.")
device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="The device that computes."
)
false_reject_rate_option = click.option(
    "--false-reject-rate",
    type=click.FloatRange(min=0, max=1),
    help="The share of good parts that may be rejected. [0.05]",
)
review_rate_option = click.option(
    "--review-rate",
    type=click.FloatRange(min=0, max=1),
    help="The share of good parts that may be rejected or reviewed. [no review]",
)
group_by_option = click.option(
    "--group-by",
    help="How images are grouped by part or lot: a pattern of file names such as 'part(\\d+)_', or FILE.csv:COLUMN.",
)
bit_depth_option = click.option(
    "--bit-depth",
    type=bit_depth_type,
    help="The bit depth of the grey levels. [that of the recipe, or auto: found in the images]",
)
activate_option = click.option("--activate", is_flag=True, help="Activate the version once it is ready.")
force_option = click.option("--force", is_flag=True, help="Activate it even if it is not fit for use.")
data_directory_option = click.option(
    "--data",
    type=FOLDER_OR_FILE,
    help="The data directory of a `linewatch up`, if LINEWATCH_DATABASE_URL is not set.",
)


def client(url: str, api_key: str | None, *, follows: bool = False) -> "Client":
    """Return a client of the running system, for a `with` block. It prints a remark about long waits."""
    from linewatch.client import Client

    return Client(url, api_key=api_key, on_wait=WaitNotice(follows=follows).notify)


class WaitNotice:
    """Prints what the client is waiting for: once per command, or each time if the command follows something."""

    def __init__(self, *, follows: bool) -> None:
        self._follows = follows
        self._is_printed = False
        self._lock = Lock()  # several threads may send images

    def notify(self, error: "LinewatchError | None", seconds: float) -> None:
        """The `on_wait` of `Client`."""
        with self._lock:
            if error is not None and seconds >= _SILENT and not self._is_printed:
                self._is_printed = True
                remark(f"Waiting: {error}; retrying{' until the system is back' if self._follows else ''}.")
            elif error is None and self._is_printed and self._follows:
                self._is_printed = False
                remark(f"Back after {seconds:.0f} s.")
