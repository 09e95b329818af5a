"""The user's cache folder: where commands keep what lets an interrupted one go on."""

import os
from pathlib import Path


def cache_folder(purpose: str) -> Path | None:
    """The folder for this, made where it is missing; None where there is no cache that could be written to."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "linewatch", purpose)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # read-only, or no home at all
        return None
    return folder if os.access(folder, os.W_OK) else None
