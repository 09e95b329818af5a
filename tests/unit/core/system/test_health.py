"""The health in one line: what is down, what is degraded, and what is nobody's concern."""

import datetime as dt
from typing import Any
from uuid import UUID

import pytest

from core.system.documents import EndpointState, Health, Queue, Store, Worker
from core.system.health import assess

NOW = dt.datetime(2026, 1, 2, 12, tzinfo=dt.UTC)
STORE = Store(
    images=1, image_bytes=1, counted_at=NOW, disk_of="store", disk_bytes=1000, disk_free_bytes=500, min_free_bytes=10
)
ENDPOINT = EndpointState(
    id=UUID(int=1), url="https://mes.example/…", state="enabled", disabled_because=None, failing_since=None,
    pending=0, exhausted=0,
)  # fmt: skip


def worker(kind: str, state: str = "ready", **fields: Any) -> Worker:
    return Worker.model_validate(
        {
            "name": f"host/{kind}",
            "kind": kind,
            "state": state,
            "version": "1",
            "device": None,
            "models": [],
            "minibatch_fill": None,
            "images_per_second": None,
            "started_at": NOW - dt.timedelta(hours=1),
            "heartbeat_at": NOW,
            "heartbeat_age_s": 0.0,
            **fields,
        }
    )


def queue(name: str = "live", **fields: Any) -> Queue:
    return Queue.model_validate(
        {"name": name, "waiting": 0, "running": 0, "waiting_for_model": 0, "oldest_age_s": None, "messages": 0} | fields
    )


ALL = [worker("scoring"), worker("io"), worker("dispatcher")]
LOST: dict[str, Any] = {"state": "lost", "heartbeat_at": NOW - dt.timedelta(minutes=1), "heartbeat_age_s": 60.0}


def health(**parts: Any) -> Health:
    given: dict[str, Any] = {"queues": [queue()], "workers": ALL, "store": STORE, "endpoints": [ENDPOINT]} | parts
    return assess(**given)


def test_a_system_in_which_everything_works_is_ok() -> None:
    assert health() == Health(status="ok", reasons=[])


@pytest.mark.parametrize(
    ("parts", "status", "words"),
    [
        ({"workers": ALL[1:]}, "down", "No scoring worker is running"),
        ({"workers": [worker("scoring", "starting"), *ALL[1:]]}, "down", "No scoring worker is running"),
        ({"workers": [worker("scoring", **LOST), *ALL[1:]]}, "down", "No scoring worker is running"),
        ({"store": STORE.model_copy(update={"disk_bytes": None})}, "down", "The store cannot be read"),
        ({"workers": [ALL[0], ALL[2]]}, "degraded", "No io worker is running"),
        ({"workers": ALL[:2]}, "degraded", "No dispatcher is running"),
        ({"workers": [*ALL, worker("training", "unready")]}, "degraded", "The training worker host/training is not"),
        ({"workers": [*ALL, worker("scoring", **LOST)]}, "degraded", "was last heard 60 s ago"),
        ({"queues": [queue(messages=None)]}, "degraded", "Redis cannot be reached"),
        ({"queues": [queue(waiting=70, oldest_age_s=61.0)]}, "degraded", "70 images wait in the queue live"),
        ({"store": STORE.model_copy(update={"disk_free_bytes": 49})}, "degraded", "almost full: 4.9% is free"),
        ({"endpoints": [ENDPOINT.model_copy(update={"failing_since": NOW})]}, "degraded", "2026-01-02 12:00 UTC"),
    ],
)
def test_what_needs_attention_is_said(parts: dict[str, Any], status: str, words: str) -> None:
    found = health(**parts)
    assert found.status == status
    assert words in found.reasons[0]


@pytest.mark.parametrize(
    "parts",
    [
        {"queues": [queue("bulk", waiting=7000, oldest_age_s=3600.0)]},
        {"workers": [*ALL, worker("scoring", **LOST), worker("scoring", started_at=NOW)]},
        {"workers": [*ALL, worker("io", "stopping")]},
        {"endpoints": [ENDPOINT.model_copy(update={"failing_since": NOW, "state": "disabled"})]},
    ],
)
def test_what_needs_no_attention_is_not_said(parts: dict[str, Any]) -> None:
    assert health(**parts).status == "ok"


def test_the_most_serious_reason_comes_first() -> None:
    found = health(workers=[worker("io")], queues=[queue(messages=None)])
    assert found.status == "down"
    assert [reason.split()[1] for reason in found.reasons] == ["scoring", "dispatcher", "cannot"]
