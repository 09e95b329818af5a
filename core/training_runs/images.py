"""The images of a training run: added by uploads while the run is open, and read by its worker."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, and_, select, text
from sqlalchemy.dialects.postgresql import insert as upsert

from core.errors import Code, Refused
from core.intake.submission import StoredImage, image_row
from core.tables import images
from core.training_runs import runs
from core.training_runs.tables import training_images, training_runs

LABEL: Final = r"^(good|test/[A-Za-z0-9][A-Za-z0-9 ._-]{0,63})$"
"""`good` for an image to train on, `test/good` or `test/<type>` for one to judge with."""
MAX_IMAGES: Final = 100_000
"""The most images of a run."""


@dataclass(frozen=True)
class NewImage:
    """An uploaded image, which is durably stored.

    Attributes:
        name: of the file; None if it has none.
    """

    image: StoredImage
    label: str
    name: str | None


@dataclass(frozen=True)
class Added:
    """What happened to images that were added.

    Attributes:
        added: the number of new images.
        duplicates: the number of images that the run has already, with the same label.
        conflicts: the images that it has already with another label, each with that label.
    """

    added: int
    duplicates: int
    conflicts: list[tuple[NewImage, str]]


@dataclass(frozen=True)
class TrainingImage:
    """An image of a run.

    Attributes:
        name: of the uploaded file; None if it had none, or for an image of an inspection.
        inspection_id: None for an uploaded image.
        part_ids: the parts that it was inspected for; empty if they are unknown.
        was_rejected: whether the machine had rejected it, though a person called it ok.
        media_type: as stored; `all_of` sets it.
    """

    sha256: bytes
    day: dt.date
    label: str
    name: str | None = None
    inspection_id: UUID | None = None
    part_ids: list[str] = field(default_factory=list)
    was_rejected: bool = False
    media_type: str = ""


def check_open(connection: Connection, recipe: str, run_id: UUID) -> None:
    """Lock an open run, so that it is not started while images are added.

    Raises:
        Refused: RECIPE_UNKNOWN; NOT_FOUND; INVALID_TRANSITION in any other state.
    """
    run = runs.get(connection, recipe, run_id)
    state = connection.execute(
        select(training_runs.c.state).where(training_runs.c.id == run_id).with_for_update(key_share=True)
    ).scalar_one()
    if state != "open":
        raise Refused(
            Code.INVALID_TRANSITION, f"Training run {run.id} is {state}; images can be added only to an open one."
        )


def add(connection: Connection, recipe: str, run_id: UUID, new_images: Sequence[NewImage]) -> Added:
    """Add uploaded images to an open run. An image that the run has already is not added again.

    Raises:
        Refused: see `check_open`; TOO_MANY_IMAGES.
    """
    check_open(connection, recipe, run_id)
    first = {new.image.sha256: new for new in reversed(new_images)}  # the first of copies in one request counts
    if not first:
        return Added(0, 0, [])
    rows = {new.image.sha256: image_row(new.image) for new in first.values()}
    ordered = sorted(first)  # so that two requests with the same images cannot deadlock
    connection.execute(upsert(images).on_conflict_do_nothing(), [rows[sha256] for sha256 in ordered])
    inserted = connection.execute(
        upsert(training_images).on_conflict_do_nothing().returning(training_images.c.image_sha256),
        [_row(run_id, first[sha256]) for sha256 in ordered],
    )
    added = set(inserted.scalars())
    labels = _labels(connection, run_id, list(first))
    conflicts = [(new, labels[new.image.sha256]) for new in new_images if labels[new.image.sha256] != new.label]
    if sum(update_counts(connection, run_id).values()) > MAX_IMAGES:
        raise Refused(Code.TOO_MANY_IMAGES, f"A training run may have at most {MAX_IMAGES} images.")
    return Added(len(added), len(new_images) - len(added) - len(conflicts), conflicts)


def _row(run_id: UUID, new: NewImage) -> dict[str, object]:
    return {
        "run_id": run_id,
        "image_sha256": new.image.sha256,
        "image_day": new.image.day,
        "label": new.label,
        "name": new.name,
    }


def _labels(connection: Connection, run_id: UUID, digests: Sequence[bytes]) -> dict[bytes, str]:
    columns = (training_images.c.image_sha256, training_images.c.label)
    condition = and_(training_images.c.run_id == run_id, training_images.c.image_sha256.in_(digests))
    return {row.image_sha256: row.label for row in connection.execute(select(*columns).where(condition))}


def update_counts(connection: Connection, run_id: UUID) -> dict[str, int]:
    """Count the images of a run by label, store the numbers, and return them."""
    counts: dict[str, int] = connection.execute(
        text("""
            UPDATE training_runs SET images = (
                SELECT coalesce(jsonb_object_agg(label, number), '{}') FROM (
                    SELECT label, count(*) AS number FROM training_images WHERE run_id = :id GROUP BY label
                ) AS counted
            ) WHERE id = :id RETURNING images
        """),
        {"id": run_id},
    ).scalar_one()
    return counts


def all_of(connection: Connection, run_id: UUID) -> list[TrainingImage]:
    """Return the images of a run, in an order that never changes."""
    query = (
        select(
            training_images.c.image_sha256.label("sha256"),
            training_images.c.image_day.label("day"),
            images.c.media_type,
            *(training_images.c[name] for name in ("label", "name", "inspection_id", "part_ids", "was_rejected")),
        )
        .join(
            images,
            and_(images.c.day == training_images.c.image_day, images.c.sha256 == training_images.c.image_sha256),
        )
        .where(training_images.c.run_id == run_id, images.c.removed_at.is_(None))
        .order_by(training_images.c.image_sha256)
    )
    return [TrainingImage(**row._mapping) for row in connection.execute(query)]
