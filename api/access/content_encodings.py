"""Compressed bodies of requests: decompressed while they arrive, up to a limit of what they may grow to."""

import zlib

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from core.errors import Code, Refused

CHUNK_BYTES = 256 * 1024
"""The most that is decompressed at once: gzip can grow a thousandfold."""
_GZIP = ("gzip", "x-gzip")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS  # zlib's way to ask for the gzip format


def is_compressed(headers: Headers) -> bool:
    """Return whether the body of a request is gzip.

    Raises:
        Refused: UNSUPPORTED_MEDIA_TYPE if it has another encoding.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return False
    if encoding not in _GZIP:
        detail = f"Content-Encoding: send the body as it is or as gzip, not as {encoding[:40]!r}."
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, detail)
    return True


def decompress(receive: Receive, *, is_upload: bool, most: int) -> Receive:
    """Decompress a gzip body that may grow to `most` bytes.

    A larger one fails with 413, and with 400 what is not gzip, is cut off, or has more than one member.
    """
    body = _GzipBody(most, is_upload=is_upload)
    is_last = is_complete = False

    async def decompressed() -> Message:
        nonlocal is_last, is_complete
        while not is_complete:
            if chunk := body.next_chunk():
                return {"type": "http.request", "body": chunk, "more_body": True}
            if is_last:
                body.check_end()
                is_complete = True
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await receive()
            if message["type"] != "http.request":
                return message
            body.feed(message.get("body", b""))
            is_last = not message.get("more_body", False)
        return await receive()

    return decompressed


class _GzipBody:
    """A gzip body, decompressed piece by piece."""

    def __init__(self, most: int, *, is_upload: bool) -> None:
        self._most = most
        self._is_upload = is_upload
        self._size = 0
        self._has_begun = False
        self._has_more = False
        self._waiting = b""
        self._decompressor = zlib.decompressobj(_GZIP_WINDOW)

    def feed(self, compressed: bytes) -> None:
        self._waiting += compressed
        self._has_begun = self._has_begun or bool(compressed)

    def next_chunk(self) -> bytes:
        """Return up to `CHUNK_BYTES` of the body; nothing if it needs more input, or is complete."""
        if not self._waiting and not self._has_more:
            return b""
        try:
            chunk = self._decompressor.decompress(self._waiting, CHUNK_BYTES)
        except zlib.error as error:
            raise self._fault(Code.MALFORMED_REQUEST, f"The body is not valid gzip: {error}.") from None
        if self._decompressor.unused_data:
            raise self._fault(Code.MALFORMED_REQUEST, "The gzip body has data after its end.")
        self._waiting = self._decompressor.unconsumed_tail
        self._has_more = len(chunk) == CHUNK_BYTES  # the decompressor may hold more, even without further input
        self._size += len(chunk)
        if self._size > self._most:
            detail = f"The gzip body grows to more than {self._most} bytes. Send less at once, or without gzip."
            raise self._fault(Code.UPLOAD_TOO_LARGE, detail)
        return chunk

    def check_end(self) -> None:
        """Check that the body is complete. An empty one is."""
        if self._has_begun and not self._decompressor.eof:
            raise self._fault(Code.MALFORMED_REQUEST, "The gzip body is cut off.")

    def _fault(self, code: Code, detail: str) -> Exception:
        """FastAPI, which reads the bodies that are not uploads, lets only this exception of its own through."""
        if self._is_upload:
            return Refused(code, detail)
        return HTTPException(413 if code is Code.UPLOAD_TOO_LARGE else 400, detail)
