"""Receives images. They are streamed to the store and checked while they arrive; only small ones are held in memory."""

import asyncio
import datetime as dt
import io
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from api.requests.file_names import decoded_file_name
from api.requests.store_refusals import store_refusal
from core.errors import Code, Refused
from core.intake.decoding_limits import has_short_header
from core.intake.image_decoding import Header, read_header
from core.intake.submission import StoredImage
from core.settings import Settings
from core.storage.image_store import Staged, Store

FLUSH_BYTES = 256 * 1024
"""The most of an image that is held in memory."""
FIELD_BYTES = 64 * 1024
ITEMS_BYTES = 4 * 1024 * 1024
MAX_FIELDS = 64
DRAIN_SECONDS = 10
DRAIN_BYTES = 64 * 1024 * 1024
ANY_BYTES = "application/octet-stream"
UNSPECIFIC_TYPES = frozenset({"", ANY_BYTES, "binary/octet-stream", "application/x-www-form-urlencoded"})
"""What clients send that know no image types. The last is the default of curl and PowerShell for any body."""
_THREADS = 16

T = TypeVar("T")


@dataclass(frozen=True)
class Received:
    """A received and checked image, flushed to stable storage."""

    file_name: str | None
    staged: Staged
    image: StoredImage


@dataclass(frozen=True)
class RefusedPart:
    """A refused image of a form. It does not affect the other images."""

    file_name: str | None
    refused: Refused


@dataclass
class Form:
    """A received form: its fields that are not empty, and its images in the order of the form."""

    fields: dict[str, str] = field(default_factory=dict)
    images: list[Received | RefusedPart] = field(default_factory=list)

    @property
    def received(self) -> list[Received]:
        return [image for image in self.images if isinstance(image, Received)]

    def single_image(self, name: str) -> Received:
        """The image of a form with exactly one.

        Raises:
            Refused: EMPTY_BODY without an image, INVALID_FIELD for several; the code of the image if it was refused.
        """
        if len(self.images) != 1:
            raise Refused(
                Code.INVALID_FIELD if self.images else Code.EMPTY_BODY,
                f"{name}: the form must have exactly one image under this name, not {len(self.images)}.",
            )
        image = self.images[0]
        if isinstance(image, RefusedPart):
            raise image.refused
        return image


class _IncomingImage:
    """An image that is being received."""

    def __init__(self, receiver: "UploadReceiver") -> None:
        self._receiver = receiver
        self._buffer = bytearray()
        self._size = 0
        self._staged: Staged | None = None

    async def feed(self, chunk: bytes) -> None:
        self._size += len(chunk)
        self._receiver.check_size(self._size)
        self._buffer += chunk
        if len(self._buffer) >= FLUSH_BYTES:
            await self._receiver.in_thread(self._write)

    async def finish(self, file_name: str | None) -> Received:
        if self._size == 0:
            raise Refused(Code.EMPTY_BODY, "The image is empty.")
        image = await self._receiver.in_thread(self._complete)
        assert self._staged is not None  # noqa: S101 - _complete has set it
        return Received(file_name, self._staged, image)

    async def discard(self) -> None:
        if self._staged is not None:
            await self._receiver.in_thread(self._staged.discard)

    def _write(self) -> Staged:
        if self._staged is None:
            self._staged = self._receiver.store.stage()
        self._staged.write(bytes(self._buffer))
        self._buffer.clear()
        return self._staged

    def _complete(self) -> StoredImage:
        staged = self._write()
        header = read_header(staged.file, max_pixels=self._receiver.max_pixels)
        staged.flush()
        staged.close()
        return StoredImage(dt.datetime.now(dt.UTC).date(), staged.sha256, staged.size, header)


