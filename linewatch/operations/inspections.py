"""Inspections: submit images and read their results."""

import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, cast
from uuid import UUID

from linewatch.errors import Refused
from linewatch.http.executors import TaskPool
from linewatch.http.request_bodies import Body, FilePart, ImageFile, as_text, form, open_image
from linewatch.http.transport import Request
from linewatch.operations.session import Session, key_or_new, url_path
from linewatch.types.results import Inspection, InspectionPage

_AHEAD = 2  # images that `submit_many` reads from its input for each one that is being sent

_REDIRECT = {"redirect": "true"}  # asks for a link to the bucket, if images are in one


class Fields(TypedDict, total=False):
    """The fields of an image; None is the same as absent. Times need a time zone."""

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
    """Filters of a listing; `since` and `until` apply to the time at which an image was accepted.

    `verdict` is the machine's; `effective_verdict` is what reviews decided, else the machine's. `reviewed` is what
    reviews decided: `any` if there is a review, `none` if there is not. `model_version` needs `recipe`. A score ratio
    is the score divided by the threshold in force. `reviewer` is someone who has reviewed the inspection.
    """

    recipe: str | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    batch_id: UUID | str | None
    verdict: Literal["ok", "ng", "review"] | None
    effective_verdict: Literal["ok", "ng", "review"] | None
    reviewed: Literal["ok", "ng", "any", "none"] | None
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None
    model_version: int | None
    min_score: float | None
    max_score: float | None
    min_score_ratio: float | None
    max_score_ratio: float | None
    reviewer: str | None
    since: datetime | None
    until: datetime | None


@dataclass(frozen=True)
class Submitted:
    """An image of `submit_many` that was accepted; `number` is its position in the input, from 0."""

    number: int
    image: ImageFile
    inspection: Inspection


