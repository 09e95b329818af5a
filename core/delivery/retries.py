"""The retry schedule: when a delivery that failed is tried again."""

from collections.abc import Sequence

MAX_RETRY_AFTER_SECONDS = 24 * 3600.0
JITTER = 0.2
"""Pauses exceed the schedule by up to this share, so that messages that failed together do not retry together."""


def retry_pause(tries: int, schedule: Sequence[float], *, retry_after: float, jitter: float) -> float | None:
    """Seconds from a failed try to the next one, or None after the last.

    Args:
        tries: tries so far, including this one.
        schedule: the pauses after the first, second … try.
        retry_after: the pause that the receiver asked for, of which at most a day is granted.
        jitter: a random number from 0 to 1.
    """
    if tries > len(schedule):
        return None
    return max(schedule[tries - 1] * (1 + JITTER * jitter), min(retry_after, MAX_RETRY_AFTER_SECONDS))
