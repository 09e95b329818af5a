"""Each lane has a limit, one recipe cannot fill a lane, and `Retry-After` follows the measured drain rate."""

from collections import Counter
from typing import Any

import pytest

from api.requests.queue_limits import DEFAULT_RETRY, MAX_RETRY, QueueLimits
from core.errors import Code, Refused
from core.queue.depths import Lane, lane_of
from core.settings import Settings

NOTHING: Counter[Any] = Counter()


def limits(clock: list[float] | None = None) -> QueueLimits:
    now = [0.0] if clock is None else clock
    settings = Settings(max_queue_depth=10, max_bulk_depth=10, max_waiting_depth=5)
    return QueueLimits(settings, clock=lambda: now[0])


def refusal(checked: QueueLimits, lane: Lane, recipe: str) -> Refused:
    with pytest.raises(Refused) as raised:
        checked.check(lane, recipe)
    return raised.value


def test_priorities_and_models_decide_the_lane() -> None:
    assert lane_of("bulk", has_model=True) == "bulk"
    assert {lane_of(priority, has_model=True) for priority in ("live", "sync")} == {"live"}
    assert {lane_of(priority, has_model=False) for priority in ("live", "sync", "bulk")} == {"waiting"}


def test_a_full_lane_leaves_the_others_open() -> None:
    checked = limits()
    checked.update(Counter({("bulk", "a"): 8, ("bulk", "b"): 2, ("waiting", "c"): 5}), accepted_before=NOTHING)
    assert refusal(checked, "bulk", "c").code is Code.QUEUE_FULL
    assert refusal(checked, "waiting", "d").code is Code.WAITING_QUEUE_FULL
    checked.check("live", "a")


def test_inspections_accepted_since_the_last_count_are_counted() -> None:
    checked = limits()
    checked.add("live", "a", 7)
    checked.check("live", "a")
    before = checked.accepted
    checked.add("live", "b", 2)
    checked.update(Counter({("live", "a"): 7}), accepted_before=before)  # counted before the last two were inserted
    checked.check("live", "c")
    checked.add("live", "c", 1)
    assert refusal(checked, "live", "c").code is Code.QUEUE_FULL


def test_one_recipe_cannot_fill_a_whole_lane() -> None:
    checked = limits()
    checked.add("live", "greedy", 8)
    assert "of recipe 'greedy'" in refusal(checked, "live", "greedy").detail
    checked.check("live", "other")


def test_retry_after_is_the_time_until_a_slot_is_free() -> None:
    now = [0.0]
    checked = limits(now)
    checked.add("bulk", "a", 5)
    checked.add("bulk", "b", 5)
    assert refusal(checked, "bulk", "c").retry_after == DEFAULT_RETRY
    checked.update(Counter({("bulk", "a"): 5, ("bulk", "b"): 5}), accepted_before=checked.accepted)
    now[0] = 2.0
    checked.update(Counter({("bulk", "a"): 5, ("bulk", "b"): 4}), accepted_before=checked.accepted)  # 0.5 a second
    checked.add("bulk", "a", 2)
    assert refusal(checked, "bulk", "c").retry_after == 4  # 11 in flight; there is room again at 9, nine tenths of 10
    now[0] = 1e6
    checked.update(Counter({("bulk", "a"): 6, ("bulk", "b"): 5}), accepted_before=checked.accepted)
    for _ in range(60):
        now[0] += 1e3
        checked.update(Counter({("bulk", "a"): 6, ("bulk", "b"): 5}), accepted_before=checked.accepted)
    assert refusal(checked, "bulk", "c").retry_after == MAX_RETRY
