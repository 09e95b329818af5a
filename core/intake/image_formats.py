"""Image file suffixes and signatures. This module imports nothing, to keep the command line's start fast."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
SUFFIX_OF = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/bmp": ".bmp",
    "image/webp": ".webp",
    "image/tiff": ".tif",
}
"""The file suffix for each media type."""

_SIGNATURES = (
    ((b"\xff\xd8\xff",), "image/jpeg"),
    ((b"\x89PNG\r\n\x1a\n",), "image/png"),
    ((b"BM",), "image/bmp"),
    ((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), "image/tiff"),
)
SIGNATURE_BYTES = 12


def media_type_of(start: bytes) -> str | None:
    """Return the media type of an image file by its first `SIGNATURE_BYTES`; None if it is of another format."""
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for signatures, media_type in _SIGNATURES if start.startswith(signatures)), None)


def has_image_suffix(name: str) -> bool:
    """Whether a path ends in an image suffix, with a non-empty stem."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and (dot + suffix).lower() in SUFFIXES
