"""The broker URL, and the Celery settings for lost workers."""

from core.queue.broker import broker_url, celery_settings
from core.settings import Settings


def test_the_broker_url_has_the_form_that_kombu_expects() -> None:
    assert broker_url("unix:///run/valkey.sock") == "redis+socket:///run/valkey.sock"
    assert broker_url("redis://:secret@host:6379/1") == "redis://:secret@host:6379/1"


def test_messages_are_not_redelivered_after_a_lost_worker() -> None:
    celery = celery_settings(Settings())
    assert celery["task_acks_late"]
    assert not celery["task_reject_on_worker_lost"]
    assert celery["worker_prefetch_multiplier"] == 1
    assert celery["broker_transport_options"]["queue_order_strategy"] == "priority"
    assert celery["result_backend"] is None


def test_messages_cannot_control_workers() -> None:
    assert not celery_settings(Settings())["worker_enable_remote_control"]
