"""What folders and buckets have in common: where images of an archive are listed and read from."""

from abc import ABC, abstractmethod
from collections.abc import Iterator


class ArchiveUnavailable(OSError):  # noqa: N818 - it reads as what happened
    """A root or its server is away: no image is at fault, and the same may succeed later."""


class ArchiveLocation(ABC):
    """A folder of an archive, or a prefix of a bucket. Its methods block; an instance may be shared by threads.

    Names are relative to the place, with `/` between their parts. They are listed in the order of the UTF-8 bytes of
    the whole name, `a.png` before `a/b.png`; some servers that speak S3 have an order of their own, and keep to it.

    Attributes:
        url: where it is, in one spelling; `Archives.locate` finds it again by it.
    """

    url: str

    @abstractmethod
    def url_of(self, name: str) -> str:
        """The URL of a file directly in it."""

    @abstractmethod
    def check(self) -> None:
        """See that it can be listed. Raises ArchiveUnavailable."""

    @abstractmethod
    def images(self, after: str | None) -> Iterator[str]:
        """The names of the images in it and below it, strictly after one of them, or all.

        Images are known by their suffix (`core.intake.image_formats`). What is hidden, at any level, is left
        out, and symbolic links to folders are not followed. Memory does not grow with the number of files.

        Raises:
            ArchiveUnavailable: also in the midst of it.
            Refused: SOURCE_REFUSED where it can never be listed.
        """

    @abstractmethod
    def read(self, name: str, *, max_bytes: int) -> bytes:
        """One image: by its listed name, or by an absolute path or URL below the same root.

        Raises:
            core.intake.image_decoding.Undecodable: IMAGE_MISSING, also where it cannot be read; OUTSIDE_ROOT;
                IMAGE_TOO_LARGE above `max_bytes`.
            ArchiveUnavailable: the root or its server is away.
        """

    @abstractmethod
    def blocks(self, name: str, offset: int) -> Iterator[bytes]:
        """The bytes of a file from an offset (of bytes) on, block by block; nothing where it ends before.

        Raises: as `read`.
        """
