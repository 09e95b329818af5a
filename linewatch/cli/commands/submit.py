"""`linewatch submit`: submit images and folders, as batches of bounded size, a few at a time.

It keeps a journal for each folder, so that you can interrupt it and continue with the same command.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from linewatch.cli.cache import cache_folder
from linewatch.cli.commands.inspections import print_inspections
from linewatch.cli.failures import CommandFailed
from linewatch.cli.image_files import SUFFIXES, images_in
from linewatch.cli.journal import Accepted, Journal, opened
from linewatch.cli.options import FOLDER_OR_FILE, client, recipe_option, system_options
from linewatch.cli.refusals import IMAGE_CODES, Refusal
from linewatch.cli.stamps import Stamp
from linewatch.cli.terminal import advance_to, print_json, progress_bar, remark
from linewatch.http.request_bodies import safe_filename

if TYPE_CHECKING:
    from linewatch.client import Client, Fields
    from linewatch.types.results import Inspection

_BURST_IMAGES = 64
_BURST_BYTES = 64 * 1024 * 1024
_SENDERS = 3  # bursts sent at the same time
_BATCH_WAIT = 2.0  # seconds that one request waits for a batch


@dataclass(frozen=True)
class _File:
    """An image's file. `position` is its unique index among all files of the command."""

    position: int
    path: Path
    stamp: Stamp

    @property
    def name(self) -> str:
        return self.stamp.name


@dataclass(frozen=True)
class _Source:
    """The images of a folder, which has a journal, or the images that were named individually."""

    files: list[_File]
    journal: Journal | None


@dataclass(frozen=True)
class _Burst:
    """Images that are sent in one request; `key` is set if an earlier run sent them and got no answer."""

    files: Sequence[_File]
    journal: Journal | None
    key: str | None = None


@dataclass
class _Outcome:
    """The images that this run has accepted, that an earlier run had accepted, and that were rejected."""

    accepted: "dict[_File, Inspection]" = field(default_factory=dict)
    earlier: dict[_File, Accepted] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)

    def add(self, other: "_Outcome") -> None:
        self.accepted |= other.accepted
        self.refused += other.refused

    def accepted_now(self) -> "list[Inspection]":
        """Return the inspections of this run, in the order of the files."""
        return [self.accepted[file] for file in sorted(self.accepted, key=lambda file: file.position)]

    def all_accepted(self) -> list[Accepted]:
        """Return the images that this or an earlier run has accepted, in the order of the files."""
        of_this_run = {
            file: Accepted(str(inspection.id), str(inspection.batch_id)) for file, inspection in self.accepted.items()
        }
        accepted = self.earlier | of_this_run
        return [accepted[file] for file in sorted(accepted, key=lambda file: file.position)]


