"""Responses with a file of the store."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Self

from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from core.errors import Code, Refused
from core.storage.image_store import Store


class StoredFileResponse(FileResponse):
    """A file of the store: sent from its folder, or from a local copy that is deleted afterwards."""

    _local: ExitStack

    @classmethod
    def of(
        cls,
        store: Store,
        key: str,
        *,
        missing: str,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        filename: str | None = None,
    ) -> Self:
        """The response for a key. May take long: call it in a thread.

        Raises:
            Refused: NOT_FOUND with the detail `missing` if the store does not have the file.
            OSError: the store is unavailable.
        """
        with ExitStack() as local:
            path = local.enter_context(store.local_file(key))
            if not path.is_file():
                raise Refused(Code.NOT_FOUND, missing)
            response = cls(path, media_type=media_type, headers=headers, filename=filename)
            response._local = local.pop_all()
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._local.close()
