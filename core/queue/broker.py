"""The names of queues, tasks and channels, and the settings of Celery, shared by all processes.

Redis holds only hints: a message names rows of `work`, and PostgreSQL is the truth.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any
from uuid import UUID

from core.settings import Settings

LIVE_QUEUE = "live"
LIVE_QUEUES = ("sync", LIVE_QUEUE)
BULK_QUEUE = "bulk"
SCORING_QUEUES = (*LIVE_QUEUES, BULK_QUEUE)  # in the order in which a scoring worker consumes them
IO_QUEUE = "io"
TRAINING_QUEUE = "training"

FINISHED_CHANNEL = "linewatch:finished"
"""Pub/sub: after a finish, the ids of the inspections and batches that became final, separated by spaces."""

MAP_CHANNEL = "linewatch:anomaly-map"
"""Pub/sub: the store key of an anomaly map, heatmap, report or thumbnail that was just written."""

SOCKET_TIMEOUT = 5.0
CONNECT_TIMEOUT = 2.0


class Task(StrEnum):
    """The names of tasks in messages."""

    SCORE = "linewatch.score"
    CHECK_MODEL = "linewatch.check_model"
    RESCORE = "linewatch.rescore"
    RESCORE_REPORT = "linewatch.rescore_report"
    ANOMALY_MAP = "linewatch.anomaly_map"
    HEATMAP = "linewatch.heatmap"
    THUMBNAILS = "linewatch.thumbnails"
    HOUSEKEEPING = "linewatch.housekeeping"
    PLAN_RUN = "linewatch.plan_run"
    TRAIN = "linewatch.train"


def score_arguments(recipe_id: int, priority: str, ids: Sequence[UUID]) -> tuple[int, str, list[str]]:
    """The arguments of `Task.SCORE`, for one recipe and one priority. Without ids it scores the oldest that are queued.

    Bulk work may be sent to the live queue, so the priority is not always the name of the queue.
    """
    return recipe_id, priority, [str(inspection_id) for inspection_id in ids]


def broker_url(redis_url: str) -> str:
    """The broker's URL for kombu, which differs from redis-py's only for Unix sockets."""
    scheme, _, rest = redis_url.partition("://")
    return f"redis+socket://{rest}" if scheme == "unix" else redis_url


def connection_options(settings: Settings) -> dict[str, Any]:
    """The options of every connection to Redis. Clients of Unix sockets do not accept a keepalive option."""
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_TIMEOUT, "health_check_interval": 10}
    if not settings.redis_url.get_secret_value().startswith("unix:"):
        options["socket_keepalive"] = True
    return options


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration, the same in every process that publishes or consumes."""
    return {
        "broker_url": broker_url(settings.redis_url.get_secret_value()),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            # kombu would keep unacknowledged messages in Redis, too, to deliver them again. A worker whose slots all
            # ended while Redis was down could then acknowledge nothing, and took no message ever after.
            "ack_emulation": False,
            "queue_order_strategy": "priority",
            "socket_timeout": SOCKET_TIMEOUT,
            **connection_options(settings),
        },
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,  # a task that kills its process must not be repeated without end
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_default_queue": IO_QUEUE,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,  # or whoever can write to Redis could shut workers down
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "task_publish_retry": False,
    }
