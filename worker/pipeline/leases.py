"""Renew the leases of claimed work while it is in progress, so that slow work is not mistaken for lost work.

A worker that is killed stops renewing, and its leases expire.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from core.database import UNUSABLE

log = logging.getLogger(__name__)

T = TypeVar("T")

RENEW_SHARE = 0.3
"""Leases are renewed after this share of their length."""
STUCK_SECONDS = 360.0
"""Work that takes longer is stuck, and its leases are no longer renewed."""

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 1.0
"""Seconds between two tries to write to a database that cannot be used."""


@contextmanager
def keep_renewed(
    renew: Callable[[], bool], *, lease_seconds: float, every: float | None = None, stuck_seconds: float | None = None
) -> Iterator[threading.Event]:
    """Renew a lease until the `with` block ends, every `every` seconds or after the usual share of its length.

    The event that it yields is set once `renew` returns False: the claim is lost, so stop the work.

    Args:
        stuck_seconds: a block that takes longer is stuck; by default `STUCK_SECONDS`.
    """
    done, lost = threading.Event(), threading.Event()
    pause = every or lease_seconds * RENEW_SHARE
    max_renewals = int((STUCK_SECONDS if stuck_seconds is None else stuck_seconds) / pause)

    def keep() -> None:
        for _ in range(max_renewals):
            if done.wait(pause):
                return
            try:
                if not renew():
                    lost.set()
                    return
            except UNUSABLE as error:
                log.warning("could not renew a lease: %s", error)

    renewing = threading.Thread(target=keep, name="renew", daemon=True)
    renewing.start()
    try:
        yield lost
    finally:
        done.set()
        renewing.join()


def write_when_usable(write: Callable[[], T], what: str) -> T:
    """Call `write` again and again while the database cannot be used, as long as leases are renewed.

    Work that is done is worth waiting for: otherwise it is done again, and an expired lease counts against its images.

    Args:
        what: what is written, for the log.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: one of `core.database.UNUSABLE`, after `STUCK_SECONDS`.
    """
    give_up_at = time.monotonic() + STUCK_SECONDS
    pause = FIRST_PAUSE
    while True:
        try:
            return write()
        except UNUSABLE as error:
            if time.monotonic() + pause > give_up_at:
                raise
            if pause == FIRST_PAUSE:
                log.warning("could not write %s, trying again: %s", what, error)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
