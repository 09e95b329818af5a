"""Statistics equal what a listing counts, whatever has been counted so far and however late inspections finish."""

import datetime as dt
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from core.errors import Refused
from core.feed import feed
from core.inspection import inspections
from core.inspection.inspections import Filters, Inspection
from core.models import recipes
from core.models.verdicts import Verdict
from core.queue import finishing
from core.queue.finishing import Outcome
from core.statistics import buckets, counting, statistics
from core.statistics.statistics import Figures
from tests.fixtures.random_results import add_review
from tests.fixtures.timed_inspections import insert_final, insert_image, insert_in_flight

NOON = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
SPAN = dt.timedelta(hours=5)
ZONES = ("UTC", "Asia/Kathmandu")

minutes = st.integers(0, 300) | st.sampled_from([0, 15, 30, 60, 299])
durations = st.floats(0, 600_000)
places = st.fixed_dictionaries(
    {"line_id": st.sampled_from([None, "line-1"]), "station_id": st.sampled_from([None, "a", "b"])}
)
outcomes = st.sampled_from(["ok", "ng", "review", "failed", "cancelled"])
changes = st.one_of(
    st.tuples(st.just("finish"), minutes, st.integers(0, 1), places, outcomes, durations),
    st.tuples(st.just("accept"), minutes, st.integers(0, 1), places),
    st.tuples(st.just("finish late"), st.integers(0, 99), st.sampled_from(["ok", "ng", "review"])),
    st.tuples(st.just("review"), st.integers(0, 99), st.sampled_from(["ok", "ng"])),
    st.tuples(st.just("number")),
    st.tuples(st.just("count")),
    st.tuples(st.just("expire")),
)
queries = st.tuples(
    minutes, minutes, st.sampled_from([None, 60, 300, 900, 3600, "day"]), st.sampled_from(ZONES), places,
    st.sampled_from([None, "ring", "cell"]),
).filter(lambda query: query[0] != query[1])  # fmt: skip

EVERYTHING = (0, 330, 900, "UTC", {"line_id": None, "station_id": None}, None)


@dataclass
class Line:
    """A database that inspections are accepted, finished and reviewed in."""

    connection: Connection
    recipe_ids: list[int]
    final: list[UUID] = field(default_factory=list)
    in_flight: list[UUID] = field(default_factory=list)

    def apply(self, change: Any) -> None:
        match change:
            case ("finish", minute, recipe, place, outcome, milliseconds):
                fields = place | ({"status": outcome} if outcome in ("failed", "cancelled") else {"verdict": outcome})
                duration = dt.timedelta(milliseconds=milliseconds)
                at = NOON + dt.timedelta(minutes=minute)
                self.final.append(
                    insert_final(self.connection, self.recipe_ids[recipe], at, duration=duration, **fields)
                )
            case ("accept", minute, recipe, place):
                fields = {**place, "state": "running"}
                at = NOON + dt.timedelta(minutes=minute)
                self.in_flight.append(insert_in_flight(self.connection, self.recipe_ids[recipe], at, **fields))
            case ("finish late", number, verdict) if self.in_flight:
                inspection_id = self.in_flight.pop(number % len(self.in_flight))
                outcome = Outcome(inspection_id, 1, "completed", anomaly_score=0.25, verdict=verdict)
                assert finishing.finish(self.connection, [outcome]).inspections == [inspection_id]
                self.final.append(inspection_id)
            case ("review", number, verdict) if self.final:
                add_review(self.connection, self.final[number % len(self.final)], verdict)
            case ("number",):
                feed.number_entries(self.connection)
            case ("count",):
                counting.count_more(self.connection)
            case ("expire",):
                self._expire()

    def _expire(self) -> None:
        """Remove all entries of the feed, even those that are not counted, as retention does."""
        self.connection.execute(text("UPDATE feed SET numbered_at = now() - interval '40 days'"))
        feed.expire(self.connection, days=30, at_most=1000)


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "ENTRIES_AT_ONCE", 3)
    monkeypatch.setattr(counting, "BACKWARDS_AT_ONCE", 2)


@given(st.lists(changes, max_size=15), st.integers(0, 6), st.lists(changes, max_size=15), st.lists(queries, max_size=3))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_figures_equal_those_of_a_listing(
    engine: Engine, few_at_once: None, before: list[Any], counted: int, after: list[Any], asked: list[Any]
) -> None:
    with engine.connect() as connection:  # rolled back after each example
        insert_image(connection)
        ids = [recipes.create(connection, name, actor="test").id for name in ("ring", "cell")]
        line = Line(connection, ids)
        for change in (*before, *[("number",), ("count",)] * counted, *after):
            line.apply(change)
        for query in (EVERYTHING, *asked):
            check(connection, *query)


def check(
    connection: Connection, begin: int, end: int, bucket: Any, zone: str, place: dict[str, Any], recipe: str | None
) -> None:
    since, until = (NOON + dt.timedelta(minutes=minute) for minute in sorted((begin, end)))
    edges = buckets.find_edges(since, until, bucket, ZoneInfo(zone))
    read = statistics.read(connection, recipe=recipe, **place, edges=edges)
    assert [each.recipe for each in read] == ([recipe] if recipe else ["cell", "ring"])
    for each in read:
        listed = listing(connection, recipe=each.recipe, since=since, until=until, **place)
        check_figures(each.totals, listed)
        assert each.last_ng == next((item.id for item in listed if item.verdict == "ng"), None)
        waiting = listing(connection, recipe=each.recipe, effective_verdict="review", **place)
        assert each.waiting_for_review == len(waiting)
        for (lower, upper), figures in zip(pairwise(edges), each.buckets, strict=True):
            check_figures(figures, [item for item in listed if lower <= item.created_at < upper])