@dataclass(frozen=True)
class NotSubmitted:
    """An image of `submit_many` that was rejected, or whose file could not be read."""

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
        """Submit one image. When this returns, the image is durable and will get a result.

        Example:
            inspection = lw.submit("part.png", recipe="ring", part_id="SN-4711", wait=30)
            print(inspection.verdict, inspection.anomaly_score)

        Args:
            image: JPEG, PNG, BMP, WebP or TIFF; its file name is the default of `external_id`.
            wait: seconds to wait for the result; then the inspection is returned in its current state.
            idempotency_key: submitting the same image again under the same key returns the first inspection, also after
                your program was restarted. By default a new key, which covers retries after connection errors.

        Raises:
            OSError: the file cannot be read.
            Refused, Unreachable: also if the image was accepted but waiting failed; then the message says so and names
                the id. Waiting needs the scope `read`.
            ValueError: `idempotency_key` is empty, longer than 255 characters or not visible ASCII.
        """
        key = key_or_new(idempotency_key)
        name, source = open_image(image)
        inspection = await self._upload(
            Inspection,
            url_path("inspections"),
            lambda: form(fields, "image", [(name, FilePart(source))]),
            key=key,
        )
        if not wait:
            return inspection
        return await self._final_of_accepted(inspection, url_path("inspections", inspection.id), wait)

    async def submit_many(
        self,
        images: Iterable[ImageFile | tuple[ImageFile, Fields]],
        *,
        concurrency: int = 8,
        wait: float = 0.0,
        **fields: Unpack[Fields],
    ) -> AsyncGenerator[Outcome, None]:
        """Submit any number of images, several at the same time; outcomes come in the order of the input.

        The input is read at most twice `concurrency` images ahead; with `AsyncClient` in threads, so it may block. An
        image that is rejected or cannot be read does not stop the others. If you stop early, uploads in progress are
        cancelled and no others begin.

        Example:
            for outcome in lw.submit_many(["part.png", ("scratched.png", {"part_id": "SN-2"})], recipe="ring"):
                match outcome:
                    case Submitted(inspection=inspection):
                        print(inspection.id)
                    case NotSubmitted(image=image, error=error):
                        print(image, error)

        Args:
            images: as for `submit`, alone or with fields that override the common ones. Keep an open file open until
                you have its outcome.
            concurrency: how many images are sent at the same time, at least 1.
            wait: seconds to wait for the result of each.
            fields: for all images.

        Raises:
            Unreachable: there was no response; nothing more is sent.
            ValueError: `concurrency` is less than 1.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        task_pool: TaskPool[Outcome] = self._executor.task_pool(concurrency)
        async with task_pool:
            source = iter(images)
            for number in count():
                pulled = await self._executor.work(lambda: list(islice(source, 1)))
                if not pulled:
                    break
                [entry] = pulled
                image, image_fields = entry if isinstance(entry, tuple) else (entry, cast(Fields, {}))
                task_pool.start(partial(self._submit_or_error, number, image, wait, {**fields, **image_fields}))
                while task_pool.oldest_is_done or len(task_pool) >= _AHEAD * concurrency:
                    yield await task_pool.oldest()
            while len(task_pool):
                yield await task_pool.oldest()

    async def _submit_or_error(self, number: int, image: ImageFile, wait: float, fields: Fields) -> Outcome:
        try:
            return Submitted(number, image, await self.submit(image, wait=wait, **fields))
        except (Refused, OSError) as error:
            return NotSubmitted(number, image, error)

    async def inspection(self, inspection_id: UUID | str, *, wait: float = 0.0) -> Inspection:
        """One inspection, as soon as it is final or after `wait` seconds.

        Example:
            accepted = lw.submit("part.png", recipe="ring")
            print(lw.inspection(accepted.id, wait=30).verdict)
        """
        return await self._final(Inspection, url_path("inspections", inspection_id), wait)

    async def inspections(
        self, *, page_size: int = 100, **filters: Unpack[Filters]
    ) -> AsyncGenerator[Inspection, None]:
        """All matching inspections, newest first. Pages of 1 to 1000 are fetched on demand.

        Example:
            for inspection in lw.inspections(recipe="ring", status="completed"):
                print(inspection.id, inspection.effective_verdict)
        """
        async for page in self._pages(
            InspectionPage, url_path("inspections"), {"limit": page_size, **as_text(filters)}
        ):
            for inspection in page.items:
                yield inspection

    async def export(
        self,
        to: str | os.PathLike[str],
        *,
        format: Literal["csv", "parquet"] = "csv",  # noqa: A002 - as it is called in HTTP
        **filters: Unpack[Filters],
    ) -> Path:
        """Write all matching inspections to the file `to`, complete or not at all. Returns its path.

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
            Refused: it already has a result (`invalid_transition`).
        """
        return await self._post(Inspection, url_path("inspections", inspection_id, "cancel"), harmless_twice=True)

    async def review(
        self, inspection_id: UUID | str, verdict: Literal["ok", "ng"], *, reviewer: str, reason: str
    ) -> Inspection:
        """Overrule the machine's verdict, which stays on record; `effective_verdict` becomes yours.

        If the recipe asks for a second review, it is `review` until another person agrees.

        Example:
            inspection = lw.submit("part.png", recipe="ring", wait=30)
            reviewed = lw.review(inspection.id, "ok", reviewer="quality desk", reason="dust on the lens")
            print(reviewed.verdict, reviewed.effective_verdict)
        """
        new = {"verdict": verdict, "reviewer": reviewer, "reason": reason}
        return await self._post(Inspection, url_path("inspections", inspection_id, "reviews"), new)

    async def image(self, inspection_id: UUID | str, *, redirect: bool = False) -> bytes:
        """The image as it was submitted, encoded.

        Args:
            redirect: read it from the bucket that stores it, if the system gives links (`image_link`). This machine
                must reach the bucket.

        Raises:
            Refused: the `retention` of its recipe has removed it (`image_expired`).
        """
        path = url_path("inspections", inspection_id, "image")
        if not redirect:
            return await self._transport.content(path)
        return await self._transport.linked_content(Request("GET", path, _REDIRECT))

    async def image_link(self, inspection_id: UUID | str) -> str | None:
        """A link to the image that anyone can use for a while, without an API key.

        None unless images are in a bucket and `LINEWATCH_STORE_LINK_SECONDS` is set.

        Example:
            inspection = lw.submit("part.png", recipe="ring", wait=30)
            print(lw.image_link(inspection.id))

        Raises:
            Refused: the `retention` of its recipe has removed the image (`image_expired`).
        """
        path = url_path("inspections", inspection_id, "image")
        return await self._transport.link(Request("GET", path, _REDIRECT, body=_first_byte))

    async def anomaly_map(self, inspection_id: UUID | str) -> bytes:
        """The anomaly of each place: a `.npy` file, float32, (rows, columns) of the detector's grid.

        The grid's cells divide the image evenly. Read it with `numpy.load(io.BytesIO(...))`.
        """
        return await self._transport.content(url_path("inspections", inspection_id, "anomaly-map"))

    async def heatmap(self, inspection_id: UUID | str) -> bytes:
        """The image with its heatmap as a PNG, on a scale that the inspection's threshold fixes."""
        return await self._transport.content(url_path("inspections", inspection_id, "heatmap"))


def _first_byte() -> AbstractContextManager[Body]:
    """The headers of a request whose content is not needed, only its link. A HEAD would get no problem document."""
    return nullcontext({"headers": {"Range": "bytes=0-0"}})
