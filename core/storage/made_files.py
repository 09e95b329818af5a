"""Anomaly maps, heatmaps and reports in the store: made on demand, and deleted when they are old."""

import time
from itertools import islice

from core.storage.image_store import MADE_FOLDERS, Store

KEPT_SECONDS = 30 * 24 * 3600.0
"""How long a file is kept after it was made. It is made again when somebody asks for it."""


def expire(store: Store, *, at_most: int) -> int:
    """Delete files that were made longer ago than `KEPT_SECONDS`. Returns how many.

    Lists the files of the last `KEPT_SECONDS`, too.
    """
    made_before = time.time() - KEPT_SECONDS
    old = (file.key for name in MADE_FOLDERS for file in store.files(name) if file.modified_at < made_before)
    return store.delete(list(islice(old, at_most)))
