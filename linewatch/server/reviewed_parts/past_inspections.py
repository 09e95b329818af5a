"""The newest inspections of a running system, to compare a new version with."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from core.vision.reviewed_parts.comparison import PastInspection
from linewatch.server.reviewed_parts.stored_images import stored_images

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.results import Inspection

Prepared = TypeVar("Prepared")


def newest_completed(system: "Client", recipe: str, at_most: int) -> "list[Inspection]":
    """Return the newest completed inspections of a recipe, newest first."""
    if at_most == 0:
        return []
    listing = system.inspections(page_size=min(at_most, 1000), recipe=recipe, status="completed")
    return list(islice(listing, at_most))


def with_images(
    system: "Client", inspections: "list[Inspection]", prepare: Callable[[bytes], Prepared]
) -> Iterator[tuple[PastInspection, Prepared | None]]:
    """Yield completed inspections in order, each with its prepared image; None if the store no longer has it.

    Raises:
        LinewatchError: an image cannot be downloaded, though it may exist.
    """
    requests = ((inspection.id, _past(inspection)) for inspection in inspections)
    return stored_images(system, requests, lambda _, content: prepare(content))


def _past(inspection: "Inspection") -> PastInspection:
    assert inspection.verdict is not None  # noqa: S101 - it is completed
    decided = inspection.effective_verdict if inspection.reviews else None
    reviewed = None if decided == "review" else decided
    return PastInspection(str(inspection.id), inspection.image.sha256, inspection.verdict, reviewed)