class UploadReceiver:
    """Receives the bodies of uploads."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.store = store
        self.max_pixels = settings.max_image_pixels
        self._max_bytes = settings.max_upload_bytes
        self.max_whole_bytes = min(FLUSH_BYTES, self._max_bytes)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="receive")

    def stop(self) -> None:
        self._threads.shutdown()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run disk work in a thread.

        Raises:
            Refused: STORE_FULL or STORE_UNAVAILABLE if the disk fails.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        except OSError as error:
            raise store_refusal(error) from error

    def check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise Refused(Code.UPLOAD_TOO_LARGE, f"The image must not be larger than {self._max_bytes} bytes.")

    async def whole(self, request: Request) -> bytes:
        """Receive an image of at most `max_whole_bytes` that is the whole body, into memory."""
        stream = request.stream()
        try:
            chunks = [chunk async for chunk in stream]
        except Refused as refused:
            await _drain(request, stream, refused)
            raise
        return b"".join(chunks)

    async def long_header(self, content: bytes) -> Header | None:
        """Read a header that may take long, in a thread of its own; None for others.

        One thread reads those of whole images, for a whole group of requests.

        Raises:
            Refused: see `core.intake.image_decoding.read_header`.
        """
        if has_short_header(content):
            return None
        return await self.in_thread(partial(read_header, io.BytesIO(content), max_pixels=self.max_pixels))

    @asynccontextmanager
    async def raw(self, request: Request) -> AsyncIterator[Received]:
        """Receive an image that is the whole body. It is discarded if the request fails."""
        stream = request.stream()
        incoming = _IncomingImage(self)
        try:
            self.check_size(declared_size(request))
            async for chunk in stream:
                await incoming.feed(chunk)
            yield await incoming.finish(None)
        except BaseException as error:
            await incoming.discard()
            await _drain(request, stream, error)
            raise

    @asynccontextmanager
    async def form(self, request: Request, *, image: str, max_images: int) -> AsyncIterator[Form]:
        """Receive a `multipart/form-data` body: parts named `image` are images, all other parts are fields.

        The images are discarded if the request fails.
        """
        _, options = parse_options_header(request.headers["content-type"])
        stream = request.stream()
        reader = _FormReader(self, image, max_images)
        try:
            with PushMultipartParser(options.get("boundary", ""), max_segment_count=max_images + MAX_FIELDS) as parser:
                async for chunk in stream:
                    for event in parser.parse(chunk) if chunk else ():
                        await reader.take(event)
            yield reader.form
        except BaseException as error:
            await reader.discard()
            await _drain(request, stream, error)
            if isinstance(error, MultipartError):
                raise Refused(Code.MALFORMED_REQUEST, f"The body is not valid multipart/form-data: {error}.") from error
            raise


class _FormReader:
    """Builds a form from the events of the multipart parser."""

    def __init__(self, receiver: UploadReceiver, image: str, max_images: int) -> None:
        self.form = Form()
        self._receiver = receiver
        self._image = image
        self._max_images = max_images
        self._segment: MultipartSegment | None = None
        self._file_name: str | None = None
        self._incoming: _IncomingImage | None = None
        self._value = bytearray()

    async def take(self, event: Any) -> None:
        if isinstance(event, MultipartSegment):
            await self._begin(event)
        elif event is not None:
            await self._continue(bytes(event))
        else:
            await self._end()

    async def discard(self) -> None:
        """Discard all images, also the one being received. Images that were moved into the store stay."""
        if self._incoming is not None:
            await self._incoming.discard()
        for image in self.form.received:
            await self._receiver.in_thread(image.staged.discard)

    async def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._file_name = decoded_file_name(segment["Content-Disposition"], segment.filename)
        self._value.clear()
        if segment.name == self._image:
            if len(self.form.images) >= self._max_images:
                raise Refused(Code.TOO_MANY_IMAGES, f"A request may have at most {self._max_images} image(s).")
            self._incoming = _IncomingImage(self._receiver)
        elif self._file_name is not None:
            raise Refused(Code.INVALID_FIELD, f"{segment.name}: only the part {self._image!r} may be a file.")
        else:
            self._check_new_field(segment.name)

    def _check_new_field(self, name: str) -> None:
        """Check that the form may have one more field. Fields are kept in memory, so this cannot wait for the end.

        Raises:
            Refused: INVALID_FIELD for a repeated name, and for too many fields.
        """
        if name in self.form.fields:
            raise Refused(Code.INVALID_FIELD, f"{name}: given more than once.")
        if len(self.form.fields) >= MAX_FIELDS:
            raise Refused(Code.INVALID_FIELD, f"A form may have at most {MAX_FIELDS} fields.")

    async def _continue(self, chunk: bytes) -> None:
        assert self._segment is not None  # noqa: S101 - the parser sends a segment first
        if self._incoming is not None:
            try:
                await self._incoming.feed(chunk)
            except Refused as refused:
                await self._refuse(refused)
        elif self._segment.name != self._image:
            self._value += chunk
            limit = ITEMS_BYTES if self._segment.name == "items" else FIELD_BYTES
            if len(self._value) > limit:
                raise Refused(Code.INVALID_FIELD, f"{self._segment.name}: must not be larger than {limit} bytes.")

    async def _end(self) -> None:
        assert self._segment is not None  # noqa: S101 - the parser sends a segment first
        if self._incoming is not None:
            try:
                received = await self._incoming.finish(self._file_name)
            except Refused as refused:
                await self._refuse(refused)
            else:
                self.form.images.append(received)
                self._incoming = None
        elif self._segment.name != self._image and self._value:
            self.form.fields[self._segment.name] = _text(self._segment.name, bytes(self._value))

    async def _refuse(self, refused: Refused) -> None:
        assert self._incoming is not None  # noqa: S101 - it is the refused image
        await self._incoming.discard()
        self._incoming = None
        self.form.images.append(RefusedPart(self._file_name, refused))


def is_form(request: Request) -> bool:
    """Whether the body is `multipart/form-data`."""
    return _media_type(request) == "multipart/form-data"


def is_image(request: Request) -> bool:
    """Whether the body may be the bytes of an image, which decide: an image type, or one that names no format."""
    media_type = _media_type(request)
    return media_type.startswith("image/") or media_type in UNSPECIFIC_TYPES


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def declared_size(request: Request) -> int:
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isdigit() else 0


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused(Code.INVALID_FIELD, f"{name}: not valid UTF-8.") from None


async def _drain(request: Request, stream: AsyncIterator[bytes], error: BaseException) -> None:
    """Read the rest of a refused body for a limited time, so that the client can read the response.

    If the server closes the connection while they are still sending, many clients report that instead of the response.
    A client that waits for `100 Continue`, or that announces a very large body, gets the response immediately.
    """
    if not isinstance(error, Refused | MultipartError):
        return
    if declared_size(request) > DRAIN_BYTES or "expect" in request.headers:
        return
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in stream:
                pass
    except (TimeoutError, ClientDisconnect, RuntimeError, Refused):
        return  # RuntimeError: the stream was already read to its end; Refused: the rest is refused, too
