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
        """Submit a burst in one request. A rejected image is listed in `errors` and does not affect the others.

        Example:
            batch = lw.submit_batch(["part.png", "scratched.png"], recipe="ring", lot_id="L-204", wait=60)
            print(batch.counts["ok"], batch.counts["ng"])

        Args:
            images: paths, whose file name becomes `external_id`; or a mapping of `external_id` to image.
            items: fields of single images, by `external_id`.
            wait: seconds to wait until the batch is final; then it is returned in its current state.
            progress: called with how many images have been sent.
            idempotency_key: as for `submit`.
            fields: for all images.

        Raises:
            Refused: none of the images was accepted, or there are too many for one request.
            OSError: a file cannot be read.
            ValueError: there are no images, or `idempotency_key` is not a valid key.
        """
        key = key_or_new(idempotency_key)
        named = images.items() if isinstance(images, Mapping) else [(Path(path).name, path) for path in images]
        sources = [(safe_filename(name), open_image(image)[1]) for name, image in named]
        if not sources:
            raise ValueError("a burst needs at least one image")
        form_fields = as_text(fields)
        if items:
            form_fields["items"] = json.dumps({name: as_text(item_fields) for name, item_fields in items.items()})

        def body() -> AbstractContextManager[Body]:
            sent = SentCounter(progress)
            return form(form_fields, "images", [(name, FilePart(source, sent.count)) for name, source in sources])

        accepted = await self._upload(Batch, url_path("batches"), body, key=key)
        if not wait:
            return accepted
        final = await self._final_of_accepted(accepted, url_path("batches", accepted.id), wait)
        images_of_burst = {name: accepted.document.get(name, []) for name in ("inspections", "errors")}
        return Batch.from_document({**final.document, **images_of_burst})

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
        """One batch, as soon as it is final or after `wait` seconds."""
        return await self._final(Batch, url_path("batches", batch_id), wait)

    async def close_batch(self, batch_id: UUID | str) -> Batch:
        """Close an open batch: it completes when all of its inspections are final."""
        return await self._post(Batch, url_path("batches", batch_id, "close"), harmless_twice=True)

    async def cancel_batch(self, batch_id: UUID | str) -> Batch:
        """Cancel a batch and every inspection of it that is not final."""
        return await self._post(Batch, url_path("batches", batch_id, "cancel"), harmless_twice=True)
