"""Rounds of `linewatch watch` with scripted responses."""

import asyncio
import json
import math
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from linewatch.cli.failures import CommandFailed
from linewatch.cli.watching import watcher as watchers
from linewatch.cli.watching.filing import After, Filing
from linewatch.cli.watching.journal import WatchJournal, opened
from linewatch.cli.watching.notices import Notices
from linewatch.cli.watching.patterns import PathPattern
from linewatch.cli.watching.scanning import Folder
from linewatch.cli.watching.sending import Reading, Sender
from linewatch.cli.watching.watcher import Pace, Watcher
from linewatch.client import AsyncClient
from linewatch.errors import LinewatchError, Refused
from tests.fixtures.mock_system import INSPECTION, problem

PACE = Pace(settle=0.0, every=0.001)
Answer = Callable[[httpx.Request], httpx.Response | Awaitable[httpx.Response]]


def accepted(request: httpx.Request) -> httpx.Response:
    return httpx.Response(202, json={**INSPECTION, "external_id": field_of(request, "external_id")})


def field_of(request: httpx.Request, name: str) -> str | None:
    """Return a form field of a request."""
    _, found, rest = request.content.decode(errors="replace").partition(f'name="{name}"\r\n\r\n')
    return rest.partition("\r\n")[0] if found else None


@dataclass
class Rig:
    """A watched folder and a scripted system."""

    folder: Path
    journals: Path
    answer: Answer = accepted
    after: After = After.MOVE
    pattern: str | None = None
    recipe: str | None = "ring"
    file_times: bool = False
    patience: float = 0.0
    requests: list[httpx.Request] = field(default_factory=list)
    database: sqlite3.Connection = field(init=False)

    def write(self, name: str, content: str = "image") -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return path

    def run(self, *, follow: bool = False) -> None:
        """Run the watcher to its end, as a new process would."""
        with opened(self.journals, {}, again=False) as journal:
            asyncio.run(self._watch(journal, follow=follow))

    def follow(self, play: Callable[[], Awaitable[None]]) -> None:
        """Run the watcher until `play` has ended."""

        async def watch(journal: WatchJournal) -> None:
            watching = asyncio.create_task(self._watch(journal, follow=True))
            try:
                await asyncio.wait_for(play(), 60)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
            assert watching.cancelled()

        with opened(self.journals, {}, again=False) as journal:
            self.database = journal._database
            asyncio.run(watch(journal))

    async def _watch(self, journal: WatchJournal, *, follow: bool) -> None:
        async def handle(request: httpx.Request) -> httpx.Response:
            await request.aread()
            self.requests.append(request)
            answer = self.answer(request)
            return await answer if isinstance(answer, Awaitable) else answer

        folder = Folder(self.folder, skipped=(self.folder / "accepted", self.folder / "rejected"))
        filing = Filing(self.folder, self.after, self.folder / "accepted", self.folder / "rejected")
        fields = {"recipe": self.recipe} if self.recipe else {}
        reading = Reading(fields, PathPattern.parse(self.pattern) if self.pattern else None, self.file_times)

        transport = httpx.MockTransport(handle)
        async with AsyncClient("http://system.test", transport=transport, patience=self.patience) as system:
            sender = Sender(system, folder, reading)
            watcher = Watcher(folder, reading, sender, filing, journal, Notices(as_json=True))
            await (watcher.follow(PACE) if follow else watcher.once(PACE))

    def sent(self, name: str) -> list[str | None]:
        """Return a form field of each request, in order."""
        return [field_of(request, name) for request in self.requests]

    def files(self) -> list[str]:
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr("linewatch.http.transport.RECONNECTS", 0)
    monkeypatch.setattr(watchers, "_PAUSE", 0.01)
    for name in ("images", "journals"):
        (tmp_path / name).mkdir()
    return Rig(tmp_path / "images", tmp_path / "journals")


def test_fields_come_from_the_path(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.recipe, rig.pattern = None, "{recipe}/{lot_id}-{part_id}.*"
    rig.write("ring/L-1-SN.png")
    rig.write("ring/none.png")
    rig.run()
    assert [rig.sent(name) for name in ("recipe", "lot_id", "part_id")] == [["ring"], ["L-1"], ["SN"]]
    assert rig.sent("external_id") == ["ring/L-1-SN.png"]
    assert rig.files() == ["accepted/ring/L-1-SN.png", "rejected/ring/none.png", "rejected/ring/none.png.txt"]
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["external_id"]: line["status"] for line in printed} == {
        "ring/L-1-SN.png": "queued",
        "ring/none.png": "refused",
    }


def test_the_time_of_the_file_is_when_the_image_was_captured(rig: Rig) -> None:
    rig.file_times = True
    os.utime(rig.write("a.png"), (86400, 86400))
    os.utime(rig.write("b.png"), (2**33, 2**33))  # not a time that the api accepts
    rig.run()
    times = dict(zip(rig.sent("external_id"), rig.sent("captured_at"), strict=True))
    assert times == {"a.png": "1970-01-02T00:00:00+00:00", "b.png": None}


