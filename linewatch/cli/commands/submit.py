"""`linewatch submit`: images and folders of them, as batches of bounded size, a few at a time.

Of a folder it keeps a journal, so that a run that was interrupted is continued by the next.
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
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from core.intake.image_formats import SUFFIXES
from linewatch.cli.cache import cache_folder
from linewatch.cli.commands.inspections import print_inspections
from linewatch.cli.failures import CommandFailed
from linewatch.cli.image_files import images_in
from linewatch.cli.journal import Accepted, Journal, Stamp, opened
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Recipe, Url, client
from linewatch.cli.terminal import print_json, progress, remark, results
from linewatch.http.request_bodies import safe_filename

if TYPE_CHECKING:
    from linewatch.client import Client, Fields
    from linewatch.types.results import Inspection

_BURST_IMAGES = 64
_BURST_BYTES = 64 * 1024 * 1024
_SENDERS = 3  # bursts under way at once
_LOOK = 2.0  # seconds between two looks at a batch
_OF_THE_IMAGE = frozenset(
    {"unsupported_media_type", "multiple_frames", "image_too_large", "upload_too_large", "empty_body"}
)
"""Codes of refusals that say something of one image, not of the request."""


@dataclass(frozen=True)
class _File:
    """An image's file. `position` is its place among all that were named, of which no two have the same."""

    position: int
    path: Path
    stamp: Stamp

    @property
    def name(self) -> str:
        return self.stamp.name


@dataclass(frozen=True)
class _Source:
    """The images that are sent together: those of a folder, which has a journal, or those that were named."""

    files: list[_File]
    journal: Journal | None


@dataclass(frozen=True)
class _Burst:
    """Images that are sent in one request; `key` is that of an earlier run, whose answer was lost."""

    files: Sequence[_File]
    journal: Journal | None
    key: str | None = None


@dataclass(frozen=True)
class _Refusal:
    """An image that was not accepted, and why."""

    name: str
    code: str
    detail: str


@dataclass
class _Outcome:
    """What became of images: of those that were sent, and of those that an earlier run has sent."""

    accepted: "dict[_File, Inspection]" = field(default_factory=dict)
    earlier: dict[_File, Accepted] = field(default_factory=dict)
    refused: list[_Refusal] = field(default_factory=list)

    def add(self, other: "_Outcome") -> None:
        self.accepted |= other.accepted
        self.refused += other.refused

    def sent(self) -> "list[Inspection]":
        """What was accepted now, in the order of the files."""
        return [self.accepted[file] for file in sorted(self.accepted, key=lambda file: file.position)]

    def everything(self) -> list[Accepted]:
        """What was accepted now and earlier, in the order of the files."""
        now = {file: Accepted(str(one.id), str(one.batch_id)) for file, one in self.accepted.items()}
        known = self.earlier | now
        return [known[file] for file in sorted(known, key=lambda file: file.position)]


