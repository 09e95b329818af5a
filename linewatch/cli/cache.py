"""The user's cache folder, with the state that lets an interrupted command continue."""

import os
from pathlib import Path


def cache_folder(purpose: str) -> Path | None:
    """Return the folder for a purpose, created if it is missing; None if there is no writable cache."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "linewatch", purpose)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # read-only, or no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None
