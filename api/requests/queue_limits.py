"""Limits of inspections in flight, one for each lane: bulk work must never block the line."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping

from core.errors import Code, Refused
from core.queue.depths import Lane
from core.settings import Settings

RECIPE_SHARE = 0.8
"""The maximum share of a lane for one recipe, so that a lane always has space for other recipes."""
RESUME_SHARE = 0.9
"""`Retry-After` is the time until a full lane has drained to this share of its limit."""
MIN_RETRY, MAX_RETRY, DEFAULT_RETRY = 1, 300, 10  # seconds; the default applies until a drain rate is measured
_SMOOTHING = 0.3
_NAMES: Mapping[Lane, str] = {"live": "live", "bulk": "bulk", "waiting": "waiting (without a model version)"}


class QueueLimits:
    """The last counted depths of the lanes, plus what this process has accepted since. Not thread-safe."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits: dict[Lane, int] = {
            "live": settings.max_queue_depth,
            "bulk": settings.max_bulk_depth,
            "waiting": settings.max_waiting_depth,
        }
        self._clock = clock
        self._depths: Counter[tuple[Lane, str]] = Counter()
        self._accepted: Counter[Lane] = Counter()
        self._counted_at: float | None = None
        self._drain_rates: dict[Lane, float] = {}  # inspections per second

    def check(self, lane: Lane, recipe: str) -> None:
        """Check that a lane has space for one more inspection of a recipe.

        Raises:
            Refused: QUEUE_FULL; WAITING_QUEUE_FULL for a recipe without a model version.
        """
        limit = self._limits[lane]
        depth, recipe_depth = self._depth(lane), self._depths[lane, recipe]
        if depth >= limit:
            raise self._full(lane, f"{depth} {_NAMES[lane]} inspections are in flight; the limit is {limit}.", depth)
        recipe_limit = math.ceil(RECIPE_SHARE * limit)
        if recipe_depth >= recipe_limit:
            detail = (
                f"{recipe_depth} {_NAMES[lane]} inspections of recipe {recipe!r} are in flight; "
                f"its limit is {recipe_limit}."
            )
            raise self._full(lane, detail, depth)

    def add(self, lane: Lane, recipe: str, number: int) -> None:
        """Count newly accepted inspections."""
        self._depths[lane, recipe] += number
        self._accepted[lane] += number

    def update(self, depths: Counter[tuple[Lane, str]], *, accepted_before: Counter[Lane]) -> None:
        """Set the depths to a new count, and measure the drain rates.

        Args:
            accepted_before: the value of `accepted` before the count.
        """
        now = self._clock()
        for lane in self._limits:
            counted = sum(number for (counted_lane, _), number in depths.items() if counted_lane == lane)
            if self._counted_at is not None and now > self._counted_at:
                rate = max(0.0, (self._depth(lane) - counted) / (now - self._counted_at))
                self._drain_rates[lane] = self._drain_rates.get(lane, rate) * (1 - _SMOOTHING) + rate * _SMOOTHING
        since = {lane: self._accepted[lane] - accepted_before[lane] for lane in self._limits}
        self._depths = Counter(depths)
        for lane, number in since.items():  # their recipes are unknown until the next count
            self._depths[lane, ""] += number
        self._counted_at = now

    @property
    def accepted(self) -> Counter[Lane]:
        """The number of inspections that this process has accepted, by lane."""
        return Counter(self._accepted)

    def _depth(self, lane: Lane) -> int:
        return sum(number for (counted_lane, _), number in self._depths.items() if counted_lane == lane)

    def _full(self, lane: Lane, detail: str, depth: int) -> Refused:
        code = Code.WAITING_QUEUE_FULL if lane == "waiting" else Code.QUEUE_FULL
        return Refused(code, f"{detail} Retry later.", retry_after=self._retry_after(lane, depth))

    def _retry_after(self, lane: Lane, depth: int) -> int:
        rate = self._drain_rates.get(lane, 0.0)
        if not rate:
            return DEFAULT_RETRY
        seconds = math.ceil((depth - RESUME_SHARE * self._limits[lane]) / rate)
        return min(max(seconds, MIN_RETRY), MAX_RETRY)
