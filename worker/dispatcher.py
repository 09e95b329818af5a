"""The dispatcher publishes forgotten work. Several dispatchers may run; they skip each other's rows.

Redis may lose every message, because PostgreSQL has all the work. Within seconds the dispatcher finds expired leases,
deadlines that have passed, rows that were never published, rows whose message was lost, training runs that wait, and
model versions that no worker has checked. It also numbers new entries of the feed, so that readers need not wait for
that, counts them for statistics and by day, and judges the drift of recipes.
"""

import logging
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from celery import Celery
from prometheus_client import Counter, Histogram
from sqlalchemy import Connection, Engine

from core.database import UNUSABLE, create_pool
from core.drift import counting, episodes, report
from core.feed import feed
from core.metrics import DURATIONS
from core.models import model_versions, recipes
from core.queue import bulk_share, finishing, leases, notifications, publishing
from core.queue.broker import (
    BULK_QUEUE,
    IO_QUEUE,
    LIVE_QUEUE,
    SCORING_QUEUES,
    TRAINING_QUEUE,
    Task,
    celery_settings,
    score_arguments,
)
from core.queue.finishing import Finished
from core.queue.notifications import Notifier
from core.queue.publishing import Publishable
from core.rescoring import planning, schedules, slices
from core.settings import Settings, settings_or_exit
from core.statistics import counting as statistics
from core.system import workers
from core.system.final_counts import FinalCounts
from core.system.unfinished import is_anything_unfinished
from core.training_runs import claims
from worker import metrics_server
from worker.heartbeat import Activity, Heartbeat
from worker.logs import set_up_logging
from worker.outages import BROKER_DOWN
from worker.schema import wait_until_migrated

log = logging.getLogger(__name__)

AT_ONCE = 2000
CHECK_MODELS_SECONDS = 5.0
OVERDUE_CHECK_SECONDS = 30.0
"""A model version that is not under check this long after its upload is checked in turn with live work."""
HOUSEKEEPING_SECONDS = 600.0
SCHEDULES_SECONDS = 5.0
COUNT_SECONDS = 10.0
COUNTED_PIECES = 4
"""Finished inspections are counted in pieces, each in its own transaction, up to a limit; the rest is counted later."""
JUDGE_SECONDS = 300.0
REMOVE_WORKERS_SECONDS = 60.0
UNREADY_SECONDS = 30.0
"""Without a complete round for so long, the dispatcher is not ready."""
POOL_SIZE = 1
WOKEN_AT_ONCE = 4
"""How many messages wake workers for slices. A worker continues while there are slices, so a few suffice."""

_ROUND = Histogram("linewatch_dispatcher_round_duration_seconds", "How long a round takes.", buckets=DURATIONS)
_CHECK_FAILURES = Counter("linewatch_dispatcher_check_failures", "Checks of a round that failed unexpectedly.")
_RESCUES = Counter("linewatch_rescues", "Inspections that were queued again because their worker was lost.")
_REPUBLISHED = Counter(
    "linewatch_republished_inspections", "Inspections that were published again: no message named them.", ["queue"]
)


