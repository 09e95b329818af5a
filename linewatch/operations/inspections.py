"""Inspections: handing images in, and reading what became of them."""

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast
from uuid import UUID

from linewatch.errors import Refused
from linewatch.http.executors import TaskPool
from linewatch.http.request_bodies import FilePart, ImageFile, as_text, form, open_image
from linewatch.http.transport import Request
from linewatch.operations.session import Session, key_or_new, url_path
from linewatch.types.results import Inspection, InspectionPage

_AHEAD = 2  # images of `submit_many` that are taken from the caller for each that is under way


class Fields(TypedDict, total=False):
    """What may be said of an image; None is as good as nothing. Times need a time zone."""

    recipe: str | None
    external_id: str | None
    part_id: str | None
    view: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    captured_at: datetime | None
    priority: Literal["live", "bulk"] | None
    deadline_ms: int | None
    batch_id: UUID | str | None
    callback_url: str | None
    metadata: Mapping[str, Any] | None


class Filters(TypedDict, total=False):
    """What a listing may be narrowed to; `since` and `until` mean the moment at which an image was accepted.

    `verdict` is the machine's, `effective_verdict` the one that counts; `review` there waits for a person.
    """

    recipe: str | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    batch_id: UUID | str | None
    verdict: Literal["ok", "ng", "review"] | None
    effective_verdict: Literal["ok", "ng", "review"] | None
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True)
class Submitted:
    """An image of `submit_many` that was accepted; `number` is its place in the input, from 0."""

    number: int
    image: ImageFile
    inspection: Inspection


@dataclass(frozen=True)
class NotSubmitted:
    """An image of `submit_many` that was refused, or whose file could not be read."""

    number: int
    image: ImageFile
    error: Refused | OSError


Outcome = Submitted | NotSubmitted


