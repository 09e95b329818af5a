"""Limits of inspections in flight by class; each class has its own limit: bulk work must never block the line."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping

from core.errors import Code, Refused
from core.queue.depths import Depths, WorkClass
from core.settings import Settings

RECIPE_SHARE = 0.8
"""The most of a class's limit that one recipe may use, so that other recipes always have space."""
KEY_SHARE = RECIPE_SHARE
"""The same for one API key, so that other clients always have space."""
RESUME_SHARE = 0.9
"""`Retry-After` is the time until a full class has drained to this share of its limit."""
MIN_RETRY, MAX_RETRY, DEFAULT_RETRY = 1, 300, 10  # seconds; the default applies until a drain rate is measured
_SMOOTHING = 0.3
_NAMES: Mapping[WorkClass, str] = {"live": "live", "bulk": "bulk", "waiting": "waiting (without a model version)"}


class QueueLimits:
    """The depths by class at the last count, plus what this process has accepted since. Not thread-safe."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits: dict[WorkClass, int] = {
            "live": settings.max_queue_depth,
            "bulk": settings.max_bulk_depth,
            "waiting": settings.max_waiting_depth,
        }
        self._clock = clock
        self._depths: Depths = Counter()
        self._accepted: Counter[WorkClass] = Counter()
        self._counted_at: float | None = None
        self._drain_rates: dict[WorkClass, float] = {}  # inspections per second

    def check(self, work_class: WorkClass, recipe: str, api_key: str | None) -> None:
        """Check that a class has space for one more inspection of a recipe from an API key; None has no limit.

        Raises:
            Refused: QUEUE_FULL; WAITING_QUEUE_FULL for a recipe without a model version.
        """
        limit = self._limits[work_class]
        depth = self._depth(work_class)
        in_class = [
            (name, key, number) for (counted, name, key), number in self._depths.items() if counted == work_class
        ]
        recipe_depth = sum(number for name, _, number in in_class if name == recipe)
        key_depth = sum(number for _, key, number in in_class if key == api_key)
        if depth >= limit:
            detail = f"{depth} {_NAMES[work_class]} inspections are in flight; the limit is {limit}."
            raise self._full(work_class, detail, depth)
        recipe_limit = math.ceil(RECIPE_SHARE * limit)
        if recipe_depth >= recipe_limit:
            detail = (
                f"{recipe_depth} {_NAMES[work_class]} inspections of recipe {recipe!r} are in flight; "
                f"its limit is {recipe_limit}."
            )
            raise self._full(work_class, detail, depth)
        key_limit = math.ceil(KEY_SHARE * limit)
        if api_key is not None and key_depth >= key_limit:
            detail = (
                f"{key_depth} {_NAMES[work_class]} inspections of the API key {api_key!r} are in flight; "
                f"its limit is {key_limit}."
            )
            raise self._full(work_class, detail, depth)

    def add(self, work_class: WorkClass, recipe: str, api_key: str | None, number: int) -> None:
        """Count newly accepted inspections."""
        self._depths[work_class, recipe, api_key] += number
        self._accepted[work_class] += number

    def update(self, depths: Depths, *, accepted_before: Counter[WorkClass]) -> None:
        """Set the depths to a new count, and measure the drain rates.

        Args:
            accepted_before: the value of `accepted` before the count.
        """
        now = self._clock()
        for work_class in self._limits:
            counted = sum(number for (counted_class, _, _), number in depths.items() if counted_class == work_class)
            if self._counted_at is not None and now > self._counted_at:
                rate = max(0.0, (self._depth(work_class) - counted) / (now - self._counted_at))
                before = self._drain_rates.get(work_class, rate)
                self._drain_rates[work_class] = before * (1 - _SMOOTHING) + rate * _SMOOTHING
        since = {work_class: self._accepted[work_class] - accepted_before[work_class] for work_class in self._limits}
        self._depths = Counter(depths)
        for work_class, number in since.items():  # their recipes and keys are unknown until the next count
            self._depths[work_class, "", None] += number
        self._counted_at = now

    @property
    def accepted(self) -> Counter[WorkClass]:
        """The number of inspections that this process has accepted, by class."""
        return Counter(self._accepted)

    @property
    def are_unused(self) -> bool:
        """Whether nothing is in flight."""
        return not any(self._depths.values())

    def _depth(self, work_class: WorkClass) -> int:
        return sum(number for (counted_class, _, _), number in self._depths.items() if counted_class == work_class)

    def _full(self, work_class: WorkClass, detail: str, depth: int) -> Refused:
        code = Code.WAITING_QUEUE_FULL if work_class == "waiting" else Code.QUEUE_FULL
        return Refused(code, f"{detail} Retry later.", retry_after=self._retry_after(work_class, depth))

    def _retry_after(self, work_class: WorkClass, depth: int) -> int:
        rate = self._drain_rates.get(work_class, 0.0)
        if not rate:
            return DEFAULT_RETRY
        seconds = math.ceil((depth - RESUME_SHARE * self._limits[work_class]) / rate)
        return min(max(seconds, MIN_RETRY), MAX_RETRY)
