"""`linewatch submit`: pictures and folders of them, as batches of bounded size, a few at a time."""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from linewatch.cli.failures import CommandFailed
from linewatch.cli.inspections import print_inspections
from linewatch.cli.options import DEFAULT_URL, ApiKey, AsJson, Recipe, Url, client
from linewatch.cli.pictures import SUFFIXES, pictures_in
from linewatch.cli.terminal import print_json, progress, remark, results

if TYPE_CHECKING:
    from linewatch.client import Client, Fields
    from linewatch.results import Inspection

_BURST_PICTURES = 64
_BURST_BYTES = 64 * 1024 * 1024
_SENDERS = 3  # bursts under way at once
_LOOK = 2.0  # seconds between two looks at a batch
_OF_THE_PICTURE = frozenset(
    {"unsupported_media_type", "multiple_frames", "image_too_large", "upload_too_large", "empty_body"}
)
"""Codes of refusals that say something of one picture, not of the request."""


@dataclass(frozen=True)
class _File:
    """A picture's file; `name` is relative to the folder that was named."""

    path: Path
    name: str
    size: int


@dataclass(frozen=True)
class _Refusal:
    """A picture that was not accepted, and why."""

    name: str
    code: str
    detail: str


@dataclass
class _Outcome:
    """What became of pictures that were sent."""

    batches: list[str] = field(default_factory=list)
    accepted: "list[Inspection]" = field(default_factory=list)
    refused: list[_Refusal] = field(default_factory=list)

    def add(self, other: "_Outcome") -> None:
        self.batches += other.batches
        self.accepted += other.accepted
        self.refused += other.refused


def submit(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, and folders of them.")],
    recipe: Recipe,
    lot: Annotated[str | None, typer.Option(help="The lot that the parts belong to.")] = None,
    part: Annotated[str | None, typer.Option(help="The part that the pictures show.")] = None,
    view: Annotated[str | None, typer.Option(help="Which of several pictures of one part they are.")] = None,
    line: Annotated[str | None, typer.Option(help="The line that made it.")] = None,
    station: Annotated[str | None, typer.Option(help="The station that took the pictures.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the verdicts and print them.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="With --wait: seconds without any new verdict.")] = 300,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Submit pictures and folders of them.

    With --json each is one JSON object a line. 1 if any was refused or, with --wait, failed.
    """
    fields: Fields = {"recipe": recipe, "lot_id": lot, "part_id": part, "line_id": line, "station_id": station}
    fields["view"] = view
    files = _files(paths)
    with client(url, api_key) as system:
        outcome = _sent(system, files, fields)
        found = _verdicts(system, outcome, timeout) if wait else outcome.accepted
    _print(found, outcome, wait, as_json)
    for one in outcome.refused:
        remark(f"refused {one.name}: {one.detail} ({one.code})")
    without = sum(one.status in ("failed", "cancelled") for one in found)
    if outcome.refused or without:
        raise CommandFailed(
            f"{len(outcome.refused)} of {len(files)} pictures were refused and {without} failed: "
            "they are listed above; the others are unharmed"
        )


def _files(paths: Sequence[Path]) -> list[_File]:
    """All pictures that were named, each folder's in the order of their names.

    Raises:
        CommandFailed: a path is neither, or there is no picture.
    """
    files = []
    for path in paths:
        if path.is_dir():
            files += [_File(one, one.relative_to(path).as_posix(), one.stat().st_size) for one in pictures_in(path)]
        elif path.is_file():
            files.append(_File(path, path.name, path.stat().st_size))
        else:
            raise CommandFailed(f"there is no {path}: name pictures or folders of them")
    if not files:
        raise CommandFailed(f"no pictures in {', '.join(map(str, paths))}: they end in {', '.join(sorted(SUFFIXES))}")
    return files


def _bursts(files: Sequence[_File]) -> Iterator[list[_File]]:
    """The files in groups of bounded number and size, without two of one name in a group."""
    burst: dict[str, _File] = {}
    size = 0
    for file in files:
        if burst and (len(burst) >= _BURST_PICTURES or size + file.size > _BURST_BYTES or file.name in burst):
            yield list(burst.values())
            burst, size = {}, 0
        burst[file.name] = file
        size += file.size
    yield list(burst.values())


def _sent(system: "Client", files: Sequence[_File], fields: "Fields") -> _Outcome:
    """Send all files; the accepted ones come back in the order of the files."""
    outcome = _Outcome()
    readable = []
    for file in files:
        if os.access(file.path, os.R_OK):
            readable.append(file)
        else:
            refusal = _Refusal(file.name, "unreadable", "The file cannot be read: see its permissions.")
            outcome.refused.append(refusal)
    bursts = list(_bursts(readable)) if readable else []
    with progress() as bar, ThreadPoolExecutor(_SENDERS) as pool:
        task = bar.add_task("submitting", total=len(files), completed=len(outcome.refused))
        pending = {pool.submit(_send, system, burst, fields): number for number, burst in enumerate(bursts)}
        done: dict[int, _Outcome] = {}
        try:
            for future in as_completed(pending):
                done[pending[future]] = future.result()
                bar.advance(task, len(bursts[pending[future]]))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for number in sorted(done):
        outcome.add(done[number])
    return outcome


def _send(system: "Client", burst: Sequence[_File], fields: "Fields") -> _Outcome:
    """Send one burst; where all of it was refused, each picture alone, so that each is told its own reason."""
    from linewatch.errors import Refused

    outcome = _Outcome()
    try:
        batch = system.submit_batch({file.name: file.path for file in burst}, **fields)
    except Refused as refused:
        if refused.code not in _OF_THE_PICTURE:
            raise
        if len(burst) == 1:
            outcome.refused.append(_Refusal(burst[0].name, refused.code, refused.detail))
            return outcome
        for file in burst:
            outcome.add(_send(system, [file], fields))
        return outcome
    outcome.batches.append(str(batch.id))
    outcome.accepted = batch.inspections
    outcome.refused = [_Refusal(one.external_id or "?", one.code, one.detail) for one in batch.errors]
    return outcome


def _verdicts(system: "Client", outcome: _Outcome, timeout: float) -> "list[Inspection]":
    """Wait until everything is final, and return it in the order in which it was sent.

    Raises:
        CommandFailed: nothing has become final for `timeout` seconds.
    """
    found: dict[str, Inspection] = {}
    before = 0
    with progress() as bar:
        task = bar.add_task("verdicts", total=len(outcome.accepted))
        for batch_id in outcome.batches:
            last, changed_at = -1, time.monotonic()
            while not (batch := system.batch(batch_id, wait=_LOOK)).final:
                bar.update(task, completed=before + batch.done)
                if batch.done != last:
                    last, changed_at = batch.done, time.monotonic()
                if time.monotonic() - changed_at > timeout:
                    raise CommandFailed(
                        f"no verdict for {timeout:g} s, {before + batch.done} of {len(outcome.accepted)} are there: "
                        f"does a worker run? Later: `linewatch list --batch {batch_id}`"
                    )
            before += batch.done
            bar.update(task, completed=before)
            found |= {str(one.id): one for one in system.inspections(batch_id=batch_id, page_size=1000)}
    return [found[str(one.id)] for one in outcome.accepted]


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
    elif found:
        results().print(f"{len(found)} pictures were accepted, in {len(outcome.batches)} batch(es):")
        for batch_id in outcome.batches:
            results().print(f"  linewatch list --batch {batch_id}")
