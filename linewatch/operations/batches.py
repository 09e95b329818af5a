"""Batches: bursts in one request, and batches that are opened first and filled."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Unpack
from uuid import UUID

from linewatch.http.request_bodies import (
    Body,
    FilePart,
    ImageFile,
    SentCounter,
    as_text,
    form,
    form_of_fields,
    open_image,
    safe_filename,
)
from linewatch.operations.inspections import Fields
from linewatch.operations.session import Session, key_or_new, url_path
from linewatch.types.results import Batch


class Batches(Session):
    """Operations on batches."""

    async def submit_batch(
        self,
        images: Iterable[str | os.PathLike[str]] | Mapping[str, ImageFile],
        *,
        items: Mapping[str, Fields] | None = None,
        wait: float = 0.0,
        progress: Callable[[int], None] | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Batch:
        """Hand in a burst in one request. An image that is refused is in `errors` and harms no other.

        Example:
            batch = lw.submit_batch(["part.png", "scratched.png"], recipe="ring", lot_id="L-204", wait=60)
            print(batch.counts["ok"], batch.counts["ng"])

        Args:
            images: paths, whose last part becomes `external_id`; or images by the name that becomes it.
            items: fields of single images, by those names.
            wait: seconds to wait until the batch is final; after them it is returned as it stands.
            progress: called with how many images have been sent.
            idempotency_key: as for `submit`.
            fields: of all images.

        Raises:
            Refused: none of the images was accepted, or there are too many for one request.
            OSError: a file cannot be read.
            ValueError: there are no images, or `idempotency_key` is none.
        """
        key = key_or_new(idempotency_key)
        named = images.items() if isinstance(images, Mapping) else [(Path(path).name, path) for path in images]
        sources = [(safe_filename(name), open_image(image)[1]) for name, image in named]
        if not sources:
            raise ValueError("a burst needs at least one image")
        of_all = as_text(fields)
        if items:
            of_all["items"] = json.dumps({name: as_text(own) for name, own in items.items()})

        def body() -> AbstractContextManager[Body]:
            sent = SentCounter(progress)
            return form(of_all, "images", [(name, FilePart(source, sent.count)) for name, source in sources])

        made = await self._upload(Batch, url_path("batches"), body, key=key)
        if not wait:
            return made
        final = await self._final_of_accepted(made, url_path("batches", made.id), wait)
        burst = {name: made.document.get(name, []) for name in ("inspections", "errors")}
        return Batch.from_document({**final.document, **burst})

    async def open_batch(self, *, callback_url: str | None = None, idempotency_key: str | None = None) -> Batch:
        """Open a batch, which images join by `batch_id` until it is closed.

        Example:
            batch = lw.open_batch()
            for path in ["part.png", "scratched.png"]:
                lw.submit(path, recipe="ring", batch_id=batch.id)
            lw.close_batch(batch.id)
            print(lw.batch(batch.id, wait=60).counts)

        Args:
            callback_url: called when the batch is completed; on the origin of a registered webhook endpoint.
            idempotency_key: as for `submit`.
        """
        body = partial(form_of_fields, {"callback_url": callback_url})
        return await self._upload(Batch, url_path("batches"), body, key=key_or_new(idempotency_key))

    async def batch(self, batch_id: UUID | str, *, wait: float = 0.0) -> Batch:
        """One batch, as soon as it is final or `wait` seconds are over."""
        return await self._final(Batch, url_path("batches", batch_id), wait)

    async def close_batch(self, batch_id: UUID | str) -> Batch:
        """Close an open batch: it completes when all of its inspections are final."""
        return await self._post(Batch, url_path("batches", batch_id, "close"), harmless_twice=True)

    async def cancel_batch(self, batch_id: UUID | str) -> Batch:
        """Cancel a batch and every inspection of it that is not final."""
        return await self._post(Batch, url_path("batches", batch_id, "cancel"), harmless_twice=True)
