"""Image file suffixes. This module imports nothing, to keep the command line's start fast."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
SUFFIX_OF = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/bmp": ".bmp",
    "image/webp": ".webp",
    "image/tiff": ".tif",
}
"""The file suffix for each media type."""


def has_image_suffix(name: str) -> bool:
    """Whether a path ends in an image suffix, with a non-empty stem."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and (dot + suffix).lower() in SUFFIXES
