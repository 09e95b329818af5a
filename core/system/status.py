"""Read the state of the running system."""

import datetime as dt
from collections.abc import Mapping
from importlib.metadata import version
from uuid import UUID

from redis.exceptions import RedisError
from sqlalchemy import Connection, text

from core.feed import consumers
from core.feed.consumers import Reader
from core.partitions import first_id_of
from core.queue import notifications
from core.queue.broker import IO_QUEUE, SCORING_QUEUES, TRAINING_QUEUE
from core.settings import Settings
from core.system import health, store_usage, workers
from core.system.documents import ConsumerLag, EndpointState, Queue, Store, System
from core.system.store_usage import Disk

QUEUES = (*SCORING_QUEUES, IO_QUEUE, TRAINING_QUEUE)
COUNTED_DELIVERIES = 10_000


def count_messages(settings: Settings) -> dict[str, int] | None:
    """Return the number of messages in each queue in Redis; None if it cannot be reached within seconds."""
    client = notifications.connect(settings)
    try:
        return {queue: int(client.llen(queue)) for queue in QUEUES}
    except (RedisError, OSError):
        return None
    finally:
        client.close()


def read(connection: Connection, reader: Reader, messages: Mapping[str, int] | None, disk: Disk | None) -> System:
    """Return the state of the system.

    Args:
        reader: whose consumers of the feed are listed.
        messages: from `count_messages`.
        disk: of the store, from `core.system.store_usage.disk`.
    """
    queues, known_workers, store = _queues(connection, messages), workers.list_all(connection), _store(connection, disk)
    endpoints = _endpoints(connection)
    day_ago = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    counts = connection.execute(_COUNTS, {"first_id": first_id_of(day_ago)}).one()
    heartbeats = [worker.heartbeat_at for worker in known_workers if worker.kind == "dispatcher"]
    return System(
        health=health.assess(queues, known_workers, store, endpoints),
        version=version("linewatch"),
        schema_version=counts.schema_version,
        queues=queues,
        workers=known_workers,
        dispatcher_seen_at=max(heartbeats, default=None),
        rescues=counts.rescues,
        poison=counts.poison,
        store=store,
        database_bytes=counts.database_bytes,
        consumers=_consumers(connection, reader, counts.newest),
        webhook_endpoints=endpoints,
    )


_COUNTS = text("""
SELECT (SELECT version_num FROM alembic_version) AS schema_version,
    (SELECT coalesce(sum(inspections), 0) FROM rescues WHERE at > now() - interval '1 hour') AS rescues,
    (SELECT count(*) FROM inspections WHERE status = 'failed' AND id >= :first_id AND error_code = 'poison'
        AND finished_at > now() - interval '1 hour') AS poison,
    pg_database_size(current_database()) AS database_bytes,
    coalesce((SELECT max(number) FROM feed), (SELECT expired FROM feed_state)) AS newest
""")

_QUEUES = text("""
SELECT work.priority,
    count(*) FILTER (WHERE work.state = 'queued' AND recipes.active_version_id IS NOT NULL) AS waiting,
    count(*) FILTER (WHERE work.state = 'running') AS running,
    count(*) FILTER (WHERE work.state = 'queued' AND recipes.active_version_id IS NULL) AS waiting_for_model,
    CAST(extract(epoch FROM clock_timestamp() - min(work.created_at) FILTER (
        WHERE work.state = 'queued' AND recipes.active_version_id IS NOT NULL
    )) AS float8) AS oldest_age
FROM work JOIN recipes ON recipes.id = work.recipe_id GROUP BY work.priority
UNION ALL
SELECT 'training',
    count(*) FILTER (WHERE state = 'queued'),
    count(*) FILTER (WHERE state = 'running'),
    0,
    CAST(extract(epoch FROM clock_timestamp() - min(queued_at) FILTER (WHERE state = 'queued')) AS float8)
FROM training_runs WHERE state IN ('queued', 'running')
""")


def _queues(connection: Connection, messages: Mapping[str, int] | None) -> list[Queue]:
    rows = {row.priority: row for row in connection.execute(_QUEUES)}
    queues = []
    for name in QUEUES:
        number, row = None if messages is None else messages[name], rows.get(name)
        if name == IO_QUEUE:
            unknown = dict.fromkeys(("waiting", "running", "waiting_for_model", "oldest_age_s"))
            queues.append(Queue(name=name, messages=number, **unknown))
            continue
        queues.append(
            Queue(
                name=name,
                waiting=row.waiting if row else 0,
                running=row.running if row else 0,
                waiting_for_model=row.waiting_for_model if row else 0,
                oldest_age_s=round(max(0.0, row.oldest_age), 1) if row and row.oldest_age is not None else None,
                messages=number,
            )
        )
    return queues


def _store(connection: Connection, disk: Disk | None) -> Store:
    counted = store_usage.counted(connection)
    return Store(
        images=counted and counted.images,
        image_bytes=counted and counted.bytes,
        counted_at=counted and counted.counted_at,
        disk_of=disk and disk.of,
        disk_bytes=disk and disk.bytes,
        disk_free_bytes=disk and disk.free_bytes,
        min_free_bytes=disk and disk.min_free_bytes,
    )


def _consumers(connection: Connection, reader: Reader, newest: int) -> list[ConsumerLag]:
    return [
        ConsumerLag(
            name=consumer.name,
            behind=max(0, newest - consumer.cursor.number),
            acknowledged_at=consumer.acknowledged_at,
        )
        for consumer in consumers.list_visible(connection, reader)
    ]


# Exhausted deliveries are days old when their last try fails, so the newest ones are counted by the time of that. The
# orders and the comparison of rows leave the planner no choice but the partial indexes, whose ends are read.
_ENDPOINTS = text("""
SELECT id, url, state, disabled_because, failing_since,
    (SELECT count(*) FROM (
        SELECT FROM deliveries WHERE endpoint_id = endpoint.id AND state = 'pending'
        ORDER BY next_try_at LIMIT :at_most
    ) AS pending) AS pending,
    (SELECT count(*) FROM (
        SELECT finished_at FROM deliveries
        WHERE (endpoint_id, id) >= (endpoint.id, CAST(:first_id AS uuid))
          AND (endpoint_id, id) <= (endpoint.id, CAST(:last_id AS uuid)) AND state = 'exhausted'
        ORDER BY endpoint_id DESC, id DESC LIMIT :at_most
    ) AS exhausted WHERE finished_at > now() - interval '1 day') AS exhausted
FROM webhook_endpoints AS endpoint WHERE state <> 'deleted' ORDER BY id
""")


def _endpoints(connection: Connection) -> list[EndpointState]:
    ends = {"first_id": UUID(int=0), "last_id": UUID(int=2**128 - 1)}
    rows = connection.execute(_ENDPOINTS, {"at_most": COUNTED_DELIVERIES, **ends})
    return [EndpointState(**row._mapping) for row in rows]
