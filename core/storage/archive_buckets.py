"""Archives in S3 buckets. Credentials, region and endpoint come from the standard `AWS_*` variables."""

import datetime as dt
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import S3Store

from core.errors import Code, Failure, Refused
from core.intake.image_decoding import Undecodable
from core.intake.image_formats import has_image_suffix
from core.storage.archive_location import ArchiveLocation, ArchiveUnavailable

if TYPE_CHECKING:
    from obstore import GetResult
    from obstore.store import ClientConfig, RetryConfig

_PAGE = 1000  # the most keys that S3 returns per request
_BLOCK = 256 * 1024
# Retries of an unavailable server stop after about half a minute. No request takes longer than its timeout.
_TIMEOUTS: "ClientConfig" = {"connect_timeout": dt.timedelta(seconds=5), "timeout": dt.timedelta(seconds=30)}
_RETRIES: "RetryConfig" = {
    "max_retries": 3,
    "retry_timeout": dt.timedelta(seconds=20),
    "backoff": {"init_backoff": dt.timedelta(milliseconds=200), "max_backoff": dt.timedelta(seconds=2), "base": 2},
}


def parts_of_url(url: str) -> list[str] | None:
    """Bucket and key parts of an `s3://` URL (not percent-encoded); None for any other text."""
    scheme, _, rest = url.partition("://")
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    return parts if scheme.lower() == "s3" and parts else None


@lru_cache
def _store(bucket: str) -> S3Store:
    # Passing client options makes obstore ignore all of those in the environment.
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    return S3Store(bucket, client_options={**_TIMEOUTS, "allow_http": allow_http}, retry_config=_RETRIES)


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
            raise Undecodable(Failure.IMAGE_MISSING, f"The object cannot be read: {_reason(error)}") from error

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
                    f"{self.url} contains a key that cannot be listed. Rename the object: {_reason(error)}",
                ) from error
            raise self._unavailable(error) from error

    def _key(self, name: str) -> str:
        parts = parts_of_url(name if "://" in name else f"s3://{self._bucket}/{self._prefix}{name}")
        is_below = parts is not None and parts[: len(self._root)] == self._root and ".." not in parts
        if parts is None or not is_below or name.startswith("/"):
            raise Undecodable(Failure.OUTSIDE_ROOT, "The path is outside the archive root.")
        return "/".join(parts[1:])

    def _unavailable(self, error: Exception) -> ArchiveUnavailable:
        return ArchiveUnavailable(f"{self.url} cannot be read: {_reason(error)}")


def _stream(result: "GetResult") -> Iterator[bytes]:
    for block in result.stream(min_chunk_size=_BLOCK):
        yield bytes(block)


def _reason(error: Exception) -> str:
    return " ".join(f"{error}".partition("Debug source:")[0].split())[:500]