def listing(connection: Connection, **filters: Any) -> list[Inspection]:
    items, following = inspections.list_page(connection, Filters(**filters), before=None, limit=1000)
    assert following is None
    return items


def check_figures(figures: Figures, listed: list[Inspection]) -> None:
    assert figures.total == len(listed)
    assert +figures.statuses == Counter(item.status for item in listed)
    assert +figures.verdicts == Counter(item.verdict for item in listed if item.verdict)
    effective: Counter[Verdict] = Counter(item.effective_verdict for item in listed if item.effective_verdict)
    assert +figures.effective_verdicts == effective
    completed = [item for item in listed if item.status == "completed"]
    ng = sum(item.verdict == "ng" for item in completed)
    assert figures.ng_rate == (ng / len(completed) if completed else None)
    times = sorted(
        max((item.finished_at - item.created_at) / dt.timedelta(milliseconds=1), 1.0)
        for item in completed
        if item.finished_at is not None
    )
    for share in (0.5, 0.95, 1.0):
        measured = figures.time_to_verdict(share)
        if not times:
            assert measured is None
        else:
            rank = next(rank for rank in range(1, len(times) + 1) if rank >= share * len(times) - 1e-9)
            assert measured == pytest.approx(times[rank - 1], rel=0.05)


def test_everything_is_counted_in_the_end(engine: Engine, few_at_once: None) -> None:
    with engine.begin() as connection:
        insert_image(connection)
        line = Line(connection, [recipes.create(connection, "ring", actor="test").id])
        for minute in (0, 20, 200, 300):
            line.apply(("finish", minute, 0, {}, "ok", 20.0))
        for _ in range(8):
            feed.number_entries(connection)
            counting.count_more(connection)
        state = counting.read_state(connection)
        assert (state.position, state.complete_from) == (4, counting.ALWAYS)
        number = connection.execute(text("SELECT sum(number) FROM inspection_counts")).scalar_one()
        assert number == 4


def test_entries_that_expire_before_they_are_counted_are_not_lost(engine: Engine) -> None:
    with engine.begin() as connection:
        insert_image(connection)
        line = Line(connection, [recipes.create(connection, name, actor="test").id for name in ("ring", "cell")])
        line.apply(("finish", 20, 0, {}, "ok", 20.0))
        for change in ("number", "count"):
            line.apply((change,))
        assert counting.read_state(connection) == counting.State(1, counting.ALWAYS)
        line.apply(("finish", 21, 0, {}, "ng", 20.0))
        for change in ("number", "expire", "count", "count"):
            line.apply((change,))
            check(connection, *EVERYTHING)
        assert counting.read_state(connection) == counting.State(2, counting.ALWAYS)


def test_figures_are_of_one_moment_while_inspections_finish_and_are_counted(engine: Engine) -> None:
    number = 300
    with engine.begin() as connection:
        insert_image(connection)
        recipe_id = recipes.create(connection, "ring", actor="test").id
        line = Line(connection, [recipe_id])
        for _ in range(number):
            line.apply(("accept", 20, 0, {}))
    done = threading.Event()

    def finish() -> None:
        for inspection_id in line.in_flight:
            with engine.begin() as connection:
                finishing.finish(connection, [Outcome(inspection_id, 1, "completed", anomaly_score=0.1, verdict="ok")])

    def count() -> None:
        while not done.is_set():
            with engine.begin() as connection:
                feed.number_entries(connection)
                counting.count_more(connection)

    edges = [NOON, NOON + SPAN]
    completed = 0
    with ThreadPoolExecutor(2) as pool:
        finisher, counter = pool.submit(finish), pool.submit(count)
        try:
            while completed < number:
                with engine.execution_options(isolation_level="REPEATABLE READ").begin() as connection:
                    [figures] = statistics.read(connection, recipe="ring", line_id=None, station_id=None, edges=edges)
                assert figures.totals.total == number
                assert figures.totals.statuses["completed"] == figures.totals.verdicts["ok"] >= completed
                completed = figures.totals.statuses["completed"]
        finally:
            done.set()
        finisher.result()
        counter.result()


def test_two_processes_do_not_count_at_once(engine: Engine) -> None:
    with engine.begin() as first, engine.begin() as second:
        counting.count_more(first)
        counting.count_more(second)
        assert counting.read_state(second).complete_from is None


def test_periods_that_would_take_long_are_refused(engine: Engine) -> None:
    until = NOON + dt.timedelta(days=1)
    with engine.begin() as connection:
        for number in range(50):
            recipes.create(connection, f"r{number}", actor="test")
        for since, bucket, reason in (
            (until - dt.timedelta(days=93), "day", "at most 92 days"),
            (until - dt.timedelta(hours=13), 300, "multiple of 900 seconds"),
            (until - dt.timedelta(hours=5), 60, ""),
            (until - dt.timedelta(hours=8), 60, "more than 20000"),
            (until - dt.timedelta(hours=9), 60, "more than 500"),
        ):
            if not reason:
                read(connection, since, until, bucket)
                continue
            with pytest.raises(Refused, match=reason):
                read(connection, since, until, bucket)


def read(connection: Connection, since: dt.datetime, until: dt.datetime, bucket: Any) -> None:
    edges = buckets.find_edges(since, until, bucket, ZoneInfo("UTC"))
    statistics.read(connection, recipe=None, line_id=None, station_id=None, edges=edges)
