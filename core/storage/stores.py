"""Opens the image store of the settings."""

from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import Store


def open_store(settings: Settings) -> Store:
    """The image store.

    Raises:
        OSError: its folder cannot be created.
    """
    return FolderStore(settings.store_url)
