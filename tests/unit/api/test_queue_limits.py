"""Each class has its own limit, one recipe cannot fill a class, and `Retry-After` follows the measured drain rate."""

from collections import Counter
from typing import Any

import pytest

from api.requests.queue_limits import DEFAULT_RETRY, MAX_RETRY, QueueLimits
from core.errors import Code, Refused
from core.queue.depths import WorkClass, work_class_of
from core.settings import Settings

NOTHING: Counter[Any] = Counter()


def limits(clock: list[float] | None = None) -> QueueLimits:
    now = [0.0] if clock is None else clock
    settings = Settings(max_queue_depth=10, max_bulk_depth=10, max_waiting_depth=5)
    return QueueLimits(settings, clock=lambda: now[0])


def refusal(checked: QueueLimits, work_class: WorkClass, recipe: str, api_key: str | None = None) -> Refused:
    with pytest.raises(Refused) as raised:
        checked.check(work_class, recipe, api_key)
    return raised.value


def test_priorities_and_models_decide_the_class() -> None:
    assert work_class_of("bulk", has_model=True) == "bulk"
    assert {work_class_of(priority, has_model=True) for priority in ("live", "sync")} == {"live"}
    assert {work_class_of(priority, has_model=False) for priority in ("live", "sync", "bulk")} == {"waiting"}


def test_a_full_class_leaves_the_others_open() -> None:
    checked = limits()
    checked.update(
        Counter({("bulk", "a", None): 8, ("bulk", "b", None): 2, ("waiting", "c", None): 5}), accepted_before=NOTHING
    )
    assert refusal(checked, "bulk", "c").code is Code.QUEUE_FULL
    assert refusal(checked, "waiting", "d").code is Code.WAITING_QUEUE_FULL
    checked.check("live", "a", None)


def test_inspections_accepted_since_the_last_count_are_counted() -> None:
    checked = limits()
    checked.add("live", "a", None, 7)
    checked.check("live", "a", None)
    before = checked.accepted
    checked.add("live", "b", None, 2)
    checked.update(
        Counter({("live", "a", None): 7}), accepted_before=before
    )  # counted before the last two were inserted
    checked.check("live", "c", None)
    checked.add("live", "c", None, 1)
    assert refusal(checked, "live", "c").code is Code.QUEUE_FULL


def test_one_recipe_cannot_fill_a_whole_class() -> None:
    checked = limits()
    checked.add("live", "greedy", None, 8)
    assert "of recipe 'greedy'" in refusal(checked, "live", "greedy").detail
    checked.check("live", "other", None)


def test_one_api_key_cannot_fill_a_whole_class() -> None:
    checked = limits()
    for recipe in ("a", "b"):
        checked.add("live", recipe, "lw_greedy", 4)
    refused = refusal(checked, "live", "c", "lw_greedy")
    assert refused.code is Code.QUEUE_FULL
    assert refused.detail.startswith("8 live inspections of the API key 'lw_greedy' are in flight; its limit is 8.")
    checked.check("live", "a", "lw_other")
    checked.check("bulk", "a", "lw_greedy")


def test_without_authentication_all_clients_share_the_whole_class() -> None:
    checked = limits()
    checked.add("live", "a", None, 5)
    checked.add("live", "b", None, 4)
    checked.check("live", "c", None)


def test_retry_after_is_the_time_until_a_slot_is_free() -> None:
    now = [0.0]
    checked = limits(now)
    checked.add("bulk", "a", None, 5)
    checked.add("bulk", "b", None, 5)
    assert refusal(checked, "bulk", "c").retry_after == DEFAULT_RETRY
    checked.update(Counter({("bulk", "a", None): 5, ("bulk", "b", None): 5}), accepted_before=checked.accepted)
    now[0] = 2.0
    checked.update(
        Counter({("bulk", "a", None): 5, ("bulk", "b", None): 4}), accepted_before=checked.accepted
    )  # 0.5 a second
    checked.add("bulk", "a", None, 2)
    assert refusal(checked, "bulk", "c").retry_after == 4  # 11 in flight; there is room again at 9, nine tenths of 10
    now[0] = 1e6
    checked.update(Counter({("bulk", "a", None): 6, ("bulk", "b", None): 5}), accepted_before=checked.accepted)
    for _ in range(60):
        now[0] += 1e3
        checked.update(Counter({("bulk", "a", None): 6, ("bulk", "b", None): 5}), accepted_before=checked.accepted)
    assert refusal(checked, "bulk", "c").retry_after == MAX_RETRY
