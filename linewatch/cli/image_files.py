"""The images of a folder, by their suffixes."""

from pathlib import Path

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""In lower case. A test checks that they equal the suffixes that the server accepts in folders."""


def images_in(folder: Path) -> list[Path]:
    """The images of a folder and its subfolders, sorted by name. Hidden files and folders are skipped."""
    images = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    visible = (path for path in images if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())
