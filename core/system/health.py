"""The health of the system in one line, and why."""

from collections.abc import Iterator, Sequence

from core.queue.broker import LIVE_QUEUES
from core.system.documents import EndpointState, Health, Queue, Store, Worker
from core.system.store_usage import LOW_FACTOR

SLOW_SECONDS = 60.0
LEAST_FREE_SHARE = 0.05

_MISSING = {
    "io": "No io worker is running: no webhooks are sent, and re-scoring runs do not start.",
    "dispatcher": "No dispatcher is running: images of lost workers and lost messages wait.",
}


def assess(
    queues: Sequence[Queue], workers: Sequence[Worker], store: Store, endpoints: Sequence[EndpointState]
) -> Health:
    """Return the health and its reasons, the most serious first."""
    serious = [*_why_down(workers, store)]
    other = [*_about_workers(workers), *_about_queues(queues), *_about_store(store), *_about_endpoints(endpoints)]
    status = "down" if serious else "degraded" if other else "ok"
    return Health.model_validate({"status": status, "reasons": [*serious, *other]})


def _why_down(workers: Sequence[Worker], store: Store) -> Iterator[str]:
    if not any(worker.kind == "scoring" and worker.state in ("ready", "unready", "stopping") for worker in workers):
        yield "No scoring worker is running: images are accepted, but not scored."
    if store.disk_bytes is None:
        yield "The store cannot be read: images cannot be stored."
    elif _free_above(store, 1) is False:
        remedy = "" if store.disk_of == "scratch" else ", or shorten the retention of recipes"
        yield f"{_disk(store)} is full: uploads are refused. Make room{remedy}."


def _about_workers(workers: Sequence[Worker]) -> Iterator[str]:
    for kind, sentence in _MISSING.items():
        if not any(worker.kind == kind and worker.state != "lost" for worker in workers):
            yield sentence
    for worker in workers:
        if worker.state == "unready":
            yield f"The {worker.kind} worker {worker.name} is not ready: its log says why."
        elif worker.state == "lost" and not _is_replaced(worker, workers):
            yield f"The {worker.kind} worker {worker.name} was last heard {worker.heartbeat_age_s:.0f} s ago."


def _is_replaced(lost: Worker, workers: Sequence[Worker]) -> bool:
    """Whether another worker of the same kind has started after the last heartbeat of a lost one."""
    return any(
        worker.kind == lost.kind and worker.state != "lost" and worker.started_at > lost.heartbeat_at
        for worker in workers
    )


def _about_queues(queues: Sequence[Queue]) -> Iterator[str]:
    if any(queue.messages is None for queue in queues):
        yield "Redis cannot be reached: images are accepted, and scored once it can."
    for queue in queues:
        if queue.name in LIVE_QUEUES and queue.oldest_age_s is not None and queue.oldest_age_s > SLOW_SECONDS:
            yield (
                f"{queue.waiting} images wait in the queue {queue.name}, the oldest for {queue.oldest_age_s:.0f} s: "
                "the workers are too slow or too few."
            )


def _about_store(store: Store) -> Iterator[str]:
    if store.disk_bytes and store.disk_free_bytes is not None:
        free = store.disk_free_bytes / store.disk_bytes
        if free < LEAST_FREE_SHARE or _free_above(store, LOW_FACTOR) is False:
            yield f"{_disk(store)} is almost full: {free:.1%} is free."


def _disk(store: Store) -> str:
    return "The disk of the scratch folder" if store.disk_of == "scratch" else "The disk of the store"


def _free_above(store: Store, factor: int) -> bool | None:
    """Whether the free space is at least this multiple of the one below which uploads are refused."""
    if store.disk_free_bytes is None or store.min_free_bytes is None:
        return None
    return store.disk_free_bytes >= factor * store.min_free_bytes


def _about_endpoints(endpoints: Sequence[EndpointState]) -> Iterator[str]:
    for endpoint in endpoints:
        if endpoint.state == "enabled" and endpoint.failing_since is not None:
            yield f"The webhook endpoint {endpoint.id} has failed since {endpoint.failing_since:%Y-%m-%d %H:%M} UTC."
