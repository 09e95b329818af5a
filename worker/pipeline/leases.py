"""Renew the leases of claimed work while it is in progress, so that slow work is not mistaken for lost work.

A worker that is killed stops renewing, and its leases expire.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.database import UNUSABLE

log = logging.getLogger(__name__)

RENEW_SHARE = 0.3
"""Leases are renewed after this share of their length."""
STUCK_SECONDS = 360.0
"""Work that takes longer is stuck, and its leases are no longer renewed."""


@contextmanager
def keep_renewed(
    renew: Callable[[], bool], *, lease_seconds: float, every: float | None = None
) -> Iterator[threading.Event]:
    """Renew a lease until the `with` block ends, every `every` seconds or after the usual share of its length.

    The event that it yields is set once `renew` returns False: the claim is lost, so stop the work.
    """
    done, lost = threading.Event(), threading.Event()
    pause = every or lease_seconds * RENEW_SHARE
    max_renewals = int(STUCK_SECONDS / pause)

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
