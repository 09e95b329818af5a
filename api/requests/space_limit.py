"""The limit of the free space of the store's disk: uploads are refused while PostgreSQL still has room."""

import logging

from core.errors import Code, Refused
from core.storage.image_store import Store
from core.system import store_usage
from core.system.store_usage import Disk

log = logging.getLogger(__name__)


class SpaceLimit:
    """The free space at the last measurement. Requests only compare it; `measure` is called every second of uploads.

    Attributes:
        is_low: whether it is time to make room.
    """

    def __init__(self, store: Store, min_free_bytes: int | None) -> None:
        self._store = store
        self._min_free_bytes = min_free_bytes
        self._disk: Disk | None = None
        self.is_low = self._was_full = False

    def measure(self) -> None:
        """Measure the free space. Log when it becomes low, when it falls below the limit, and when it rises again."""
        disk = store_usage.disk(self._store, self._min_free_bytes)
        self._disk = disk
        if disk is None:  # each write to the store says why
            return
        if disk.is_full and not self._was_full:
            log.error("%s is full: %s. Uploads are refused until there is more room", _name(disk), _described(disk))
        elif disk.is_low and not self.is_low:
            log.warning("%s is almost full: %s. Make room", _name(disk), _described(disk))
        elif self._was_full and not disk.is_full:
            log.warning("%s has room again: %s. Uploads are accepted", _name(disk), _described(disk))
        self._was_full, self.is_low = disk.is_full, disk.is_low

    def check(self) -> None:
        """Refuse an upload if the store has too little free space.

        Raises:
            Refused: STORE_FULL.
        """
        if self._disk is not None and self._disk.is_full:
            raise Refused(
                Code.STORE_FULL,
                f"{_name(self._disk).capitalize()} has too little free space: {_described(self._disk)}. "
                "Nothing was accepted.",
            )


def _name(disk: Disk) -> str:
    return "the scratch folder" if disk.of == "scratch" else "the image store"


def _described(disk: Disk) -> str:
    return f"{disk.free_bytes / 1e6:,.0f} MB are free, and uploads need {disk.min_free_bytes / 1e6:,.0f} MB"