class Dispatcher:
    """One dispatcher; `round` runs the checks that are due."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._engine: Engine = create_pool(settings, size=POOL_SIZE, name="dispatcher")
        self._celery = Celery("linewatch-dispatcher", set_as_current=False)
        self._celery.conf.update(celery_settings(settings))
        self._redis = notifications.connect(settings)
        self._notifier = Notifier(settings)
        self._final_counts = FinalCounts()
        self._due: dict[Callable[[], None], float] = {}
        self._newest = 0
        self._is_busy = True  # whether anything is unfinished, or ended since the last round
        self._is_behind = True  # whether there are more entries of the feed to count
        self._granted_uploads = False  # whether the last grant went to uploads, not to slices
        self._granted_recipe = 0  # the recipe of the last grant to uploads
        self._unjudged: list[str] = []  # the recipes whose drift is to be judged, one in each round
        self._rounded_at = time.monotonic()
        self._connection: Connection | None = None  # of the current round

    def activity(self) -> Activity:
        """What the dispatcher is doing, for its heartbeat."""
        return Activity(time.monotonic() - self._rounded_at < UNREADY_SECONDS)

    def close(self) -> None:
        self._celery.close()
        self._notifier.close()
        self._redis.close()
        self._engine.dispose()

    def round(self) -> None:
        """Run the checks that are due, over one connection. One that fails does not keep the others from running.

        Raises:
            OperationalError and the like: the database cannot be used.
            RedisError, BrokerError, OSError: Redis cannot be used; changes in the database are kept.
        """
        with _ROUND.time(), self._engine.connect() as self._connection:
            self._run_checks()
        self._rounded_at = time.monotonic()

    def _steps(self) -> Iterator[Callable[[], None]]:
        """The checks of a round. While nothing is unfinished and nothing ended, most are left out."""
        yield self._number_feed
        if self._is_busy:
            yield self._reclaim_expired_leases
            yield self._fail_overdue
            yield self._publish_forgotten
            yield self._keep_rescoring
            yield self._grant_share
            yield self._keep_training
            yield self._count_inspections
        yield lambda: self._every(SCHEDULES_SECONDS, self._start_scheduled)
        yield lambda: self._every(CHECK_MODELS_SECONDS, self._request_model_checks)
        yield lambda: self._every(HOUSEKEEPING_SECONDS, self._request_housekeeping)
        yield lambda: self._every(COUNT_SECONDS, self._count_drift)
        yield lambda: self._every(JUDGE_SECONDS, self._list_unjudged)
        yield self._judge_drift
        yield lambda: self._every(REMOVE_WORKERS_SECONDS, self._remove_lost_workers)

    def _run_checks(self) -> None:
        for step in self._steps():
            try:
                step()
            except (*UNUSABLE, *BROKER_DOWN):
                raise
            except Exception:  # a bug, or data that it does not expect; the other checks must go on
                log.exception("a check failed, trying again in the next round")
                _CHECK_FAILURES.inc()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction of the round's connection."""
        assert self._connection is not None  # noqa: S101 - checks run in rounds
        with self._connection.begin():
            yield self._connection

    def _reclaim_expired_leases(self) -> None:
        with self._transaction() as connection:
            expired = leases.reclaim_expired_leases(connection)
        _RESCUES.inc(expired)
        if expired:
            log.warning("%d leases expired; their inspections are queued again", expired)

    def _fail_overdue(self) -> None:
        with self._transaction() as connection:
            finished = finishing.fail_overdue(connection)
            self._final_counts.learn(connection, finished)
        self._final_counts.add(finished)
        if finished.inspections:
            log.warning("%d inspections passed their deadline", len(finished.inspections))
        self._notifier.finished(finished)

    def _number_feed(self) -> None:
        """Number new entries, and find out whether there is anything for the other checks."""
        self._is_busy = True  # if this fails
        before, numbered = self._newest, feed.MAX_NUMBERED_AT_ONCE
        while numbered >= feed.MAX_NUMBERED_AT_ONCE:  # in pieces, each in its own transaction
            with self._transaction() as connection:
                newest = feed.number_entries(connection).newest
                is_unfinished = is_anything_unfinished(connection)
            numbered, self._newest = newest - self._newest, newest
        self._is_busy = is_unfinished or self._newest != before or self._is_behind

    def _publish_forgotten(self) -> None:
        # Ask Redis first: while it is down, nothing must be marked as published.
        empty = {queue: self._redis.llen(queue) == 0 for queue in SCORING_QUEUES}
        with self._transaction() as connection:
            forgotten = publishing.take_unpublished(connection, at_most=AT_ONCE)
        for queue, queue_is_empty in empty.items():
            with self._transaction() as connection:
                forgotten += publishing.take_with_lost_message(
                    connection, priority=queue, queue_is_empty=queue_is_empty, at_most=AT_ONCE
                )
        self._publish(forgotten)

    def _publish(self, forgotten: Sequence[Publishable]) -> None:
        groups: dict[tuple[int, str], list[UUID]] = defaultdict(list)
        for row in forgotten:
            groups[row.recipe_id, row.priority].append(row.id)
        for (recipe_id, priority), ids in groups.items():
            log.info("published %d forgotten inspections on %s", len(ids), priority)
            _REPUBLISHED.labels(priority).inc(len(ids))
            for start in range(0, len(ids), self._settings.minibatch):
                minibatch = ids[start : start + self._settings.minibatch]
                self._send(Task.SCORE, *score_arguments(recipe_id, priority, minibatch), queue=priority)

    def _start_scheduled(self) -> None:
        with self._transaction() as connection:
            started = schedules.start_due(connection)
        if started:
            log.info("schedules started %d runs", len(started))

    def _keep_rescoring(self) -> None:
        with self._transaction() as connection:
            expired = slices.reclaim_expired_leases(connection)
            due = planning.take_due(connection)
            waiting = slices.count_claimable(connection)
        if expired:
            log.warning("%d slice leases expired; the slices are queued again", expired)
        for run_id in due:
            self._send(Task.PLAN_RUN, str(run_id), queue=IO_QUEUE)
        if waiting and self._redis.llen(BULK_QUEUE) == 0:
            for _ in range(min(waiting, WOKEN_AT_ONCE)):
                self._send(Task.RESCORE, queue=BULK_QUEUE)

    def _keep_training(self) -> None:
        with self._transaction() as connection:
            reclaimed = claims.reclaim_expired_leases(connection)
            queued = claims.count_queued(connection)
        if reclaimed.queued:
            log.warning("%d leases of training runs expired; the runs are queued again", reclaimed.queued)
        self._notifier.finished(Finished([], [], reclaimed.failed))
        if queued and self._redis.llen(TRAINING_QUEUE) == 0:
            self._send(Task.TRAIN, queue=TRAINING_QUEUE)

    def _grant_share(self) -> None:
        """Publish the guaranteed share of bulk work to the live queue. Uploads and slices take turns."""
        minibatch = self._settings.minibatch
        with self._transaction() as connection:
            recipe_id = publishing.next_bulk_recipe(connection, self._granted_recipe)
            has_slices = slices.count_claimable(connection) > 0
            granted = bulk_share.grant(
                connection,
                feed_newest=self._newest,
                share=self._settings.bulk_share,
                minibatch=minibatch,
                waiting=has_slices or recipe_id is not None,
            )
        for _ in range(granted // minibatch):
            self._granted_uploads = recipe_id is not None and not (has_slices and self._granted_uploads)
            if recipe_id is not None and self._granted_uploads:
                self._granted_recipe = recipe_id
                self._send(Task.SCORE, *score_arguments(recipe_id, "bulk", []), queue=LIVE_QUEUE)
            else:
                self._send(Task.RESCORE, minibatch, queue=LIVE_QUEUE)

    def _request_model_checks(self) -> None:
        """Request checks of model versions behind live work, or in turn with it if they have waited for long.

        While live work keeps every worker busy, nobody consumes the bulk queue, and a recipe may wait for its first
        version. A request takes milliseconds of a worker's slot: the check itself runs outside the slots.
        """
        if self._redis.llen(BULK_QUEUE) == 0:
            self._send_model_checks(BULK_QUEUE, older_than_seconds=CHECK_MODELS_SECONDS)
        self._every(OVERDUE_CHECK_SECONDS, self._request_overdue_model_checks)

    def _request_overdue_model_checks(self) -> None:
        self._send_model_checks(LIVE_QUEUE, older_than_seconds=OVERDUE_CHECK_SECONDS)

    def _send_model_checks(self, queue: str, *, older_than_seconds: float) -> None:
        with self._transaction() as connection:
            undecided = model_versions.undecided(connection, older_than_seconds=older_than_seconds)
        for version_id in undecided:
            self._send(Task.CHECK_MODEL, version_id, queue=queue)

    def _request_housekeeping(self) -> None:
        if self._redis.llen(IO_QUEUE) == 0:
            self._send(Task.HOUSEKEEPING, queue=IO_QUEUE)

    def _count_inspections(self) -> None:
        with self._transaction() as connection:
            self._is_behind = statistics.count_more(connection)

    def _count_drift(self) -> None:
        for _ in range(COUNTED_PIECES):
            with self._transaction() as connection:
                if counting.count_finished(connection) < counting.AT_ONCE:
                    break

    def _list_unjudged(self) -> None:
        with self._transaction() as connection:
            self._unjudged = episodes.recipes_to_judge(connection)

    def _judge_drift(self) -> None:
        """Judge one recipe, so that no round takes long, however many recipes there are."""
        if not self._unjudged:
            return
        name = self._unjudged.pop()
        with self._transaction() as connection:
            recipe = recipes.get(connection, name)
            summary = report.summarise(connection, recipe)
            begun = episodes.update(connection, recipe, summary)
        if begun is not None:
            log.warning("drift of recipe %s: %s", name, " ".join(summary.reasons))

    def _remove_lost_workers(self) -> None:
        with self._transaction() as connection:
            workers.remove_lost(connection)

    def _every(self, seconds: float, action: Callable[[], None]) -> None:
        now = time.monotonic()
        if self._due.get(action, 0.0) <= now:
            action()
            self._due[action] = now + seconds

    def _send(self, task: Task, *arguments: Any, queue: str) -> None:
        self._celery.send_task(task, args=list(arguments), queue=queue, ignore_result=True, retry=False)


def run(dispatcher: Dispatcher, stopping: threading.Event, interval: float) -> None:
    """Run rounds until stopped. While a server is down, keep trying."""
    while not stopping.is_set():
        try:
            dispatcher.round()
        except UNUSABLE as error:
            log.warning("the database cannot be used, trying again: %s", error)
        except BROKER_DOWN as error:
            log.warning("Redis cannot be used, trying again: %s", error)
        stopping.wait(interval)


def main() -> None:
    """Dispatch until SIGTERM or SIGINT."""
    settings = settings_or_exit()
    set_up_logging(settings.log_format)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread: the signal may interrupt `stopping.wait` while it holds the lock that `set` needs.
        signal.signal(number, lambda *_: threading.Thread(target=stopping.set).start())
    metrics_server.start(settings)
    wait_until_migrated(settings, stopping)
    dispatcher = Dispatcher(settings)
    heartbeat = Heartbeat(settings, "dispatcher", dispatcher.activity)
    heartbeat.start()
    heartbeat.set_ready()
    try:
        run(dispatcher, stopping, settings.dispatch_interval)
    finally:
        heartbeat.request_stop()
        dispatcher.close()
        heartbeat.stop()


if __name__ == "__main__":
    main()
