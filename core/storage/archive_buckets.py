"""Archives in S3 buckets. Credentials, region and endpoint come from the standard `AWS_*` variables."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import S3Store

from core.errors import Code, Failure, Refused
from core.intake.image_decoding import Undecodable
from core.intake.image_formats import has_image_suffix
from core.storage.archive_location import ArchiveLocation, ArchiveUnavailable
from core.storage.buckets import connect, parts_of_url, reason

if TYPE_CHECKING:
    from obstore import GetResult

_PAGE = 1000  # the most keys that S3 returns per request
_BLOCK = 256 * 1024


@lru_cache
def _store(bucket: str) -> S3Store:
    return connect(bucket, timeout_seconds=30, retry_seconds=20)


class Bucket(ArchiveLocation):
    """A prefix of a bucket, given by its parts below a root, which is also a prefix.

    Prefixes match whole parts: `s3://bucket/a` does not contain `ab/1.png`.
    """

    def __init__(self, bucket: str, root: Sequence[str] = (), inside: Sequence[str] = ()) -> None:
        self._bucket = bucket
        self._root = [bucket, *root]
        self._prefix = "".join(f"{part}/" for part in (*root, *inside))
        self.url = f"s3://{bucket}/{self._prefix}".rstrip("/")

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    def check(self) -> None:
        self.holds_any()

    def holds_any(self) -> bool:
        """Whether any object exists below the prefix. Raises ArchiveUnavailable."""
        return next(self._names(None), None) is not None

    def holds(self, name: str) -> bool:
        """Whether the object exists. Raises ArchiveUnavailable."""
        try:
            _store(self._bucket).head(self._prefix + name)
        except (FileNotFoundError, ValueError):
            self.check()  # a missing bucket gives the same error
            return False
        except BaseError as error:
            raise self._unavailable(error) from error
        return True

    def images(self, after: str | None) -> Iterator[str]:
        for name in self._names(after):
            parts = name.split("/")
            if has_image_suffix(parts[-1]) and not any(part.startswith(".") for part in parts):
                yield name

    def read(self, name: str, *, max_bytes: int) -> bytes:
        key = self._key(name)
        try:
            return self._read(key, max_bytes)
        except FileNotFoundError as error:
            self.check()
            raise Undecodable(Failure.IMAGE_MISSING, "The object does not exist.") from error
        except ValueError as error:
            raise Undecodable(Failure.IMAGE_MISSING, "This is not a valid object name.") from error
        except BaseError:
            self.check()  # an unavailable server is not a fault of this image
        try:
            return self._read(key, max_bytes)
        except (BaseError, OSError, ValueError) as error:
            raise Undecodable(Failure.IMAGE_MISSING, f"The object cannot be read: {reason(error)}") from error

    def blocks(self, name: str, offset: int) -> Iterator[bytes]:
        key = self._key(name)
        try:
            if offset >= _store(self._bucket).head(key)["size"]:
                return
            result = _store(self._bucket).get(key, options={"range": {"offset": offset}})
            yield from _stream(result)
        except FileNotFoundError as error:
            self.check()
            raise Undecodable(Failure.IMAGE_MISSING, "The object does not exist.") from error
        except ValueError as error:
            raise Undecodable(Failure.IMAGE_MISSING, "This is not a valid object name.") from error
        except BaseError as error:
            raise self._unavailable(error) from error

    def _read(self, key: str, max_bytes: int) -> bytes:
        result = _store(self._bucket).get(key)
        if result.meta["size"] > max_bytes:
            raise Undecodable(Failure.IMAGE_TOO_LARGE, f"The object is larger than {max_bytes} bytes.")
        return b"".join(_stream(result))

    def _names(self, after: str | None) -> Iterator[str]:
        offset = None if after is None else self._prefix + after
        try:
            for page in _store(self._bucket).list(self._prefix or None, offset=offset, chunk_size=_PAGE):
                for listed in page:
                    if listed["path"].startswith(self._prefix):  # the prefix itself may be an object
                        yield listed["path"][len(self._prefix) :]
        except (BaseError, OSError, ValueError) as error:
            if "invalid path" in f"{error}":  # obstore cannot list past this key; a retry fails again
                raise Refused(
                    Code.SOURCE_REFUSED,
                    f"{self.url} contains a key that cannot be listed. Rename the object: {reason(error)}",
                ) from error
            raise self._unavailable(error) from error

    def _key(self, name: str) -> str:
        parts = parts_of_url(name if "://" in name else f"s3://{self._bucket}/{self._prefix}{name}")
        is_below = parts is not None and parts[: len(self._root)] == self._root and ".." not in parts
        if parts is None or not is_below or name.startswith("/"):
            raise Undecodable(Failure.OUTSIDE_ROOT, "The path is outside the archive root.")
        return "/".join(parts[1:])

    def _unavailable(self, error: Exception) -> ArchiveUnavailable:
        return ArchiveUnavailable(f"{self.url} cannot be read: {reason(error)}")


def _stream(result: "GetResult") -> Iterator[bytes]:
    for block in result.stream(min_chunk_size=_BLOCK):
        yield bytes(block)