def test_the_oldest_images_are_sent_first(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("linewatch.cli.watching.sending._SENDERS", 1)  # several overtake each other
    for number in (3, 1, 2):
        os.utime(rig.write(f"{number}.png"), (number, number))
    rig.run()
    assert rig.sent("external_id") == ["1.png", "2.png", "3.png"]


def test_an_unanswered_image_is_sent_again_unchanged_under_its_key(rig: Rig) -> None:
    rig.write("a.png")

    def break_connection(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("reset")

    rig.answer = break_connection
    with pytest.raises(LinewatchError, match="no response"):
        rig.run()
    assert rig.files() == ["a.png"]
    rig.answer, rig.recipe = accepted, "other"
    rig.run()
    first, second = rig.requests
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert rig.sent("recipe") == ["ring", "ring"]
    assert rig.files() == ["accepted/a.png"]


def test_a_busy_system_gets_each_image_once_it_has_room(rig: Rig) -> None:
    answers = [problem(503, "queue_full", retry_after="1"), problem(429, "rate_limited")]
    rig.answer = lambda request: answers.pop() if answers else accepted(request)
    rig.patience = math.inf
    begun = time.monotonic()
    rig.write("a.png")
    rig.run()
    assert time.monotonic() - begun >= 1
    assert len(rig.requests) == 3
    assert len({request.headers["Idempotency-Key"] for request in rig.requests}) == 1
    assert rig.files() == ["accepted/a.png"]


@pytest.mark.parametrize(
    ("status", "code"), [(404, "recipe_unknown"), (409, "recipe_without_model"), (422, "idempotency_mismatch")]
)
def test_a_refusal_that_is_not_the_images_moves_nothing(rig: Rig, status: int, code: str) -> None:
    rig.write("a.png")
    rig.answer = lambda _: problem(status, code)
    with pytest.raises(Refused, match=code):
        rig.run()
    assert rig.files() == ["a.png"]
    rig.answer, rig.recipe = accepted, "other"
    rig.run()
    first, second = rig.requests
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert rig.sent("recipe") == ["ring", "other"]


@pytest.mark.parametrize(
    ("status", "code", "detail"),
    [
        (415, "unsupported_media_type", "No."),
        (413, "http_413", "No."),
        (422, "invalid_field", "lot_id: too long."),
        (404, "recipe_unknown", "No."),
    ],
)
def test_a_rejected_image_does_not_keep_the_others(rig: Rig, status: int, code: str, detail: str) -> None:
    rig.recipe, rig.pattern = None, "{recipe}_{lot_id}.png"

    def answer(request: httpx.Request) -> httpx.Response:
        return problem(status, code, detail=detail) if field_of(request, "lot_id") == "1" else accepted(request)

    rig.write("a_1.png")
    rig.write("a_2.png")
    rig.answer = answer
    rig.run()
    assert rig.files() == ["accepted/a_2.png", "rejected/a_1.png", "rejected/a_1.png.txt"]
    assert (rig.folder / "rejected/a_1.png.txt").read_text() == f"{detail} ({code})\n"


def test_a_wrong_option_rejects_no_image(rig: Rig) -> None:
    rig.write("a.png")
    rig.answer = lambda _: problem(422, "invalid_field", detail="recipe: wrong.")
    with pytest.raises(Refused, match="recipe: wrong"):
        rig.run()
    assert rig.files() == ["a.png"]


def test_an_image_that_is_replaced_while_it_is_sent_is_not_lost(rig: Rig) -> None:
    file = rig.write("a.png", "old")

    def replace_the_first(request: httpx.Request) -> httpx.Response:
        if len(rig.requests) == 1:
            status = file.stat()
            file.write_text("newer")
            os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # of a camera without a clock
        return accepted(request)

    rig.answer = replace_the_first
    rig.run()
    assert [b"old" in rig.requests[0].content, b"newer" in rig.requests[1].content] == [True, True]
    assert (rig.folder / "accepted/a.png").read_text() == "newer"


def test_images_that_were_left_are_sent_once(rig: Rig) -> None:
    rig.after = After.LEAVE
    rig.write("a.png")
    rig.write("b.png")
    rig.answer = lambda request: (
        problem(415, "unsupported_media_type") if field_of(request, "external_id") == "b.png" else accepted(request)
    )
    rig.run()
    rig.run()
    assert len(rig.requests) == 2
    rig.write("a.png", "changed")
    rig.run()
    assert rig.sent("external_id")[2:] == ["a.png"]
    assert rig.files() == ["a.png", "b.png"]


def test_an_image_that_cannot_be_put_away_is_not_sent_again(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.write("a.png")
    blocker = rig.write("accepted")
    with pytest.raises(CommandFailed, match="put away"):
        rig.run()
    assert "File exists" in capsys.readouterr().err
    blocker.unlink()
    rig.run()
    assert rig.files() == ["accepted/a.png"]
    assert len(rig.requests) == 1


def test_an_image_that_cannot_be_read_does_not_keep_the_others(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stamp = Folder.stamp

    def stamp_of_readable(folder: Folder, name: str) -> object:
        if name == "a.png":
            raise PermissionError(13, "Permission denied")
        return stamp(folder, name)

    monkeypatch.setattr(Folder, "stamp", stamp_of_readable)
    rig.write("a.png")
    rig.write("b.png")
    with pytest.raises(CommandFailed, match="could not be read"):
        rig.run()
    assert "a.png cannot be read: Permission denied" in capsys.readouterr().err
    assert rig.files() == ["a.png", "accepted/b.png"]


def test_more_images_than_are_held_in_memory_are_all_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "MOST_FILES", 3)
    monkeypatch.setattr(watchers, "_GROUP", 2)
    for number in range(10):
        rig.write(f"{number}.png")
    rig.run()
    assert sorted(map(str, rig.sent("external_id"))) == [f"{number}.png" for number in range(10)]


def test_once_ends_although_images_keep_coming(rig: Rig) -> None:
    def write_another(request: httpx.Request) -> httpx.Response:
        later = time.time() + len(rig.requests)
        os.utime(rig.write(f"new{len(rig.requests)}.png"), (later, later))
        return accepted(request)

    rig.write("a.png")
    rig.answer = write_another
    rig.run()
    assert rig.files() == ["accepted/a.png", "new1.png"]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_following_waits_for_the_system_and_the_folder(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []

    def is_printed(line: str) -> bool:
        printed.append(capsys.readouterr().err)
        return line in "".join(printed)

    async def play() -> None:
        await until(lambda: len(rig.requests) > 1)
        assert rig.files() == ["a.png"]
        rig.answer = accepted
        await until(lambda: rig.files() == ["accepted/a.png"])
        away = rig.folder.rename(rig.folder.with_name("away"))
        await until(lambda: is_printed(f"Waiting: {rig.folder}: No such file or directory."))
        away.rename(rig.folder)
        rig.write("b.png")
        await until(lambda: rig.files() == ["accepted/a.png", "accepted/b.png"])
        await until(lambda: is_printed("The folder: all right again"))

    rig.write("a.png")
    rig.answer = lambda _: problem(404, "recipe_unknown")
    rig.follow(play)
    assert "Waiting: No. (recipe_unknown); trying again.\nThe system: all right again" in "".join(printed)


def test_a_full_disk_loses_and_doubles_nothing(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{number}.png" for number in range(200)]
    printed: list[str] = []

    def is_waiting() -> bool:
        printed.append(capsys.readouterr().err)
        return "".join(printed) == "Waiting: the journal cannot be written: database or disk is full.\n"

    async def play() -> None:
        [pages] = rig.database.execute("PRAGMA page_count").fetchone()
        rig.database.execute(f"PRAGMA max_page_count = {pages}")  # a full disk
        for name in names:
            rig.write(name)
        await until(is_waiting)
        assert len(rig.requests) < len(names)
        rig.database.execute("PRAGMA max_page_count = 1000000")
        await until(lambda: rig.files() == sorted(f"accepted/{name}" for name in names))

    rig.follow(play)
    keys = {(field_of(request, "external_id"), request.headers["Idempotency-Key"]) for request in rig.requests}
    assert sorted(str(name) for name, _ in keys) == sorted(names)  # what was sent again had the same key
    assert capsys.readouterr().err.startswith("The journal: all right again")


def test_a_stop_records_what_was_answered(rig: Rig) -> None:
    async def play() -> None:
        await until(lambda: len(rig.requests) == 2)
        await asyncio.sleep(0.05)

    async def answer_one(request: httpx.Request) -> httpx.Response:
        if field_of(request, "external_id") == "a.png":
            await asyncio.sleep(60)
        return accepted(request)

    rig.write("a.png")
    rig.write("b.png")
    rig.answer = answer_one
    rig.follow(play)
    rig.answer = accepted
    rig.run()
    assert sorted(map(str, rig.sent("external_id"))) == ["a.png", "a.png", "b.png"]
    first, second = (request for request in rig.requests if field_of(request, "external_id") == "a.png")
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert rig.files() == ["accepted/a.png", "accepted/b.png"]


@pytest.mark.parametrize(("status", "code"), [(401, "unauthenticated"), (403, "forbidden")])
def test_following_ends_if_the_key_is_refused(rig: Rig, status: int, code: str) -> None:
    rig.write("a.png")
    rig.answer = lambda _: problem(status, code)
    with pytest.raises(Refused, match=code):
        rig.run(follow=True)
    assert rig.files() == ["a.png"]
