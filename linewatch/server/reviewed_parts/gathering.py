"""Find the reviewed inspections of a recipe that a training learns from, and download their images."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from core.vision.reviewed_parts.images import Found, Gathered, ReviewedImage, ReviewedInspection, select
from linewatch.server.reviewed_parts.stored_images import stored_images

if TYPE_CHECKING:
    from linewatch.client import Client, Filters
    from linewatch.types.results import Inspection


def find(system: "Client", recipe: str, filters: "Filters") -> Found:
    """Find the reviewed images of a recipe. Only completed inspections count, because others have no machine verdict.

    Args:
        filters: further filters of the listing, such as `since` and `lot_id`.
    """
    reviewed: Filters = {**filters, "recipe": recipe, "reviewed": "any", "status": "completed"}
    return select(reviewed_inspection(each) for each in system.inspections(page_size=1000, **reviewed))


def reviewed_inspection(inspection: "Inspection") -> ReviewedInspection:
    """Return what counts of a completed inspection with reviews."""
    assert inspection.verdict is not None  # noqa: S101 - it is completed
    return ReviewedInspection(
        inspection.id,
        inspection.image.sha256,
        inspection.image.media_type,
        inspection.verdict,
        inspection.effective_verdict or "review",
        inspection.reviews[-1].created_at,
        inspection.part_id,
    )


def download(
    system: "Client", images: list[ReviewedImage], folder: Path, progress: Callable[[int], object]
) -> Gathered:
    """Write the images to a folder, under their file names.

    Args:
        progress: called with the number of images done so far.

    Raises:
        OSError: a file cannot be written.
    """

    def write(image: ReviewedImage, content: bytes) -> Path:
        path = folder / image.file_name
        path.write_bytes(content)
        return path

    folder.mkdir(parents=True)
    files, missing = [], 0
    requests = ((image.inspection_id, image) for image in images)
    for done, (image, path) in enumerate(stored_images(system, requests, write), start=1):
        if path is None:
            missing += 1
        else:
            files.append((image, path))
        progress(done)
    return Gathered(files, missing)
