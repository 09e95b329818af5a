"""`linewatch watch`: take each image that a camera writes into a folder, by FTP or on a share, and submit it."""

import asyncio
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import click

from linewatch.cli.cache import cache_folder
from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.options import FOLDER_OR_FILE, WaitNotice, part_options, system_options
from linewatch.cli.watching.filing import After, Filing
from linewatch.cli.watching.journal import WatchJournal, opened
from linewatch.cli.watching.notices import Notices
from linewatch.cli.watching.patterns import PathPattern
from linewatch.cli.watching.scanning import Folder
from linewatch.cli.watching.sending import Reading, Sender
from linewatch.cli.watching.watcher import Pace, Watcher

_PATIENCE = 60.0  # seconds for which --once waits for a system that is down or busy


@click.command("watch")
@click.argument("folder", type=FOLDER_OR_FILE, help="The folder that the cameras write into.")
@click.option("--recipe", "-r", help="The recipe, unless --fields reads it from the path.")
@click.option(
    "--fields",
    metavar="PATTERN",
    help="Read fields from the path below FOLDER, such as '{line_id}/{lot_id}/{part_id}_{view}.*'.",
)
@part_options
@click.option("--file-times", is_flag=True, help="The time of the file is when the image was captured.")
@click.option(
    "--after",
    type=click.Choice([choice.value for choice in After]),
    default=After.MOVE.value,
    help="What to do with accepted images: move them, mark them by a suffix, delete or leave them.",
)
@click.option("--accepted", type=FOLDER_OR_FILE, help="Where accepted images go. [FOLDER/accepted]")
@click.option("--rejected", type=FOLDER_OR_FILE, help="Where rejected images go, with the reason. [FOLDER/rejected]")
@click.option("--ignore", metavar="GLOB", multiple=True, help="Names that are not taken, such as 'preview_*'.")
@click.option(
    "--settle",
    type=click.FloatRange(min=0),
    default=2.0,
    help="Seconds without a change after which an image is complete; 0 if the camera renames complete images.",
)
@click.option("--every", type=click.FloatRange(min=0.05), default=1.0, help="Seconds between two looks at the folder.")
@click.option("--once", is_flag=True, help="Take what is there, and end.")
@click.option("--again", is_flag=True, help="Clear the journal: take images again that were left in the folder.")
@click.option("--journal", type=FOLDER_OR_FILE, help="The folder of the journal. [the cache folder]")
@system_options
def watch(
    folder: Path,
    recipe: str | None,
    fields: str | None,
    lot: str | None,
    part: str | None,
    view: str | None,
    line: str | None,
    station: str | None,
    file_times: bool,
    after: str,
    accepted: Path | None,
    rejected: Path | None,
    ignore: tuple[str, ...],
    settle: float,
    every: float,
    once: bool,
    again: bool,
    journal: Path | None,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Submit each image that is written into FOLDER, once it is complete, until it is stopped.

    It waits while the system or the folder is away, and continues where it stopped, also after a crash. With --json,
    prints one JSON object per line. With --once, exits with 1 if an image was rejected.
    """
    common = {"recipe": recipe, "lot_id": lot, "part_id": part, "line_id": line, "station_id": station, "view": view}
    given = {name: value for name, value in common.items() if value is not None}
    reading = Reading(given, _pattern(fields, given), file_times)
    filing = _filing(folder.absolute(), After(after), accepted, rejected)
    if once and not filing.folder.exists():
        raise CommandFailed(f"{folder} does not exist: name the folder that the cameras write into")
    notices = Notices(as_json=as_json)
    job = _Job(reading, filing, ignore, notices, Pace(settle, every), once=once)
    about = {"url": url.rstrip("/"), "folder": str(filing.folder)}
    with opened(_journals(journal), about, again=again) as open_journal, notices.summarised():
        asyncio.run(_run(job, open_journal, url, api_key))
    if once and notices.has_rejected:
        raise CommandFailed("some images were rejected: they are listed above; the others are not affected")


@dataclass(frozen=True)
class _Job:
    """What to watch, and how."""

    reading: Reading
    filing: Filing
    ignored: Sequence[str]
    notices: Notices
    pace: Pace
    once: bool


def _pattern(text: str | None, common: Mapping[str, str]) -> PathPattern | None:
    """Return the pattern of paths, if there is one.

    Raises:
        WrongUse: the pattern is wrong, a field has two sources, or there is no recipe.
    """
    try:
        pattern = PathPattern.parse(text) if text else None
    except ValueError as error:
        raise WrongUse(f"--fields: {error}") from error
    from_path = pattern.fields if pattern else frozenset()
    if twice := sorted(from_path & common.keys()):
        raise WrongUse(f"{twice[0]} is read from the path by --fields and is an option as well: use one of them")
    if "recipe" not in from_path | common.keys():
        raise WrongUse("name the recipe with --recipe, or read it from the path with {recipe} in --fields")
    return pattern


def _filing(folder: Path, after: After, accepted: Path | None, rejected: Path | None) -> Filing:
    """Return where files go.

    Raises:
        WrongUse: a folder is not possible.
    """
    if folder.exists() and not folder.is_dir():
        raise WrongUse(f"{folder} is not a folder: use `linewatch submit` for single images")
    targets = [(path or folder / name).absolute() for path, name in ((accepted, "accepted"), (rejected, "rejected"))]
    if folder in targets:
        raise WrongUse("--accepted and --rejected must be other folders than FOLDER")
    return Filing(folder, after, *targets)


def _journals(named: Path | None) -> Path:
    """Return the folder of the journal.

    Raises:
        CommandFailed: there is none.
    """
    folder = named or cache_folder("watches")
    if folder is None:
        raise CommandFailed("there is no writable cache folder for the journal: name a folder with --journal")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def _run(job: _Job, journal: WatchJournal, url: str, api_key: str | None) -> None:
    """Watch until the end of `--once`, or until SIGTERM."""
    from linewatch.client import AsyncClient

    patience = _PATIENCE if job.once else math.inf
    on_wait = WaitNotice(follows=not job.once).notify
    with _sigterm_cancels() as stop:
        async with AsyncClient(url, api_key=api_key, patience=patience, on_wait=on_wait) as system:
            skipped = (job.filing.accepted, job.filing.rejected)
            folder = Folder(job.filing.folder, skipped=skipped, ignored=job.ignored)
            sender = Sender(system, folder, job.reading)
            watcher = Watcher(folder, job.reading, sender, job.filing, journal, job.notices)
            try:
                await (watcher.once(job.pace) if job.once else watcher.follow(job.pace))
            except asyncio.CancelledError:
                if not stop.is_set():  # Ctrl-C
                    raise
                if job.once:
                    raise CommandFailed("stopped by SIGTERM: the same command continues where it stopped") from None


@contextmanager
def _sigterm_cancels() -> Iterator[asyncio.Event]:
    """Within the block SIGTERM cancels the running task; then the event is set."""
    task, loop, stop = asyncio.current_task(), asyncio.get_running_loop(), asyncio.Event()

    def cancel() -> None:
        stop.set()
        if task is not None:
            task.cancel()

    def handle(_signal: int, _frame: FrameType | None) -> Any:
        loop.call_soon_threadsafe(cancel)

    previous = signal.signal(signal.SIGTERM, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
