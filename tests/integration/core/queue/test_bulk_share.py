"""The guaranteed share of bulk work: kept while the line keeps every worker busy, and never given twice."""

import json
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from core.feed import feed
from core.queue import bulk_share, claiming, finishing
from core.queue.broker import LIVE_QUEUE, Task
from core.settings import Settings
from tests.fixtures.rescoring_workers import RescoringHarness
from tests.integration.core.queue.test_work import make_recipe, make_version, passed, submit
from worker.dispatcher import Dispatcher

MINIBATCH = 32
MESSAGES = 12


class Busy:
    """A machine that a steady live load keeps busy: messages wait in line, and grants behind them."""

    def __init__(self, engine: Engine, *, of_it: float, backlog: int) -> None:
        self.engine = engine
        self.share = of_it
        self.backlog = backlog
        self.queue: deque[str] = deque()
        self.live = self.bulk = self.granted = 0

    def round(self, *, lose_every: int = 0) -> None:
        """One dispatcher round, in which `MESSAGES` minibatches are scored; of so many grants one is lost."""
        granted = look(self.engine, feed_newest=self.live, of_it=self.share)
        for _ in range(granted // MINIBATCH):
            self.granted += 1
            if not lose_every or self.granted % lose_every:
                self.queue.append("bulk")
        before = self.bulk
        for _ in range(MESSAGES):
            while self.queue.count("live") < self.backlog:
                self.queue.append("live")
            if self.queue.popleft() == "live":
                self.live += MINIBATCH
            else:
                self.bulk += MINIBATCH
        with self.engine.begin() as connection:
            bulk_share.note_scored(connection, self.bulk - before)

    @property
    def got(self) -> float:
        return self.bulk / (self.bulk + self.live)


def look(engine: Engine, *, feed_newest: int, of_it: float = 0.1, waiting: bool = True) -> int:
    with engine.begin() as connection:
        return bulk_share.grant(connection, feed_newest=feed_newest, share=of_it, minibatch=MINIBATCH, waiting=waiting)


@pytest.mark.parametrize("of_it", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("backlog", [1, 20])
def test_under_a_steady_live_load_bulk_work_has_its_share(engine: Engine, of_it: float, backlog: int) -> None:
    busy = Busy(engine, of_it=of_it, backlog=backlog)
    for _ in range(150):
        busy.round()
    assert busy.got == pytest.approx(of_it, abs=0.02)


def test_grants_that_are_lost_cost_only_themselves(engine: Engine) -> None:
    busy = Busy(engine, of_it=0.2, backlog=10)
    for _ in range(150):
        busy.round(lose_every=2)
    assert busy.got == pytest.approx(0.2 / (0.2 + 2 * 0.8), abs=0.02)  # every second one, of 0.25 for each live image


def test_a_line_that_is_idle_grants_nothing(engine: Engine) -> None:
    for _ in range(50):
        with engine.begin() as connection:
            bulk_share.note_scored(connection, 1000)
        assert look(engine, feed_newest=0) == 0
    # Fifty thousand images that bulk work had for nothing are held against it for one minibatch only.
    of_live = round(MINIBATCH * (1 - 0.1) / 0.1)
    assert look(engine, feed_newest=of_live) == 0
    assert look(engine, feed_newest=2 * of_live) == MINIBATCH


def test_hours_without_bulk_work_pile_up_no_credit(engine: Engine) -> None:
    for hour in range(1, 10):
        assert look(engine, feed_newest=100_000 * hour, waiting=False) == 0
    assert look(engine, feed_newest=900_000) == MINIBATCH
    assert look(engine, feed_newest=900_000) == 0


def test_one_look_grants_a_bounded_number(engine: Engine) -> None:
    assert look(engine, feed_newest=10_000_000) == 17 * MINIBATCH  # a ninth of `share.LIVE_AT_ONCE`
    assert look(engine, feed_newest=10_000_000) == 0


def test_no_share_grants_nothing(engine: Engine) -> None:
    assert look(engine, feed_newest=1_000_000, of_it=0) == 0


def test_dispatchers_that_look_at_once_grant_once(engine: Engine) -> None:
    look(engine, feed_newest=0)
    for newest in range(1000, 31_000, 1000):
        together = threading.Barrier(4)

        def dispatcher(newest: int = newest, together: threading.Barrier = together) -> int:
            together.wait()
            return look(engine, feed_newest=newest)

        with ThreadPoolExecutor(4) as threads:
            granted = [one.result() for one in [threads.submit(dispatcher) for _ in range(4)]]
        assert sum(one > 0 for one in granted) <= 1
        with engine.begin() as connection:
            seen = connection.execute(text("SELECT credit, feed_seen, scored_seen FROM bulk_share")).one()
        assert seen.feed_seen == newest
        assert seen.scored_seen * 0.9 + seen.credit == pytest.approx(newest * 0.1)  # what was earned, once


def test_what_another_looks_at_is_not_waited_for(engine: Engine) -> None:
    with engine.begin() as other:
        bulk_share.note_scored(other, 1)
        assert look(engine, feed_newest=100_000) == 0
    assert look(engine, feed_newest=100_000) > 0


def test_bulk_uploads_are_no_work_of_the_line(engine: Engine) -> None:
    with engine.begin() as connection:
        recipe_id = make_recipe(connection)
        make_version(connection)
        submit(connection, 3, priority="live")
        submit(connection, 5, priority="bulk")
        for priority in ("live", "bulk"):
            claims = claiming.claim(
                connection, recipe_id=recipe_id, ids=[], priority=priority, at_most=9, lease_seconds=60, worker="test"
            )
            finishing.finish(connection, [passed(one) for one in claims])
    with engine.begin() as connection:
        newest = feed.number_entries(connection).newest
        seen = connection.execute(text("SELECT scored, feed_seen FROM bulk_share")).one()
    assert (newest, seen.scored, newest - seen.feed_seen) == (8, 5, 3)


def test_what_is_granted_is_published_with_live_work(night: RescoringHarness, another_bundle: Path) -> None:
    night.inspect([0.1] * 12)
    night.run(night.version(another_bundle))
    night.plan()
    with night.engine.begin() as connection:
        submit(connection, 2, priority="bulk")
        connection.execute(text("UPDATE bulk_share SET feed_seen = -64"))  # the line has finished so many more
    first, second = Dispatcher(night.settings), Dispatcher(night.settings)
    first.round()
    second.round()
    first.close()
    second.close()
    published = [json.loads(one) for one in night.queues.lrange(LIVE_QUEUE, 0, -1)]
    tasks = [one["headers"]["task"] for one in published]
    # A ninth of the line's 76 images is two minibatches of 4: one for slices, one for uploads. Once.
    assert sorted(tasks) == [Task.RESCORE, Task.SCORE]


@pytest.fixture
def night(settings: Settings, engine: Engine, bundle: Path) -> Iterator[RescoringHarness]:
    """An archive scored by version 1, beside an empty line."""
    made = RescoringHarness(settings, engine)
    made.version(bundle)
    made.queues.flushdb()
    yield made
    made.queues.flushdb()  # to other tests, what is published here would be live work that waits
    made.close()
