"""Find the reviewed inspections of a recipe that a training learns from, and download their images."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from linewatch.server.reviewed_parts.stored_images import stored_images

if TYPE_CHECKING:
    from linewatch.client import Client, Filters
    from linewatch.types.results import Inspection

Verdict = Literal["ok", "ng"]

_SUFFIXES = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/bmp": ".bmp",
    "image/webp": ".webp",
    "image/tiff": ".tif",
}


@dataclass(frozen=True)
class ReviewedImage:
    """An image to learn from; the same image counts once, however often it was inspected.

    Attributes:
        inspection_id: of the inspections whose reviews decided, the one with the newest review.
        verdict: the verdict that its reviews decided.
        sha256: of the image, in hexadecimal.
        part_ids: the parts that it was inspected for, mostly one; empty if they are unknown.
        suffix: the file suffix of its format.
    """

    inspection_id: UUID
    verdict: Verdict
    sha256: str
    part_ids: frozenset[str]
    suffix: str

    @property
    def file_name(self) -> str:
        """The inspection's id with the suffix."""
        return f"{self.inspection_id}{self.suffix}"


@dataclass(frozen=True)
class Found:
    """The reviewed images of a recipe.

    Attributes:
        images: images reviewed ng, and images reviewed ok that the machine had rejected (`ng` or `review`), by
            inspection id.
        confirmed: the number of images reviewed ok that the machine had never rejected, which are not used.
    """

    images: list[ReviewedImage]
    confirmed: int


@dataclass(frozen=True)
class Gathered:
    """The downloaded images.

    Attributes:
        files: the image and the path of its file.
        missing: the number of images that are no longer in the store.
    """

    files: list[tuple[ReviewedImage, Path]]
    missing: int


def find(system: "Client", recipe: str, filters: "Filters") -> Found:
    """Find the reviewed images of a recipe. Only completed inspections count, because others have no machine verdict.

    Args:
        filters: further filters of the listing, such as `since` and `lot_id`.
    """
    reviewed: Filters = {**filters, "recipe": recipe, "reviewed": "any", "status": "completed"}
    return select(system.inspections(page_size=1000, **reviewed))


def select(inspections: "Iterable[Inspection]") -> Found:
    """Return the images to learn from among reviewed, completed inspections.

    If an image was inspected and reviewed several times, the inspection with the newest review counts. Inspections
    whose reviews do not decide yet are left out.
    """
    by_image: dict[str, list[Inspection]] = defaultdict(list)
    for inspection in inspections:
        if inspection.effective_verdict in ("ok", "ng"):
            by_image[inspection.image.sha256].append(inspection)
    images, confirmed = [], 0
    for sha256, copies in by_image.items():
        newest = max(copies, key=lambda copy: (copy.reviews[-1].created_at, copy.id))
        verdict: Verdict = "ng" if newest.effective_verdict == "ng" else "ok"
        if verdict == "ok" and all(copy.verdict == "ok" for copy in copies):
            confirmed += 1
            continue
        part_ids = frozenset(copy.part_id for copy in copies if copy.part_id is not None)
        images.append(ReviewedImage(newest.id, verdict, sha256, part_ids, _SUFFIXES[newest.image.media_type]))
    return Found(sorted(images, key=lambda image: image.inspection_id), confirmed)


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
