"""Gather the images of the inspections that a run learns from, once, when its first worker starts it.

Inspections are read in pages, newest first and no further back than `since`. What was found is recorded, so that every
attempt trains on the same images and retention knows which are in use.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, Engine, text
from sqlalchemy.dialects.postgresql import insert as upsert

from core.inspection import inspections
from core.inspection.inspections import Filters, Inspection
from core.training_runs import images
from core.training_runs.images import TrainingImage
from core.training_runs.requests import DEFAULT_PERIOD, InspectionSource
from core.training_runs.runs import GOOD, Run
from core.training_runs.tables import training_images
from core.vision.reviewed_parts.images import ReviewedInspection, select

REVIEWED_NG: Final = "test/reviewed-ng"
"""The label of images that a person called ng."""
_PAGE: Final = 500
_ROWS_AT_ONCE: Final = 2000
_COLUMNS: Final = ("label", "inspection_id", "part_ids", "was_rejected")


def gather(engine: Engine, run: Run) -> None:
    """Record the images of the run's inspections, unless that has been done. Each page is a transaction of its own.

    An image that was uploaded, too, gets the label of its review.
    """
    if run.inspections is None or _is_gathered(engine, run.id):
        return
    source = InspectionSource.model_validate(run.inspections)
    filters = _filters(run, source)
    reviewed, known = _reviewed_images(engine, filters, source)
    accepted = _accepted_images(engine, filters, source, known) if source.good == "effective" else []
    for found, overrules in ((reviewed, True), (accepted, False)):
        for start in range(0, len(found), _ROWS_AT_ONCE):
            with engine.begin() as connection:
                _insert(connection, run.id, found[start : start + _ROWS_AT_ONCE], overrules=overrules)
    with engine.begin() as connection:
        images.update_counts(connection, run.id)
        connection.execute(
            text("UPDATE training_runs SET gathered_at = clock_timestamp() WHERE id = :id"), {"id": run.id}
        )


def newest_completed(engine: Engine, recipe: str, at_most: int) -> list[Inspection]:
    """Return the newest completed inspections of a recipe, newest first."""
    return list(_newest(engine, Filters(recipe=recipe, status="completed"), at_most))


def _is_gathered(engine: Engine, run_id: UUID) -> bool:
    with engine.begin() as connection:
        query = text("SELECT gathered_at IS NOT NULL FROM training_runs WHERE id = :id")
        return bool(connection.execute(query, {"id": run_id}).scalar_one())


def _filters(run: Run, source: InspectionSource) -> Filters:
    started = run.queued_at or run.created_at
    return Filters(
        recipe=run.recipe,
        status="completed",
        since=source.since or started - DEFAULT_PERIOD,
        until=min(source.until or started, started),
        **source.model_dump(include={"lot_id", "line_id", "station_id"}),
    )


def _newest(engine: Engine, filters: Filters, at_most: int) -> Iterator[Inspection]:
    before: UUID | None = None
    while at_most > 0:
        with engine.begin() as connection:
            page, before = inspections.list_page(connection, filters, before=before, limit=min(_PAGE, at_most))
        yield from (inspection for inspection in page if inspection.image_removed_at is None)
        at_most -= len(page)
        if before is None:
            return


def _reviewed_images(
    engine: Engine, filters: Filters, source: InspectionSource
) -> tuple[list[TrainingImage], set[bytes]]:
    """Return the images that people called ok or, if these are wanted, ng; and the digests of all reviewed ones."""
    days: dict[UUID, dt.date] = {}
    reviewed: list[ReviewedInspection] = []
    for verdict in ("ok", "ng"):
        for inspection in _newest(engine, replace(filters, reviewed=verdict), source.limit):
            days[inspection.id] = inspection.image_day
            reviewed.append(_reviewed(inspection))
    found = select(reviewed)
    chosen = [(image, True) for image in found.images] + [(image, False) for image in found.confirmed]
    used = [
        TrainingImage(
            sha256=bytes.fromhex(image.sha256),
            day=days[image.inspection_id],
            label=GOOD if image.verdict == "ok" else REVIEWED_NG,
            inspection_id=image.inspection_id,
            part_ids=sorted(image.part_ids),
            was_rejected=was_rejected and image.verdict == "ok",
        )
        for image, was_rejected in chosen
        if source.defects or image.verdict == "ok"
    ]
    return used, {bytes.fromhex(image.sha256) for image, _ in chosen}


def _reviewed(inspection: Inspection) -> ReviewedInspection:
    return ReviewedInspection(
        inspection.id,
        inspection.image_sha256.hex(),
        inspection.image_media_type,
        str(inspection.verdict),
        str(inspection.effective_verdict),
        inspection.reviews[-1].created_at,
        inspection.part_id,
    )


def _accepted_images(
    engine: Engine, filters: Filters, source: InspectionSource, known: Collection[bytes]
) -> list[TrainingImage]:
    """Return the images that the machine called ok and nobody reviewed."""
    found: dict[bytes, TrainingImage] = {}
    for inspection in _newest(engine, replace(filters, effective_verdict="ok"), source.limit):
        if inspection.image_sha256 in known:
            continue
        image = found.setdefault(
            inspection.image_sha256,
            TrainingImage(
                sha256=inspection.image_sha256,
                day=inspection.image_day,
                label=GOOD,
                inspection_id=inspection.id,
            ),
        )
        if inspection.part_id is not None and inspection.part_id not in image.part_ids:
            image.part_ids.append(inspection.part_id)
    return list(found.values())


def _insert(connection: Connection, run_id: UUID, found: Sequence[TrainingImage], *, overrules: bool) -> None:
    rows = [
        {"run_id": run_id, "image_sha256": image.sha256, "image_day": image.day}
        | {name: getattr(image, name) for name in _COLUMNS}
        for image in found
    ]
    statement = upsert(training_images)
    if overrules:
        changes = {name: statement.excluded[name] for name in _COLUMNS}
        keys = (training_images.c.run_id, training_images.c.image_sha256)
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), rows)
    else:
        connection.execute(statement.on_conflict_do_nothing(), rows)
