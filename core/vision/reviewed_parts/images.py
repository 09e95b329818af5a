"""Select the images of reviewed inspections that a training learns from."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID

from core.intake.image_formats import SUFFIX_OF

Verdict = Literal["ok", "ng"]


@dataclass(frozen=True)
class ReviewedInspection:
    """A completed inspection with reviews.

    Attributes:
        sha256: of its image, in hexadecimal.
        media_type: of its image.
        verdict: of the machine.
        reviewed: the verdict that its reviews decided; `review` while they do not decide.
        reviewed_at: when its newest review was added.
    """

    id: UUID
    sha256: str
    media_type: str
    verdict: str
    reviewed: str
    reviewed_at: dt.datetime
    part_id: str | None


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
    """The reviewed images of a recipe, each list by inspection id.

    Attributes:
        images: images reviewed ng, and images reviewed ok that the machine had rejected (`ng` or `review`).
        confirmed: images reviewed ok that the machine had never rejected.
    """

    images: list[ReviewedImage]
    confirmed: list[ReviewedImage]


@dataclass(frozen=True)
class Gathered:
    """The downloaded images.

    Attributes:
        files: the image and the path of its file.
        missing: the number of images that are no longer in the store.
    """

    files: list[tuple[ReviewedImage, Path]]
    missing: int


def select(inspections: Iterable[ReviewedInspection]) -> Found:
    """Return the images of reviewed inspections.

    If an image was inspected and reviewed several times, the inspection with the newest review counts. Inspections
    whose reviews do not decide yet are left out.
    """
    by_image: dict[str, list[ReviewedInspection]] = defaultdict(list)
    for inspection in inspections:
        if inspection.reviewed in ("ok", "ng"):
            by_image[inspection.sha256].append(inspection)
    images: list[ReviewedImage] = []
    confirmed: list[ReviewedImage] = []
    for sha256, copies in by_image.items():
        newest = max(copies, key=lambda copy: (copy.reviewed_at, copy.id))
        part_ids = frozenset(copy.part_id for copy in copies if copy.part_id is not None)
        verdict: Verdict = "ng" if newest.reviewed == "ng" else "ok"
        image = ReviewedImage(newest.id, verdict, sha256, part_ids, SUFFIX_OF[newest.media_type])
        was_rejected = any(copy.verdict != "ok" for copy in copies)
        (images if image.verdict == "ng" or was_rejected else confirmed).append(image)
    return Found(*(sorted(some, key=lambda image: image.inspection_id) for some in (images, confirmed)))
