"""The address of the broker, and the settings of Celery that keep messages harmless."""

from core.queue.broker import broker_url, celery_settings
from core.settings import Settings


def test_the_broker_is_addressed_as_kombu_wants_it() -> None:
    assert broker_url("unix:///run/valkey.sock") == "redis+socket:///run/valkey.sock"
    assert broker_url("redis://:secret@host:6379/1") == "redis://:secret@host:6379/1"


def test_lost_workers_cannot_make_a_message_run_for_ever() -> None:
    celery = celery_settings(Settings())
    assert celery["task_acks_late"]
    assert not celery["task_reject_on_worker_lost"]
    assert celery["worker_prefetch_multiplier"] == 1
    assert celery["broker_transport_options"]["queue_order_strategy"] == "priority"
    assert celery["result_backend"] is None