def submit(
    paths: Annotated[list[Path], typer.Argument(help="Images, and folders of them.")],
    recipe: Recipe,
    lot: Annotated[str | None, typer.Option(help="The lot that the parts belong to.")] = None,
    part: Annotated[str | None, typer.Option(help="The part that the images show.")] = None,
    view: Annotated[str | None, typer.Option(help="Which of several images of one part they are.")] = None,
    line: Annotated[str | None, typer.Option(help="The line that made it.")] = None,
    station: Annotated[str | None, typer.Option(help="The station that took the images.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the verdicts and print them.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="With --wait: seconds without any new verdict.")] = 300,
    again: Annotated[
        bool, typer.Option("--again", help="Send also those of a folder that an earlier run has sent.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Submit images and folders of them.

    A folder that was submitted before, with the same recipe and options, goes on where it was: images that were
    accepted and have not changed since are not sent again. An image that is named itself always is.

    With --json each is one JSON object a line. 1 if any was refused or, with --wait, failed.
    """
    fields: Fields = {"recipe": recipe, "lot_id": lot, "part_id": part, "line_id": line, "station_id": station}
    fields["view"] = view
    with client(url, api_key) as system, ExitStack() as journals:
        sources = _sources(paths, system, fields, journals, again=again)
        outcome = _sent(system, sources, fields)
        found = _awaited(system, outcome, timeout) if wait else outcome.sent()
    _print(found, outcome, wait, as_json)
    if outcome.earlier:
        remark(f"{len(outcome.earlier)} images had been accepted before and were not sent again (see --again).")
    for one in outcome.refused:
        remark(f"refused {one.name}: {one.detail} ({one.code})")
    without = sum(one.status in ("failed", "cancelled") for one in found)
    if outcome.refused or without:
        raise CommandFailed(
            f"{len(outcome.refused)} of {sum(len(one.files) for one in sources)} images were refused and {without} "
            "failed: they are listed above; the others are unharmed"
        )


def _sources(
    paths: Sequence[Path], system: "Client", fields: "Fields", journals: ExitStack, *, again: bool
) -> list[_Source]:
    """All images that were named, each folder's in the order of their names, and the journals of the folders.

    Raises:
        CommandFailed: a path is neither, or there is no image.
    """
    for path in paths:
        if not path.exists():
            raise CommandFailed(f"there is no {path}: name images or folders of them")
    position = count()
    named: list[_File] = []
    folders: dict[Path, list[_File]] = {}
    for path in paths:
        if not path.is_dir():
            named.append(_file(position, path, path.name))
        elif path.resolve() not in folders:
            found = images_in(path)
            folders[path.resolve()] = [_file(position, one, one.relative_to(path).as_posix()) for one in found]
    sources = [_Source(named, None)]
    for folder, files in folders.items():
        about = {"url": system.url, **fields, "folder": str(folder)}
        sources.append(_Source(files, _journal(system, about, journals, again=again) if files else None))
    if not any(one.files for one in sources):
        raise CommandFailed(f"no images in {', '.join(map(str, paths))}: they end in {', '.join(sorted(SUFFIXES))}")
    return sources


def _file(position: "count[int]", path: Path, name: str) -> _File:
    found = path.stat()
    return _File(next(position), path, Stamp(name, found.st_size, found.st_mtime_ns))


def _journal(system: "Client", about: dict[str, Any], journals: ExitStack, *, again: bool) -> Journal | None:
    """The journal of a folder, without what this system knows nothing of: another one may have had its address."""
    from linewatch.errors import Refused

    folder = cache_folder("submissions")
    if folder is None:
        remark("There is no cache folder to write to: if this is interrupted, the next run sends everything again.")
        return None
    journal = journals.enter_context(opened(folder, about, again=again))
    for batch_id in reversed(journal.batches):
        try:
            system.batch(batch_id)
            break  # those before it are known as well
        except Refused as refused:
            if refused.code == "forbidden":
                break  # the key may only submit: what the journal says has to do
            if refused.code != "not_found":
                raise
            journal.forget(batch_id)
    return journal


def _planned(source: _Source, outcome: _Outcome) -> list[_Burst]:
    """What of a source is to be sent: first, as they were, bursts whose answer was lost, then what is left."""
    if source.journal is None:
        return [_Burst(files, None) for files in _bursts(source.files)]
    left = {file.stamp: file for file in source.files}
    for stamp, file in list(left.items()):
        accepted = source.journal.accepted(stamp)
        if accepted is not None:
            outcome.earlier[file] = accepted
            del left[stamp]
    bursts = []
    for key, stamps in source.journal.unanswered.items():
        if all(stamp in left for stamp in stamps):
            bursts.append(_Burst([left.pop(stamp) for stamp in stamps], source.journal, key))
        else:  # it cannot be sent as it was
            source.journal.give_up(key)
    return bursts + [_Burst(files, source.journal) for files in _bursts(list(left.values()))]


def _bursts(files: Sequence[_File]) -> Iterator[list[_File]]:
    """The files in groups of bounded number and size, without two of one name in a group."""
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


def _sent(system: "Client", sources: Sequence[_Source], fields: "Fields") -> _Outcome:
    """Send all files that have not been accepted before."""
    outcome = _Outcome()
    bursts = []
    for source in sources:
        readable = []
        for file in source.files:
            if os.access(file.path, os.R_OK):
                readable.append(file)
            else:
                refusal = _Refusal(file.name, "unreadable", "The file cannot be read: see its permissions.")
                outcome.refused.append(refusal)
        bursts += _planned(_Source(readable, source.journal), outcome)
    total = sum(len(source.files) for source in sources)
    with progress() as bar, ThreadPoolExecutor(_SENDERS) as pool:
        task = bar.add_task("submitting", total=total, completed=total - sum(len(burst.files) for burst in bursts))
        pending = {pool.submit(_send, system, burst, fields): burst for burst in bursts}
        try:
            for future in as_completed(pending):
                outcome.add(future.result())
                bar.advance(task, len(pending[future].files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return outcome


def _send(system: "Client", burst: _Burst, fields: "Fields") -> _Outcome:
    """Send one burst. If all of it was rejected, send each image alone, so that each gets its own reason."""
    from linewatch.errors import Refused

    files, journal = burst.files, burst.journal
    key = burst.key or (journal.begin([file.stamp for file in files]) if journal else uuid4().hex)
    try:
        batch = system.submit_batch({file.name: file.path for file in files}, idempotency_key=key, **fields)
    except Refused as refused:
        if journal and refused.code in (*_OF_THE_IMAGE, "idempotency_mismatch"):
            journal.give_up(key)
        if refused.code not in _OF_THE_IMAGE:
            raise
        if len(files) == 1:
            return _Outcome(refused=[_Refusal(files[0].name, refused.code, refused.detail)])
        outcome = _Outcome()
        for file in files:
            outcome.add(_send(system, _Burst([file], journal), fields))
        return outcome
    told = {one.external_id for one in batch.errors}
    taken = [file for file in files if safe_filename(file.name) not in told]
    accepted = dict(zip(taken, batch.inspections, strict=False))  # both in the order in which they were sent
    if journal:
        journal.accept(key, str(batch.id), {file.name: str(one.id) for file, one in accepted.items()})
    return _Outcome(accepted, refused=[_Refusal(one.external_id or "?", one.code, one.detail) for one in batch.errors])


def _awaited(system: "Client", outcome: _Outcome, timeout: float) -> "list[Inspection]":
    """Wait for all verdicts. Print first what was accepted: that holds even if the wait fails.

    Raises:
        CommandFailed: the key may not read them, or see `_verdicts`.
    """
    from linewatch.errors import Refused

    for line in _told_of_accepted(outcome.sent()):
        remark(line)
    try:
        return _verdicts(system, outcome.everything(), timeout)
    except Refused as refused:
        if refused.code != "forbidden":
            raise
        raise CommandFailed(
            f"what was accepted gets its verdicts, but waiting for them needs a key with the scope read, too: {refused}"
        ) from refused


def _verdicts(system: "Client", accepted: Sequence[Accepted], timeout: float) -> "list[Inspection]":
    """Wait until everything is final, and return it in the same order.

    Raises:
        CommandFailed: nothing has become final for `timeout` seconds.
    """
    found: dict[str, Inspection] = {}
    batches = Counter(one.batch_id for one in accepted)
    before = 0
    with progress() as bar:
        task = bar.add_task("verdicts", total=len(accepted))
        for batch_id, own in batches.items():
            last, changed_at = -1, time.monotonic()
            while not (batch := system.batch(batch_id, wait=_LOOK)).final:
                done = before + min(batch.done, own)
                bar.update(task, completed=done)
                if batch.done != last:
                    last, changed_at = batch.done, time.monotonic()
                if time.monotonic() - changed_at > timeout:
                    raise CommandFailed(
                        f"no verdict for {timeout:g} s, {done} of {len(accepted)} are there: "
                        f"does a worker run? Later: `linewatch list --batch {batch_id}`"
                    )
            before += own
            bar.update(task, completed=before)
            found |= {str(one.id): one for one in system.inspections(batch_id=batch_id, page_size=1000)}
    return [found[one.inspection_id] for one in accepted]


def _print(found: "Sequence[Inspection]", outcome: _Outcome, waited: bool, as_json: bool) -> None:
    if as_json:
        print_inspections(found, as_json)
        for one in outcome.refused:
            error = {"code": one.code, "detail": one.detail}
            print_json({"external_id": one.name, "status": "refused", "error": error})
        return
    if waited:
        print_inspections(found, as_json)
        counts = {kind: sum(one.verdict == kind for one in found) for kind in ("ok", "ng", "review")}
        results().print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    else:
        for line in _told_of_accepted(found):
            results().print(line, markup=False)


def _told_of_accepted(accepted: "Sequence[Inspection]") -> list[str]:
    """How many were accepted, and how each batch of them is listed; nothing where there is none."""
    batches = dict.fromkeys(str(one.batch_id) for one in accepted)
    if not batches:
        return []
    told = [f"{len(accepted)} images were accepted, in {len(batches)} batch(es):"]
    return told + [f"  linewatch list --batch {batch_id}" for batch_id in batches]
