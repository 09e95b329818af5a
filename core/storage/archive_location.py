"""The interface of archive folders and buckets: list and read images and manifests."""

from abc import ABC, abstractmethod
from collections.abc import Iterator


class ArchiveUnavailable(OSError):  # noqa: N818 - describes the fault
    """A root or its server is unavailable. No image is at fault; a retry may succeed."""


class ArchiveLocation(ABC):
    """A folder of an archive, or a prefix of a bucket. Methods block. Instances can be shared by threads.

    Names are relative to the location, with `/` between their parts. They are listed in the order of the UTF-8 bytes of
    the whole name, `a.png` before `a/b.png`. Some S3-compatible servers use another order, consistently.

    Attributes:
        url: normalised URL of the location; `Archives.locate` accepts it.
    """

    url: str

    @abstractmethod
    def url_of(self, name: str) -> str:
        """The URL of a file directly in this location."""

    @abstractmethod
    def check(self) -> None:
        """Check that the location can be listed. Raises ArchiveUnavailable."""

    @abstractmethod
    def images(self, after: str | None) -> Iterator[str]:
        """The names of all images in and below this location, or only those strictly after the name `after`.

        Images are recognised by suffix (`core.intake.image_formats`). Hidden files and folders are skipped at every
        level, and symbolic links to folders are not followed. Memory does not grow with the number of files.

        Raises:
            ArchiveUnavailable: at any point of the iteration.
            Refused: SOURCE_REFUSED if the location can never be listed.
        """

    @abstractmethod
    def read(self, name: str, *, max_bytes: int) -> bytes:
        """Read one image, by its listed name or by an absolute path or URL below the same root.

        Raises:
            core.intake.image_decoding.Undecodable: IMAGE_MISSING, also if it cannot be read; OUTSIDE_ROOT;
                IMAGE_TOO_LARGE above `max_bytes`.
            ArchiveUnavailable: the root or its server is unavailable.
        """

    @abstractmethod
    def blocks(self, name: str, offset: int) -> Iterator[bytes]:
        """The content of a file from a byte offset to its end, block by block; empty if the file ends before it.

        Raises: see `read`.
        """
