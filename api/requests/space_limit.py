"""The limit of the free space of the store: uploads are refused while PostgreSQL still has room."""

import logging
from pathlib import Path

from core.errors import Code, Refused
from core.system import store_usage
from core.system.store_usage import Disk

log = logging.getLogger(__name__)


class SpaceLimit:
    """The free space at the last measurement. Requests only compare it; `measure` is called every second."""

    def __init__(self, folder: Path, min_free_bytes: int | None) -> None:
        self._folder = folder
        self._min_free_bytes = min_free_bytes
        self._disk: Disk | None = None
        self._was_low = self._was_full = False

    def measure(self) -> None:
        """Measure the free space. Log when it becomes low, when it falls below the limit, and when it rises again."""
        disk = store_usage.disk(self._folder, self._min_free_bytes)
        self._disk = disk
        if disk is None:  # each write to the store says why
            return
        if disk.is_full and not self._was_full:
            log.error("the store is full: %s. Uploads are refused until there is more room", _described(disk))
        elif disk.is_low and not self._was_low:
            log.warning("the store is almost full: %s. Make room, or shorten the retention", _described(disk))
        elif self._was_full and not disk.is_full:
            log.warning("the store has room again: %s. Uploads are accepted", _described(disk))
        self._was_full, self._was_low = disk.is_full, disk.is_low

    def check(self) -> None:
        """Refuse an upload if the store has too little free space.

        Raises:
            Refused: STORE_FULL.
        """
        if self._disk is not None and self._disk.is_full:
            raise Refused(
                Code.STORE_FULL,
                f"The image store has too little free space: {_described(self._disk)}. Nothing was accepted.",
            )


def _described(disk: Disk) -> str:
    return f"{disk.free_bytes / 1e6:,.0f} MB are free, and uploads need {disk.min_free_bytes / 1e6:,.0f} MB"
