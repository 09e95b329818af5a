"""Reading the feed: where it begins, when a place is kept, and what is done where it is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import CursorLost, LinewatchError, Refused
from tests.fixtures.mock_system import FACES, INSPECTION, problem

CONSUMER = {
    "name": "mes",
    "cursor": "1-2",
    "behind": 0,
    "created_at": "2026-01-01T00:00:00Z",
    "acknowledged_at": "2026-01-01T00:00:00Z",
}


class Feed:
    """A played feed of numbers from 1 on; a cursor is a number, too."""

    def __init__(self, length: int, *, expired: int = 0) -> None:
        self.length = length
        self._expired = expired
        self.consumers: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/results/acknowledge":
            said = json.loads(request.read())
            self.consumers[said["consumer"]] = said["cursor"]
            return httpx.Response(200, json={**CONSUMER, "name": said["consumer"], "cursor": said["cursor"]})
        if request.url.path == "/v1/results/consumers":
            items = [{**CONSUMER, "name": name, "cursor": at} for name, at in self.consumers.items()]
            return httpx.Response(200, json={"items": items})
        return self._page(dict(request.url.params))

    def _page(self, asked: dict[str, str]) -> httpx.Response:
        self.asked.append(asked)
        after = asked.get("after", self.consumers.get(asked.get("consumer", ""), str(self._expired)))
        start = self.length if after == "now" else int(after)
        if start < self._expired:
            return problem(410, "cursor_expired", resume_after=str(self._expired))
        numbers = range(start + 1, min(start + int(asked["limit"]), self.length) + 1)
        items = [
            {**INSPECTION, "external_id": str(number), "cursor": str(number), "feed_event": "final"}
            for number in numbers
        ]
        return httpx.Response(200, json={"items": items, "next_cursor": str(max(start, *numbers, 0))})


@pytest.fixture(params=FACES)
def reading(request: pytest.FixtureRequest) -> Callable[[Feed], Any]:
    return lambda feed: FACES[request.param]("http://system.test", transport=httpx.MockTransport(feed))


def numbers(items: Any) -> list[int]:
    return [int(item.external_id) for item in items]


def test_it_is_read_to_its_end_page_by_page(reading: Callable[[Feed], Any]) -> None:
    feed = Feed(5)
    with reading(feed) as lw:
        items = list(lw.results(recipe="bottle", include_reviews=True, page_size=2))
    assert numbers(items) == [1, 2, 3, 4, 5]
    assert [(item.cursor, item.feed_event, item.recipe) for item in items[:1]] == [("1", "final", "bottle")]
    assert feed.asked[0] == {"recipe": "bottle", "include": "reviews", "limit": "2"}
    assert [asked.get("after") for asked in feed.asked] == [None, "2", "4", "5"]


@pytest.mark.parametrize(("after", "found"), [("3", [4, 5]), ("now", []), ("oldest", [1, 2, 3, 4, 5])])
def test_it_begins_where_it_is_asked_to(reading: Callable[[Feed], Any], after: str, found: list[int]) -> None:
    with reading(Feed(5)) as lw:
        assert numbers(lw.results(after)) == found


def test_a_place_is_kept_once_a_page_was_consumed(reading: Callable[[Feed], Any], tmp_path: Path) -> None:
    feed, file = Feed(5), tmp_path / "mes.cursor"
    with reading(feed) as lw:
        items = lw.results(cursor_file=file, consumer="mes", page_size=2)
        assert next(items).external_id == "1"
        assert next(items).external_id == "2"
        assert (file.exists(), feed.consumers) == (False, {})  # the second item may not be dealt with yet
        assert next(items).external_id == "3"
        assert (file.read_text(), feed.consumers) == ("2\n", {"mes": "2"})
        items.close()
        assert numbers(lw.results(cursor_file=file)) == [3, 4, 5]
        assert numbers(lw.results(consumer="mes")) == [3, 4, 5]
        assert feed.consumers == {"mes": "5"}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kept_by", [{"cursor_file": "mes.cursor"}, {"consumer": "mes"}])
def test_now_is_where_a_reader_begins_that_has_no_place_yet(
    reading: Callable[[Feed], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_by: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    feed = Feed(5)
    with reading(feed) as lw:
        assert numbers(lw.results("now", **kept_by)) == []
        feed.length = 7
        assert numbers(lw.results("now", **kept_by)) == [6, 7]
        assert numbers(lw.results(**kept_by)) == []
        assert numbers(lw.results("oldest", **kept_by)) == [1, 2, 3, 4, 5, 6, 7]
        assert numbers(lw.results("6", **kept_by)) == [7]


def test_following_waits_for_what_comes(reading: Callable[[Feed], Any]) -> None:
    feed = Feed(1)
    with reading(feed) as lw:
        items = lw.results(follow=True)
        assert next(items).external_id == "1"
        feed.length = 2
        assert next(items).external_id == "2"
        items.close()
    assert {asked["wait"] for asked in feed.asked} == {"30.0"}


def test_following_outlasts_any_outage(reading: Callable[[Feed], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("linewatch.http.executors.time.sleep", pauses.append)
    monkeypatch.setattr("linewatch.http.executors.asyncio.sleep", sleep)
    feed = Feed(1)
    outages: list[Any] = [
        httpx.ConnectError("refused"),
        problem(503, "database_unavailable"),
        httpx.Response(502),
        httpx.Response(500),
    ] * 30

    def answer(request: httpx.Request) -> httpx.Response:
        if "acknowledge" in request.url.path and outages:
            outage = outages.pop()
            if isinstance(outage, Exception):
                raise outage
            return outage  # type: ignore[no-any-return]
        return feed(request)

    with reading(answer) as lw:  # type: ignore[arg-type]
        items = lw.results(follow=True, consumer="mes")
        assert next(items).external_id == "1"
        feed.length = 2
        assert next(items).external_id == "2"
        items.close()
        assert len(pauses) == 120
        assert 8 <= max(pauses) <= 12
        outages.append(httpx.Response(502))
        feed.length = 3
        with pytest.raises(Refused, match="http_502"):
            list(lw.results(consumer="mes"))


def test_after_an_outage_the_first_answer_is_asked_for_at_once(
    reading: Callable[[Feed], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Feed(0)
    waits: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        waits.append(request.url.params.get("wait"))
        if len(waits) == 1:
            raise httpx.ReadError("reset")
        feed.length = len(waits) // 3
        return feed(request)

    with reading(answer) as lw:  # type: ignore[arg-type]
        items = lw.results(follow=True)
        assert next(items).external_id == "1"
        items.close()
    assert waits == ["30.0", None, "30.0"]


def test_what_is_no_cursor_names_its_file(reading: Callable[[Feed], Any], tmp_path: Path) -> None:
    file = tmp_path / "mes.cursor"
    file.write_bytes(b"\xff\xfe")
    with reading(Feed(1)) as lw, pytest.raises(LinewatchError, match=str(file)):
        next(lw.results(cursor_file=file))


def test_a_long_wait_is_several(reading: Callable[[Feed], Any]) -> None:
    feed = Feed(0)
    feed_of_two_requests: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        feed_of_two_requests.append(request.url.params["wait"])
        if len(feed_of_two_requests) > 3:
            feed.length = 1
        return feed(request)

    with reading(answer) as lw:  # type: ignore[arg-type]
        assert next(lw.results(wait=3600)).external_id == "1"
    assert len(feed_of_two_requests) == 4


def test_a_place_that_is_lost_says_where_to_go_on(reading: Callable[[Feed], Any], tmp_path: Path) -> None:
    feed, file = Feed(9, expired=6), tmp_path / "mes.cursor"
    file.write_text("2\n")
    with reading(feed) as lw:
        with pytest.raises(CursorLost) as caught:
            list(lw.results(cursor_file=file))
        assert (caught.value.code, caught.value.status, caught.value.resume_after) == ("cursor_expired", 410, "6")
        assert numbers(lw.results(caught.value.resume_after, cursor_file=file)) == [7, 8, 9]
    assert file.read_text() == "9\n"


def test_where_nothing_is_known_one_goes_on_with_the_oldest(reading: Callable[[Feed], Any]) -> None:
    def lost(_: httpx.Request) -> httpx.Response:
        return problem(410, "cursor_epoch", resume_after=None)

    with reading(lost) as lw, pytest.raises(CursorLost) as caught:  # type: ignore[arg-type]
        next(lw.results("1"))
    assert caught.value.resume_after == "oldest"


def test_a_cursor_file_that_cannot_be_written_is_said_so(reading: Callable[[Feed], Any], tmp_path: Path) -> None:
    with reading(Feed(1)) as lw, pytest.raises(FileNotFoundError):
        list(lw.results(cursor_file=tmp_path / "missing" / "mes.cursor"))
