"""Send the image of a file, and tell what concerns the image from what concerns the system."""

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from linewatch.cli.options import EARLIEST, LATEST
from linewatch.cli.refusals import IMAGE_CODES, Refusal
from linewatch.cli.stamps import Stamp
from linewatch.cli.watching.journal import Entry
from linewatch.cli.watching.patterns import PathPattern
from linewatch.cli.watching.scanning import Folder
from linewatch.errors import LinewatchError, Refused
from linewatch.http.request_bodies import safe_filename

if TYPE_CHECKING:
    from linewatch.client import AsyncClient
    from linewatch.types.results import Inspection

_SENDERS: Final = 4  # images sent at the same time


@dataclass(frozen=True)
class Reading:
    """How the fields of an image are found: those of all images, those in its path, and the time of its file."""

    fields: Mapping[str, str]
    pattern: PathPattern | None
    file_times: bool = False

    def fields_of(self, stamp: Stamp) -> Mapping[str, str] | None:
        """Return the fields of an image; None if its path does not match the pattern."""
        fields = {**self.fields, **(_captured_at(stamp) if self.file_times else {})}
        if self.pattern is None:
            return fields
        from_path = self.pattern.read(safe_filename(stamp.name))
        return None if from_path is None else {**fields, **from_path}

    def reads(self, field: str) -> bool:
        """Return whether a field is read from the path."""
        return self.pattern is not None and field in self.pattern.fields


class Sender:
    """Sends images to a system, a few at the same time."""

    def __init__(self, system: "AsyncClient", folder: Folder, reading: Reading) -> None:
        self._system = system
        self._folder = folder
        self._reading = reading
        self._places = asyncio.Semaphore(_SENDERS)

    async def send(self, entry: Entry) -> "Inspection | Refusal | LinewatchError | OSError | None":
        """Send the image of a file.

        Returns:
            The inspection; why the image was rejected; why the request failed for a reason that is not the image's;
            why the file cannot be read; or None if it has changed or is no longer there.
        """
        name = safe_filename(entry.stamp.name)
        if entry.fields is None:
            return Refusal(name, "path_mismatch", "The path does not match --fields: rename the file and put it back.")
        async with self._places:
            try:
                if await asyncio.to_thread(self._folder.stamp, entry.stamp.name) != entry.stamp:
                    return None
                fields: Any = {**entry.fields, "external_id": name}
                path = self._folder.path / entry.stamp.name
                return await self._system.submit(path, idempotency_key=entry.key, **fields)
            except FileNotFoundError:
                return None
            except Refused as refused:
                return Refusal(name, refused.code, refused.detail) if self._is_of_image(refused) else refused
            except (LinewatchError, OSError) as error:
                return error

    def _is_of_image(self, refused: Refused) -> bool:
        """Return whether a request was refused because of this image: another image may be accepted."""
        if refused.code == "invalid_field":
            field = refused.detail.partition(":")[0]
            return field == "external_id" or self._reading.reads(field)
        if refused.code == "recipe_unknown":
            return self._reading.reads("recipe")
        return refused.code in IMAGE_CODES or refused.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE  # of a proxy


def _captured_at(stamp: Stamp) -> Mapping[str, str]:
    """The time of the file as a field; none if it is not a time that the api accepts, as without a clock."""
    seconds = stamp.mtime_ns / 1e9
    if not EARLIEST.timestamp() <= seconds < LATEST.timestamp():
        return {}
    return {"captured_at": dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()}
