"""The guaranteed share of bulk work under full live load, which is never granted twice."""

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
from tests.fixtures.queued_work import make_recipe, make_version, passed, submit
from tests.fixtures.rescoring_workers import RescoringPipeline
from worker.dispatcher import Dispatcher

MINIBATCH = 32
MESSAGES = 12


class BusyMachine:
    """Simulates a machine under a steady live load: messages are queued, and grants behind them."""

    def __init__(self, engine: Engine, *, share: float, backlog: int) -> None:
        self.engine = engine
        self.share = share
        self.backlog = backlog
        self.queue: deque[str] = deque()
        self.live = self.bulk = self.granted = 0

    def round(self, *, lose_every: int = 0) -> None:
        """Run one dispatcher round, in which `MESSAGES` minibatches are scored; every `lose_every`th grant is lost."""
        granted = grant(self.engine, feed_newest=self.live, share=self.share)
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
    def granted_share(self) -> float:
        return self.bulk / (self.bulk + self.live)


def grant(engine: Engine, *, feed_newest: int, share: float = 0.1, waiting: bool = True) -> int:
    with engine.begin() as connection:
        return bulk_share.grant(connection, feed_newest=feed_newest, share=share, minibatch=MINIBATCH, waiting=waiting)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("backlog", [1, 20])
def test_bulk_work_gets_its_share_under_a_steady_live_load(engine: Engine, share: float, backlog: int) -> None:
    busy = BusyMachine(engine, share=share, backlog=backlog)
    for _ in range(150):
        busy.round()
    assert busy.granted_share == pytest.approx(share, abs=0.02)


def test_a_lost_grant_costs_only_itself(engine: Engine) -> None:
    busy = BusyMachine(engine, share=0.2, backlog=10)
    for _ in range(150):
        busy.round(lose_every=2)
    # Half of the 0.25 granted per live image.
    assert busy.granted_share == pytest.approx(0.2 / (0.2 + 2 * 0.8), abs=0.02)


def test_an_idle_line_grants_nothing(engine: Engine) -> None:
    for _ in range(50):
        with engine.begin() as connection:
            bulk_share.note_scored(connection, 1000)
        assert grant(engine, feed_newest=0) == 0
    # Bulk work has scored 50 000 images on an idle line; they delay the next grant by one minibatch only.
    of_live = round(MINIBATCH * (1 - 0.1) / 0.1)
    assert grant(engine, feed_newest=of_live) == 0
    assert grant(engine, feed_newest=2 * of_live) == MINIBATCH


def test_no_credit_accumulates_without_bulk_work(engine: Engine) -> None:
    for hour in range(1, 10):
        assert grant(engine, feed_newest=100_000 * hour, waiting=False) == 0
    assert grant(engine, feed_newest=900_000) == MINIBATCH
    assert grant(engine, feed_newest=900_000) == 0


def test_one_round_grants_a_limited_number(engine: Engine) -> None:
    assert grant(engine, feed_newest=10_000_000) == 17 * MINIBATCH  # a ninth of `share.LIVE_AT_ONCE`
    assert grant(engine, feed_newest=10_000_000) == 0


def test_a_share_of_zero_grants_nothing(engine: Engine) -> None:
    assert grant(engine, feed_newest=1_000_000, share=0) == 0


def test_concurrent_dispatchers_grant_once(engine: Engine) -> None:
    grant(engine, feed_newest=0)
    for newest in range(1000, 31_000, 1000):
        together = threading.Barrier(4)

        def dispatcher(newest: int = newest, together: threading.Barrier = together) -> int:
            together.wait()
            return grant(engine, feed_newest=newest)

        with ThreadPoolExecutor(4) as threads:
            granted = [future.result() for future in [threads.submit(dispatcher) for _ in range(4)]]
        assert sum(images > 0 for images in granted) <= 1
        with engine.begin() as connection:
            share_row = connection.execute(text("SELECT credit, feed_seen, scored_seen FROM bulk_share")).one()
        assert share_row.feed_seen == newest
        assert share_row.scored_seen * 0.9 + share_row.credit == pytest.approx(newest * 0.1)  # earned once


def test_a_locked_share_is_not_waited_for(engine: Engine) -> None:
    with engine.begin() as other:
        bulk_share.note_scored(other, 1)
        assert grant(engine, feed_newest=100_000) == 0
    assert grant(engine, feed_newest=100_000) > 0


def test_bulk_uploads_do_not_count_as_live_work(engine: Engine) -> None:
    with engine.begin() as connection:
        recipe_id = make_recipe(connection)
        make_version(connection)
        submit(connection, 3, priority="live")
        submit(connection, 5, priority="bulk")
        for priority in ("live", "bulk"):
            claims = claiming.claim(
                connection, recipe_id=recipe_id, ids=[], priority=priority, at_most=9, lease_seconds=60, worker="test"
            )
            finishing.finish(connection, [passed(claimed) for claimed in claims])
    with engine.begin() as connection:
        newest = feed.number_entries(connection).newest
        share_row = connection.execute(text("SELECT scored, feed_seen FROM bulk_share")).one()
    assert (newest, share_row.scored, newest - share_row.feed_seen) == (8, 5, 3)


def test_grants_are_published_with_live_work(pipeline: RescoringPipeline, another_bundle: Path) -> None:
    pipeline.inspect([0.1] * 12)
    pipeline.create_run(pipeline.add_version(another_bundle))
    pipeline.plan()
    with pipeline.engine.begin() as connection:
        submit(connection, 2, priority="bulk")
        connection.execute(text("UPDATE bulk_share SET feed_seen = -64"))  # 64 more live inspections were finished
    first, second = Dispatcher(pipeline.settings), Dispatcher(pipeline.settings)
    first.round()
    second.round()
    first.close()
    second.close()
    published = [json.loads(message) for message in pipeline.queues.lrange(LIVE_QUEUE, 0, -1)]
    tasks = [message["headers"]["task"] for message in published]
    # A ninth of the 76 live images is two minibatches of 4: one for slices, one for uploads, granted once.
    assert sorted(tasks) == [Task.RESCORE, Task.SCORE]


@pytest.fixture
def pipeline(settings: Settings, engine: Engine, bundle: Path) -> Iterator[RescoringPipeline]:
    """An archive scored by version 1, without live work."""
    pipeline = RescoringPipeline(settings, engine)
    pipeline.add_version(bundle)
    pipeline.queues.flushdb()
    yield pipeline
    pipeline.queues.flushdb()  # other tests would count these messages as waiting live work
    pipeline.close()
