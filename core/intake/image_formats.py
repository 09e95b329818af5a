"""Which files are taken for images, by their names. It imports nothing, so that the command line is quick."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


def has_image_suffix(name: str) -> bool:
    """Whether the last part of a path is the name of an image."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and (dot + suffix).lower() in SUFFIXES
