"""The user's cache folder, with the state that lets an interrupted command continue."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cache_folder(purpose: str) -> Path | None:
    """Return the folder for a purpose, created if it is missing; None if there is no writable cache."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "linewatch", purpose)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # read-only, or no home folder
        return None
    return folder if os.access(folder, os.W_OK) else None


def name_for(about: Mapping[str, Any]) -> str:
    """Return a file's name, without a suffix, for state that `about` identifies: the hash of its JSON."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