@click.command("submit")
@click.argument("paths", type=FOLDER_OR_FILE, nargs=-1, required=True, help="Images, and folders of images.")
@recipe_option
@click.option("--lot", help="The lot of the parts.")
@click.option("--part", help="The part that the images show.")
@click.option("--view", help="The view of the part, if a part has several images.")
@click.option("--line", help="The line that made the parts.")
@click.option("--station", help="The station that took the images.")
@click.option("--wait", is_flag=True, help="Wait for the verdicts and print them.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300,
    help="With --wait: give up after this many seconds without a new verdict.",
)
@click.option("--again", is_flag=True, help="Send images again that were already accepted.")
@system_options
def submit(
    paths: tuple[Path, ...],
    recipe: str,
    lot: str | None,
    part: str | None,
    view: str | None,
    line: str | None,
    station: str | None,
    wait: bool,
    timeout: float,
    again: bool,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Submit images and folders of images.

    If you submit a folder again with the same recipe and options, images that were accepted before and have not
    changed are skipped. Images that you name individually are always sent.

    With --json, prints one JSON object per line. Exits with 1 if an image was rejected or, with --wait, failed.
    """
    fields: Fields = {"recipe": recipe, "lot_id": lot, "part_id": part, "line_id": line, "station_id": station}
    fields["view"] = view
    with client(url, api_key) as system, ExitStack() as journals:
        sources = _find_sources(paths, system, fields, journals, again=again)
        outcome = _send_all(system, sources, fields)
        inspections = _wait_for_verdicts(system, outcome, timeout) if wait else outcome.accepted_now()
    _print(inspections, outcome, wait, as_json)
    if outcome.earlier:
        remark(f"{len(outcome.earlier)} images were accepted before and were skipped (see --again).")
    for refusal in outcome.refused:
        remark(refusal.line)
    failed = sum(inspection.status in ("failed", "cancelled") for inspection in inspections)
    if outcome.refused or failed:
        total = sum(len(source.files) for source in sources)
        raise CommandFailed(
            f"{len(outcome.refused)} of {total} images were rejected and {failed} failed: they are listed above; "
            "the others are not affected"
        )


def _find_sources(
    paths: Sequence[Path], system: "Client", fields: "Fields", journals: ExitStack, *, again: bool
) -> list[_Source]:
    """Return all images, those of a folder sorted by name, and open the journals of the folders.

    Raises:
        CommandFailed: a path does not exist, or there is no image.
    """
    for path in paths:
        if not path.exists():
            raise CommandFailed(f"{path} does not exist: name images or folders")
    position = count()
    named: list[_File] = []
    folders: dict[Path, list[_File]] = {}
    for path in paths:
        if not path.is_dir():
            named.append(_file(position, path, path.name))
        elif path.resolve() not in folders:
            images = images_in(path)
            folders[path.resolve()] = [_file(position, image, image.relative_to(path).as_posix()) for image in images]
    sources = [_Source(named, None)]
    for folder, files in folders.items():
        about = {"url": system.url, **fields, "folder": str(folder)}
        sources.append(_Source(files, _journal(system, about, journals, again=again) if files else None))
    if not any(source.files for source in sources):
        raise CommandFailed(f"no images in {', '.join(map(str, paths))}: supported are {', '.join(sorted(SUFFIXES))}")
    return sources


def _file(position: "count[int]", path: Path, name: str) -> _File:
    status = path.stat()
    return _File(next(position), path, Stamp(name, status.st_size, status.st_mtime_ns))


def _journal(system: "Client", about: dict[str, Any], journals: ExitStack, *, again: bool) -> Journal | None:
    """Open the journal of a folder.

    Drops batches that this system does not know, because another system may have had the same address.
    """
    from linewatch.errors import Refused

    folder = cache_folder("submissions")
    if folder is None:
        remark("There is no writable cache folder: if this is interrupted, the next run sends everything again.")
        return None
    journal = journals.enter_context(opened(folder, about, again=again))
    for batch_id in reversed(journal.batches):
        try:
            system.batch(batch_id)
            break  # earlier batches are known as well
        except Refused as refused:
            if refused.code == "forbidden":
                break  # the key may only submit, so trust the journal
            if refused.code != "not_found":
                raise
            journal.forget(batch_id)
    return journal


def _plan_bursts(source: _Source, outcome: _Outcome) -> list[_Burst]:
    """Return the bursts to send: first those that got no answer, unchanged, then the remaining files."""
    if source.journal is None:
        return [_Burst(files, None) for files in _split(source.files)]
    remaining = {file.stamp: file for file in source.files}
    for stamp, file in list(remaining.items()):
        accepted = source.journal.accepted(stamp)
        if accepted is not None:
            outcome.earlier[file] = accepted
            del remaining[stamp]
    bursts = []
    for key, stamps in source.journal.unanswered.items():
        if all(stamp in remaining for stamp in stamps):
            bursts.append(_Burst([remaining.pop(stamp) for stamp in stamps], source.journal, key))
        else:  # a file has changed, so the burst cannot be repeated
            source.journal.give_up(key)
    return bursts + [_Burst(files, source.journal) for files in _split(list(remaining.values()))]


def _split(files: Sequence[_File]) -> Iterator[list[_File]]:
    """Split files into groups of limited number and size. No group has two files with the same name."""
    burst: dict[str, _File] = {}
    size = 0
    for file in files:
        too_large = len(burst) >= _BURST_IMAGES or size + file.stamp.size > _BURST_BYTES
        if burst and (too_large or file.name in burst):
            yield list(burst.values())
            burst, size = {}, 0
        burst[file.name] = file
        size += file.stamp.size
    if burst:
        yield list(burst.values())


def _send_all(system: "Client", sources: Sequence[_Source], fields: "Fields") -> _Outcome:
    """Send all files that were not accepted before."""
    outcome = _Outcome()
    bursts = []
    for source in sources:
        readable = []
        for file in source.files:
            if os.access(file.path, os.R_OK):
                readable.append(file)
            else:
                refusal = Refusal(file.name, "unreadable", "The file cannot be read: check its permissions.")
                outcome.refused.append(refusal)
        bursts += _plan_bursts(_Source(readable, source.journal), outcome)
    total = sum(len(source.files) for source in sources)
    done = total - sum(len(burst.files) for burst in bursts)
    with progress_bar("submitting", total, done=done) as bar, ThreadPoolExecutor(_SENDERS) as pool:
        pending = {pool.submit(_send, system, burst, fields): burst for burst in bursts}
        try:
            for future in as_completed(pending):
                outcome.add(future.result())
                bar.update(len(pending[future].files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return outcome


def _send(system: "Client", burst: _Burst, fields: "Fields") -> _Outcome:
    """Send one burst. If it is rejected because of an image, send each image alone to find out which."""
    from linewatch.errors import Refused

    files, journal = burst.files, burst.journal
    key = burst.key or (journal.begin([file.stamp for file in files]) if journal else uuid4().hex)
    try:
        batch = system.submit_batch({file.name: file.path for file in files}, idempotency_key=key, **fields)
    except Refused as refused:
        if journal and refused.code in (*IMAGE_CODES, "idempotency_mismatch"):
            journal.give_up(key)
        if refused.code not in IMAGE_CODES:
            raise
        if len(files) == 1:
            return _Outcome(refused=[Refusal(files[0].name, refused.code, refused.detail)])
        outcome = _Outcome()
        for file in files:
            outcome.add(_send(system, _Burst([file], journal), fields))
        return outcome
    rejected = {error.external_id for error in batch.errors}
    remaining = [file for file in files if safe_filename(file.name) not in rejected]
    accepted = dict(zip(remaining, batch.inspections, strict=False))  # both in the order of sending
    if journal:
        journal.accept(key, str(batch.id), {file.name: str(inspection.id) for file, inspection in accepted.items()})
    refusals = [Refusal(error.external_id or "?", error.code, error.detail) for error in batch.errors]
    return _Outcome(accepted, refused=refusals)


def _wait_for_verdicts(system: "Client", outcome: _Outcome, timeout: float) -> "list[Inspection]":
    """Print what was accepted, before the wait can fail, and wait for all verdicts.

    Raises:
        CommandFailed: the key may not read verdicts, or see `_verdicts`.
    """
    from linewatch.errors import Refused

    for line in _describe_accepted(outcome.accepted_now()):
        remark(line)
    try:
        return _verdicts(system, outcome.all_accepted(), timeout)
    except Refused as refused:
        if refused.code != "forbidden":
            raise
        raise CommandFailed(
            "the accepted images will be scored, but waiting for their verdicts needs a key with the scope read: "
            f"{refused}"
        ) from refused


def _verdicts(system: "Client", accepted: Sequence[Accepted], timeout: float) -> "list[Inspection]":
    """Wait until all inspections are final, and return them in the same order.

    Raises:
        CommandFailed: no inspection became final for `timeout` seconds.
    """
    inspections: dict[str, Inspection] = {}
    batches = Counter(image.batch_id for image in accepted)
    before = 0
    with progress_bar("verdicts", len(accepted)) as bar:
        for batch_id, size in batches.items():
            last, changed_at = -1, time.monotonic()
            while not (batch := system.batch(batch_id, wait=_BATCH_WAIT)).final:
                done = before + min(batch.done, size)
                advance_to(bar, done)
                if batch.done != last:
                    last, changed_at = batch.done, time.monotonic()
                if time.monotonic() - changed_at > timeout:
                    raise CommandFailed(
                        f"no new verdict for {timeout:g} s, {done} of {len(accepted)} are final: is a worker running? "
                        f"See them later with `linewatch list --batch {batch_id}`"
                    )
            before += size
            advance_to(bar, before)
            in_batch = system.inspections(batch_id=batch_id, page_size=1000)
            inspections |= {str(inspection.id): inspection for inspection in in_batch}
    return [inspections[image.inspection_id] for image in accepted]


def _print(inspections: "Sequence[Inspection]", outcome: _Outcome, waited: bool, as_json: bool) -> None:
    if as_json:
        print_inspections(inspections, as_json)
        for refusal in outcome.refused:
            print_json(refusal.document)
        return
    if waited:
        print_inspections(inspections, as_json)
        counts = {
            kind: sum(inspection.verdict == kind for inspection in inspections) for kind in ("ok", "ng", "review")
        }
        click.echo(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    else:
        for line in _describe_accepted(inspections):
            click.echo(line)


def _describe_accepted(accepted: "Sequence[Inspection]") -> list[str]:
    """Describe how many images were accepted and how to list each of their batches; no line if there are none."""
    batches = dict.fromkeys(str(inspection.batch_id) for inspection in accepted)
    if not batches:
        return []
    commands = [f"  linewatch list --batch {batch_id}" for batch_id in batches]
    return [f"{len(accepted)} images were accepted, in {len(batches)} batch(es):", *commands]
