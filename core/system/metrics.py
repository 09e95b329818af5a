"""The metrics of the whole system, from the document of `GET /v1/system`.

They are the same whichever api process is asked: take the maximum of several ones, never the sum.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.system.documents import Health, System, Worker, WorkerKind

KEPT_SECONDS = 5.0
"""Scrapes share what was read within this time."""

_KINDS = get_args(WorkerKind)
_STATES = get_args(Worker.model_fields["state"].annotation)
_HEALTH = get_args(Health.model_fields["status"].annotation)
_WORK_STATES = ("waiting", "running", "waiting_for_model")

Sample = tuple[Iterable[Any], float | None]
"""The values of the labels, and the value; without one, the sample is left out."""


class SystemMetrics(Collector):
    """Reads the state of the system when it is scraped. Thread-safe."""

    def __init__(self, read: Callable[[], System | None], clock: Callable[[], float] = time.monotonic) -> None:
        """`read` returns None if the database cannot be used; `clock` returns seconds."""
        self._read = read
        self._clock = clock
        self._system: System | None = None
        self._expires_at = -1.0
        self._reading = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        with self._reading:
            if self._clock() >= self._expires_at:
                self._system = self._read()
                self._expires_at = self._clock() + KEPT_SECONDS
            system = self._system
        yield _gauge("database_up", "Whether the database answers; without it, there are no metrics of the system.",
                     [((), float(system is not None))])  # fmt: skip
        if system is not None:
            yield from families(system)


def families(system: System) -> Iterator[Metric]:
    """The metrics of a state of the system."""
    yield _gauge("health", "1 for the health of the system, as `GET /v1/system` gives it.",
                 [((status,), float(system.health.status == status)) for status in _HEALTH], "status")  # fmt: skip
    yield from _queues(system)
    counts = _worker_counts(system.workers)
    yield _gauge("workers", "Background processes by kind and state.", counts.items(), "kind", "state")
    yield from _store(system)
    yield from _consumers(system)
    yield from _endpoints(system)


def _gauge(name: str, documentation: str, samples: Iterable[Sample], *labels: str) -> Metric:
    family = GaugeMetricFamily(f"linewatch_{name}", documentation, labels=labels)
    for values, value in samples:
        if value is not None:
            family.add_metric([str(label) for label in values], value)
    return family


def _queues(system: System) -> Iterator[Metric]:
    queues = system.queues
    yield _gauge(
        "queue_depth",
        "Inspections by queue: waiting for a worker, running, or waiting for the first model version of their recipe; "
        "in the queue `training`, training runs.",
        [((queue.name, state), getattr(queue, state)) for queue in queues for state in _WORK_STATES],
        "queue",
        "state",
    )
    yield _gauge(
        "queue_oldest_age_seconds",
        "How long the oldest of those that wait for a worker has waited; 0 if none waits.",
        [((queue.name,), queue.oldest_age_s or 0.0) for queue in queues if queue.waiting is not None],
        "queue",
    )
    reachable = all(queue.messages is not None for queue in queues)
    yield _gauge("broker_up", "Whether Redis answers.", [((), float(reachable))])
    yield _gauge("queue_messages", "Messages in Redis.", [((queue.name,), queue.messages) for queue in queues], "queue")


def _worker_counts(workers: Iterable[Worker]) -> Mapping[tuple[str, str], float]:
    """How many workers are in each state, 0 included: an alert on a missing series would not fire."""
    counts = dict.fromkeys(((kind, state) for kind in _KINDS for state in _STATES), 0.0)
    for worker in workers:
        counts[worker.kind, worker.state] += 1
    return counts


def _store(system: System) -> Iterator[Metric]:
    store = system.store
    yield _gauge("store_images", "Uploaded images in the store, counted every ten minutes.", [((), store.images)])
    yield _gauge("store_image_bytes", "Size of the uploaded images, counted likewise.", [((), store.image_bytes)])
    disk_of = (store.disk_of,)
    yield _gauge(
        "store_disk_size_bytes",
        "Size of the disk of the store; with a bucket, of its scratch folder.",
        [(disk_of, store.disk_bytes)],
        "of",
    )
    yield _gauge("store_disk_free_bytes", "Free space on that disk.", [(disk_of, store.disk_free_bytes)], "of")
    yield _gauge(
        "store_disk_min_free_bytes",
        "With less free space on that disk, uploads are refused.",
        [(disk_of, store.min_free_bytes)],
        "of",
    )
    yield _gauge("database_size_bytes", "Size of the database.", [((), system.database_bytes)])


def _consumers(system: System) -> Iterator[Metric]:
    yield _gauge(
        "feed_consumer_lag_entries",
        "Entries of the feed that a consumer has not acknowledged.",
        [((consumer.name,), consumer.behind) for consumer in system.consumers],
        "consumer",
    )
    yield _gauge(
        "feed_consumer_acknowledged_timestamp_seconds",
        "When a consumer last acknowledged entries.",
        [((consumer.name,), consumer.acknowledged_at.timestamp()) for consumer in system.consumers],
        "consumer",
    )


def _endpoints(system: System) -> Iterator[Metric]:
    endpoints = system.webhook_endpoints
    yield _gauge(
        "webhook_deliveries",
        "Deliveries by webhook endpoint: pending, and those whose last attempt failed within a day; up to 10,000 each.",
        [((endpoint.id, state), getattr(endpoint, state)) for endpoint in endpoints
         for state in ("pending", "exhausted")],
        "endpoint",
        "state",
    )  # fmt: skip
    yield _gauge(
        "webhook_endpoint_failing",
        "Whether an enabled webhook endpoint has failed since its last success.",
        [((endpoint.id,), float(endpoint.state == "enabled" and endpoint.failing_since is not None))
         for endpoint in endpoints],
        "endpoint",
    )  # fmt: skip
