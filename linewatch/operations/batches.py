"""Batches: bursts in one request, and batches that are opened first and filled."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Unpack
from uuid import UUID

from linewatch.http.request_bodies import Body, Counter, Part, Picture, form, form_of_fields, opened, storable, texts
from linewatch.operations.inspections import Fields
from linewatch.operations.session import Session, at, key_of
from linewatch.types.results import Batch


class Batches(Session):
    """Operations on batches."""

    async def submit_batch(
        self,
        pictures: Iterable[str | os.PathLike[str]] | Mapping[str, Picture],
        *,
        items: Mapping[str, Fields] | None = None,
        wait: float = 0.0,
        progress: Callable[[int], None] | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[Fields],
    ) -> Batch:
        """Hand in a burst in one request. A picture that is refused is in `errors` and harms no other.

        Example:
            batch = lw.submit_batch(["part.png", "scratched.png"], recipe="ring", lot_id="L-204", wait=60)
            print(batch.counts["ok"], batch.counts["ng"])

        Args:
            pictures: paths, whose last part becomes `external_id`; or pictures by the name that becomes it.
            items: fields of single pictures, by those names.
            wait: seconds to wait until the batch is final; after them it is returned as it stands.
            progress: is told how many pictures have been sent.
            idempotency_key: as for `submit`.
            fields: of all pictures.

        Raises:
            Refused: none of the pictures was accepted, or there are too many for one request.
            OSError: a file cannot be read.
            ValueError: there are no pictures, or `idempotency_key` is none.
        """
        key = key_of(idempotency_key)
        named = pictures.items() if isinstance(pictures, Mapping) else [(Path(path).name, path) for path in pictures]
        sources = [(storable(name), opened(picture)[1]) for name, picture in named]
        if not sources:
            raise ValueError("a burst needs at least one picture")
        of_all = texts(fields)
        if items:
            of_all["items"] = json.dumps({name: texts(own) for name, own in items.items()})

        def body() -> AbstractContextManager[Body]:
            sent = Counter(progress)
            return form(of_all, "images", [(name, Part(source, sent.count)) for name, source in sources])

        made = await self._upload(Batch, at("batches"), body, key=key)
        if not wait:
            return made
        final = await self._final_of_accepted(made, at("batches", made.id), wait)
        return final.model_copy(update={"inspections": made.inspections, "errors": made.errors})

    async def open_batch(self, *, callback_url: str | None = None, idempotency_key: str | None = None) -> Batch:
        """Open a batch, which pictures join by `batch_id` until it is closed.

        Example:
            batch = lw.open_batch()
            for path in ["part.png", "scratched.png"]:
                lw.submit(path, recipe="ring", batch_id=batch.id)
            lw.close_batch(batch.id)
            print(lw.batch(batch.id, wait=60).counts)

        Args:
            callback_url: is told when the batch is completed; of a registered webhook endpoint's origin.
            idempotency_key: as for `submit`.
        """
        body = partial(form_of_fields, {"callback_url": callback_url})
        return await self._upload(Batch, at("batches"), body, key=key_of(idempotency_key))

    async def batch(self, batch_id: UUID | str, *, wait: float = 0.0) -> Batch:
        """One batch, as soon as it is final or `wait` seconds are over."""
        return await self._final(Batch, at("batches", batch_id), wait)

    async def close_batch(self, batch_id: UUID | str) -> Batch:
        """Close an open batch: it completes when all of its inspections are final."""
        return await self._post(Batch, at("batches", batch_id, "close"), harmless_twice=True)

    async def cancel_batch(self, batch_id: UUID | str) -> Batch:
        """Cancel a batch and every inspection of it that is not final."""
        return await self._post(Batch, at("batches", batch_id, "cancel"), harmless_twice=True)