class Inspections(Session):
    """Operations on inspections."""

    async def submit(
        self,
        image: ImageFile,
        *,
        wait: float = 0.0,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Inspection:
        """Hand in one image. When this returns it is durable: it will get a result.

        Example:
            inspection = lw.submit("part.png", recipe="ring", part_id="SN-4711", wait=30)
            print(inspection.verdict, inspection.anomaly_score)

        Args:
            image: JPEG, PNG, BMP, WebP or TIFF; its file name becomes `external_id` where none is given.
            wait: seconds to wait for the result; after them the inspection is returned as it stands.
            idempotency_key: the same key with the same image is one inspection, also after a restart of the caller;
                a key of its own by default, so that a broken connection does not have it examined twice.

        Raises:
            OSError: the file cannot be read.
            Refused, Unreachable: also where it was accepted and cannot be waited for, which the message then says,
                with its id: a key that may only submit may not wait.
            ValueError: `idempotency_key` is empty, longer than 255 characters or not visible ASCII.
        """
        key = key_or_new(idempotency_key)
        name, source = open_image(image)
        made = await self._upload(
            Inspection,
            url_path("inspections"),
            lambda: form(fields, "image", [(name, FilePart(source))]),
            key=key,
        )
        return await self._final_of_accepted(made, url_path("inspections", made.id), wait) if wait else made

    async def submit_many(
        self,
        images: Iterable[ImageFile | tuple[ImageFile, Fields]],
        *,
        concurrency: int = 8,
        wait: float = 0.0,
        **fields: Unpack[Fields],
    ) -> AsyncGenerator[Outcome, None]:
        """Hand in any number of images, several at once; what became of each is given in the order of the input.

        The input is read as far as it is needed: twice `concurrency` images ahead, at most. With `AsyncClient` it is
        read in threads, one after the other, so that it may block. One that is refused or
        cannot be read stops no other. Where the caller stops early, those under way are ended and the rest not begun.

        Example:
            for outcome in lw.submit_many(["part.png", ("scratched.png", {"part_id": "SN-2"})], recipe="ring"):
                match outcome:
                    case Submitted(inspection=inspection):
                        print(inspection.id)
                    case NotSubmitted(image=image, error=error):
                        print(image, error)

        Args:
            images: as for `submit`, alone or with fields of their own, which go before the common ones. A file
                that is given open must stay so until its outcome is there.
            concurrency: how many are under way at once, from 1 on.
            wait: seconds to wait for the result of each.
            fields: of all images.

        Raises:
            Unreachable: no answer came; nothing more is sent.
            ValueError: `concurrency` is less than 1.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        task_pool: TaskPool[Outcome] = self._executor.task_pool(concurrency)
        async with task_pool:
            source = iter(images)
            for number in count():
                taken = await self._executor.work(lambda: list(islice(source, 1)))
                if not taken:
                    break
                [one] = taken
                image, own = one if isinstance(one, tuple) else (one, cast(Fields, {}))
                task_pool.start(partial(self._attempted, number, image, wait, {**fields, **own}))
                while task_pool.oldest_is_done or len(task_pool) >= _AHEAD * concurrency:
                    yield await task_pool.oldest()
            while len(task_pool):
                yield await task_pool.oldest()

    async def _attempted(self, number: int, image: ImageFile, wait: float, fields: Fields) -> Outcome:
        try:
            return Submitted(number, image, await self.submit(image, wait=wait, **fields))
        except (Refused, OSError) as error:
            return NotSubmitted(number, image, error)

    async def inspection(self, inspection_id: UUID | str, *, wait: float = 0.0) -> Inspection:
        """One inspection, as soon as it is final or `wait` seconds are over.

        Example:
            accepted = lw.submit("part.png", recipe="ring")
            print(lw.inspection(accepted.id, wait=30).verdict)
        """
        return await self._final(Inspection, url_path("inspections", inspection_id), wait)

    async def inspections(
        self, *, page_size: int = 100, **filters: Unpack[Filters]
    ) -> AsyncGenerator[Inspection, None]:
        """All inspections that match, newest first; pages of 1 to 1000 are fetched as they are needed.

        Example:
            for one in lw.inspections(recipe="ring", status="completed"):
                print(one.id, one.effective_verdict)
        """
        async for page in self._pages(
            InspectionPage, url_path("inspections"), {"limit": page_size, **as_text(filters)}
        ):
            for one in page.items:
                yield one

    async def export(
        self,
        to: str | os.PathLike[str],
        *,
        format: Literal["csv", "parquet"] = "csv",  # noqa: A002 - as it is called in HTTP
        **filters: Unpack[Filters],
    ) -> Path:
        """Write all inspections that match to the file `to`, whole or not at all; its path is returned.

        Example:
            lw.export("ring.csv", format="csv", recipe="ring", verdict="ng")

        Raises:
            OSError: the file cannot be written.
        """
        path = Path(to)
        call = Request("GET", url_path("inspections", "export"), {"format": format, **as_text(filters)})
        await self._transport.download(call, path)
        return path

    async def cancel(self, inspection_id: UUID | str) -> Inspection:
        """Cancel an inspection that is not final. Cancelling it twice changes nothing.

        Raises:
            Refused: it has its result already (`invalid_transition`).
        """
        return await self._post(Inspection, url_path("inspections", inspection_id, "cancel"), harmless_twice=True)

    async def review(
        self, inspection_id: UUID | str, verdict: Literal["ok", "ng"], *, reviewer: str, reason: str
    ) -> Inspection:
        """Overrule the machine's verdict; it stays on record, and the inspection's `effective_verdict` is this one.

        Example:
            inspection = lw.submit("part.png", recipe="ring", wait=30)
            reviewed = lw.review(inspection.id, "ok", reviewer="quality desk", reason="dust on the lens")
            print(reviewed.verdict, reviewed.effective_verdict)
        """
        new = {"verdict": verdict, "reviewer": reviewer, "reason": reason}
        return await self._post(Inspection, url_path("inspections", inspection_id, "reviews"), new)

    async def image(self, inspection_id: UUID | str) -> bytes:
        """The image as it was handed in, encoded."""
        return await self._transport.content(url_path("inspections", inspection_id, "image"))

    async def anomaly_map(self, inspection_id: UUID | str) -> bytes:
        """Where the image is unlike good parts: a `.npy` file, float32, (rows, columns) of the detector's grid.

        Its cells divide the image evenly. Read it with `numpy.load(io.BytesIO(...))`.
        """
        return await self._transport.content(url_path("inspections", inspection_id, "anomaly-map"))

    async def heatmap(self, inspection_id: UUID | str) -> bytes:
        """The image as PNG with the heat laid over it, on a scale that is fixed by the inspection's threshold."""
        return await self._transport.content(url_path("inspections", inspection_id, "heatmap"))
