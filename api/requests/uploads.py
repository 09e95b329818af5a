"""Receiving images: streamed to the store, measured and checked while they arrive, never held in memory whole."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from api.requests.group_commit import store_refusal
from api.requests.parameters import once_each
from core.errors import Code, Refused
from core.intake.image_decoding import read_header
from core.intake.submission import StoredImage
from core.settings import Settings
from core.storage.image_store import Staged, Store

FLUSH_BYTES = 256 * 1024
FIELD_BYTES = 64 * 1024
ITEMS_BYTES = 4 * 1024 * 1024
MAX_FIELDS = 64
DRAIN_SECONDS = 10
DRAIN_BYTES = 64 * 1024 * 1024
_THREADS = 16

T = TypeVar("T")


@dataclass(frozen=True)
class Received:
    """An image that was received, checked and flushed to stable storage."""

    file_name: str | None
    staged: Staged
    image: StoredImage


@dataclass(frozen=True)
class RefusedPart:
    """An image of a form that was refused; its neighbours were not."""

    file_name: str | None
    refused: Refused


@dataclass
class Form:
    """A received form: its fields, and its images in the order in which they came."""

    fields: dict[str, str] = field(default_factory=dict)
    images: list[Received | RefusedPart] = field(default_factory=list)

    @property
    def received(self) -> list[Received]:
        return [one for one in self.images if isinstance(one, Received)]

    def the_image(self, name: str) -> Received:
        """The one image of a form that takes one; refuses none, several or a bad one."""
        if len(self.images) != 1:
            raise Refused(
                Code.INVALID_FIELD if self.images else Code.EMPTY_BODY,
                f"{name}: the form must hold exactly one image under this name, not {len(self.images)}.",
            )
        image = self.images[0]
        if isinstance(image, RefusedPart):
            raise image.refused
        return image


class _IncomingImage:
    """One image on its way into the store."""

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
            raise Refused(Code.EMPTY_BODY, "The image is empty: no bytes were sent.")
        image = await self._receiver.in_thread(self._complete)
        assert self._staged is not None  # noqa: S101 - _complete has made it
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
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="receive")

    def stop(self) -> None:
        self._threads.shutdown()

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Do disk work in a thread; refuses when the disk does."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        except OSError as error:
            raise store_refusal(error) from error

    def check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise Refused(Code.UPLOAD_TOO_LARGE, f"An image may have at most {self._max_bytes} bytes.")

    @asynccontextmanager
    async def raw(self, request: Request) -> AsyncIterator[Received]:
        """The image that is the whole body; given up when the request fails."""
        stream = request.stream()
        incoming = _IncomingImage(self)
        try:
            self.check_size(_declared_size(request))
            async for chunk in stream:
                await incoming.feed(chunk)
            yield await incoming.finish(None)
        except BaseException as error:
            await incoming.discard()
            await _drain(request, stream, error)
            raise

    @asynccontextmanager
    async def form(self, request: Request, *, image: str, most: int) -> AsyncIterator[Form]:
        """A `multipart/form-data` body whose parts named `image` are images and whose others are fields.

        Its images are given up when the request fails.
        """
        _, options = parse_options_header(request.headers["content-type"])
        stream = request.stream()
        reader = _FormReader(self, image, most)
        try:
            with PushMultipartParser(options.get("boundary", ""), max_segment_count=most + MAX_FIELDS) as parser:
                async for chunk in stream:
                    for event in parser.parse(chunk) if chunk else ():
                        await reader.take(event)
            reader.form.fields = once_each(reader.pairs)
            yield reader.form
        except BaseException as error:
            await reader.discard()
            await _drain(request, stream, error)
            if isinstance(error, MultipartError):
                raise Refused(Code.MALFORMED_REQUEST, f"The body is not valid multipart/form-data: {error}.") from error
            raise


class _FormReader:
    """Takes the events of the multipart parser and sorts them into images and fields."""

    def __init__(self, receiver: UploadReceiver, image: str, most: int) -> None:
        self.form = Form()
        self.pairs: list[tuple[str, str]] = []
        self._receiver = receiver
        self._image = image
        self._most = most
        self._segment: MultipartSegment | None = None
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
        """Give up all images, also the one that is still arriving. Those that were published stay."""
        if self._incoming is not None:
            await self._incoming.discard()
        for one in self.form.received:
            await self._receiver.in_thread(one.staged.discard)

    async def _begin(self, segment: MultipartSegment) -> None:
        self._segment = segment
        self._value.clear()
        if segment.name == self._image:
            if len(self.form.images) >= self._most:
                raise Refused(Code.TOO_MANY_IMAGES, f"A request may bring at most {self._most} image(s).")
            self._incoming = _IncomingImage(self._receiver)
        elif segment.filename is not None:
            raise Refused(
                Code.INVALID_FIELD, f"{segment.name}: a file is expected under the name {self._image!r} only."
            )

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
                received = await self._incoming.finish(self._segment.filename)
            except Refused as refused:
                await self._refuse(refused)
            else:
                self.form.images.append(received)
                self._incoming = None
        elif self._segment.name != self._image:
            self.pairs.append((self._segment.name or "", _text(self._segment.name, bytes(self._value))))

    async def _refuse(self, refused: Refused) -> None:
        assert self._segment is not None  # noqa: S101 - there is an image of this segment
        assert self._incoming is not None  # noqa: S101 - it is the one that is refused
        await self._incoming.discard()
        self._incoming = None
        self.form.images.append(RefusedPart(self._segment.filename, refused))


def is_form(request: Request) -> bool:
    """Whether the body is `multipart/form-data`."""
    return _media_type(request) == "multipart/form-data"


def is_image(request: Request) -> bool:
    """Whether the body is declared to be an image."""
    return _media_type(request).startswith("image/")


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _declared_size(request: Request) -> int:
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isdigit() else 0


def _text(name: str | None, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refused(Code.INVALID_FIELD, f"{name}: not valid UTF-8.") from None


async def _drain(request: Request, stream: AsyncIterator[bytes], error: BaseException) -> None:
    """Read what is still coming of a refused body, for a while, so that the sender gets to read the answer.

    A server that answers and closes while the client is still sending makes many clients see a broken connection
    instead of the refusal. A sender that waits for leave to send, or announces too much, is answered at once.
    """
    if not isinstance(error, Refused | MultipartError):
        return
    if _declared_size(request) > DRAIN_BYTES or "expect" in request.headers:
        return
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in stream:
                pass
    except (TimeoutError, ClientDisconnect, RuntimeError):
        return  # it has had its chance; RuntimeError: the stream was read to its end already
