"""Reading the feed: start cursors, stored cursors, and lost cursors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import CursorLost, LinewatchError, Refused
from tests.fixtures.mock_system import CLIENTS, INSPECTION, problem

CONSUMER = {
    "name": "mes",
    "cursor": "1-2",
    "behind": 0,
    "created_at": "2026-01-01T00:00:00Z",
    "acknowledged_at": "2026-01-01T00:00:00Z",
}


class Feed:
    """A fake feed of the numbers from 1; cursors are numbers too."""

    def __init__(self, length: int, *, expired: int = 0) -> None:
        self.length = length
        self._expired = expired
        self.consumers: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/results/acknowledge":
            body = json.loads(request.read())
            self.consumers[body["consumer"]] = body["cursor"]
            return httpx.Response(200, json={**CONSUMER, "name": body["consumer"], "cursor": body["cursor"]})
        if request.url.path == "/v1/results/consumers":
            items = [{**CONSUMER, "name": name, "cursor": at} for name, at in self.consumers.items()]
            return httpx.Response(200, json={"items": items})
        return self._page(dict(request.url.params))

    def _page(self, query: dict[str, str]) -> httpx.Response:
        self.asked.append(query)
        after = query.get("after", self.consumers.get(query.get("consumer", ""), str(self._expired)))
        start = self.length if after == "now" else int(after)
        if start < self._expired:
            return problem(410, "cursor_expired", resume_after=str(self._expired))
        numbers = range(start + 1, min(start + int(query["limit"]), self.length) + 1)
        items = [
            {**INSPECTION, "external_id": str(number), "cursor": str(number), "feed_event": "final"}
            for number in numbers
        ]
        return httpx.Response(200, json={"items": items, "next_cursor": str(max(start, *numbers, 0))})


@pytest.fixture(params=CLIENTS)
def reading(request: pytest.FixtureRequest) -> Callable[[Feed], Any]:
    return lambda feed: CLIENTS[request.param]("http://system.test", transport=httpx.MockTransport(feed))


def numbers(items: Any) -> list[int]:
    return [int(item.external_id) for item in items]


def test_the_feed_is_read_to_its_end_page_by_page(reading: Callable[[Feed], Any]) -> None:
    feed = Feed(5)
    with reading(feed) as lw:
        items = list(lw.results(recipe="bottle", include_reviews=True, page_size=2))
    assert numbers(items) == [1, 2, 3, 4, 5]
    assert [(item.cursor, item.feed_event, item.recipe) for item in items[:1]] == [("1", "final", "bottle")]
    assert feed.asked[0] == {"recipe": "bottle", "include": "reviews", "limit": "2"}
    assert [query.get("after") for query in feed.asked] == [None, "2", "4", "5"]


@pytest.mark.parametrize(("after", "expected"), [("3", [4, 5]), ("now", []), ("oldest", [1, 2, 3, 4, 5])])
def test_reading_starts_at_the_given_cursor(reading: Callable[[Feed], Any], after: str, expected: list[int]) -> None:
    with reading(Feed(5)) as lw:
        assert numbers(lw.results(after)) == expected


def test_a_cursor_is_stored_once_its_page_was_consumed(reading: Callable[[Feed], Any], tmp_path: Path) -> None:
    feed, file = Feed(5), tmp_path / "mes.cursor"
    with reading(feed) as lw:
        items = lw.results(cursor_file=file, consumer="mes", page_size=2)
        assert next(items).external_id == "1"
        assert next(items).external_id == "2"
        assert (file.exists(), feed.consumers) == (False, {})  # the second item may not be processed yet
        assert next(items).external_id == "3"
        assert (file.read_text(), feed.consumers) == ("2\n", {"mes": "2"})
        items.close()
        assert numbers(lw.results(cursor_file=file)) == [3, 4, 5]
        assert numbers(lw.results(consumer="mes")) == [3, 4, 5]
        assert feed.consumers == {"mes": "5"}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("kept_by", [{"cursor_file": "mes.cursor"}, {"consumer": "mes"}])
def test_now_applies_only_without_a_stored_cursor(
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


def test_following_waits_for_new_results(reading: Callable[[Feed], Any]) -> None:
    feed = Feed(1)
    with reading(feed) as lw:
        items = lw.results(follow=True)
        assert next(items).external_id == "1"
        feed.length = 2
        assert next(items).external_id == "2"
        items.close()
    assert {query["wait"] for query in feed.asked} == {"30.0"}


def test_following_survives_any_outage(reading: Callable[[Feed], Any], monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_first_request_after_an_outage_does_not_wait(
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


def test_an_invalid_cursor_file_is_named(reading: Callable[[Feed], Any], tmp_path: Path) -> None:
    file = tmp_path / "mes.cursor"
    file.write_bytes(b"\xff\xfe")
    with reading(Feed(1)) as lw, pytest.raises(LinewatchError, match=str(file)):
        next(lw.results(cursor_file=file))


def test_a_long_wait_is_split_into_several_requests(reading: Callable[[Feed], Any]) -> None:
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


def test_a_lost_cursor_names_the_cursor_to_resume_at(reading: Callable[[Feed], Any], tmp_path: Path) -> None:
    feed, file = Feed(9, expired=6), tmp_path / "mes.cursor"
    file.write_text("2\n")
    with reading(feed) as lw:
        with pytest.raises(CursorLost) as caught:
            list(lw.results(cursor_file=file))
        assert (caught.value.code, caught.value.status, caught.value.resume_after) == ("cursor_expired", 410, "6")
        assert numbers(lw.results(caught.value.resume_after, cursor_file=file)) == [7, 8, 9]
    assert file.read_text() == "9\n"


def test_without_a_cursor_to_resume_at_reading_starts_at_the_oldest(reading: Callable[[Feed], Any]) -> None:
    def lost(_: httpx.Request) -> httpx.Response:
        return problem(410, "cursor_epoch", resume_after=None)

    with reading(lost) as lw, pytest.raises(CursorLost) as caught:  # type: ignore[arg-type]
        next(lw.results("1"))
    assert caught.value.resume_after == "oldest"


def test_an_unwritable_cursor_file_is_reported(reading: Callable[[Feed], Any], tmp_path: Path) -> None:
    with reading(Feed(1)) as lw, pytest.raises(FileNotFoundError):
        list(lw.results(cursor_file=tmp_path / "missing" / "mes.cursor"))
