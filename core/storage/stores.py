"""Opens the image store of the settings."""

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from core.settings import Settings
from core.storage.bucket_store import BucketStore
from core.storage.folder_store import FolderStore
from core.storage.image_store import Store
from core.storage.moving_store import MovingStore


def open_store(settings: Settings) -> Store:
    """The image store, with the one that it moves from if there is one.

    Raises:
        OSError: the folder of the store, or the scratch folder, cannot be created.
    """
    new = _open(settings.store_url, settings)
    if settings.store_read_also is None:
        return new
    return MovingStore(new, _open(settings.store_read_also, settings))


def _open(url: str, settings: Settings) -> Store:
    if urlsplit(url).scheme == "s3":
        return BucketStore(url, _default_scratch() if settings.scratch is None else settings.scratch)
    return FolderStore(url)


def _default_scratch() -> Path:
    """A folder of this account in the temporary folder; nobody else can read it.

    Raises:
        PermissionError: somebody else has created it.
    """
    folder = Path(tempfile.gettempdir()) / f"linewatch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat(follow_symlinks=False).st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another account: set LINEWATCH_SCRATCH")
    return folder
