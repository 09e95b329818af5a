"""Read inspections, in flight or finished. An inspection is one image scored for one part."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Row,
    Select,
    Uuid,
    and_,
    any_,
    bindparam,
    func,
    literal,
    null,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects.postgresql import JSONB

from core.errors import Code, Refused
from core.inspection.id_ranges import ALL_IDS, VERSION_ORDER, IdRange
from core.inspection.review_decisions import IS_STANDING, decisions
from core.inspection.scanned_filters import ScannedFilters, Window, find_window
from core.models import model_versions as versions
from core.models import verdicts
from core.models.recipes import unknown_recipe
from core.models.verdicts import Verdict
from core.tables import SUBMITTED, images, inspections, model_versions, recipes, review_queue, reviews, work

MAX_PAGE = 1000
FINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Review:
    """A person's verdict on an inspection, which overrules the machine's. The machine's verdict is kept.

    Attributes:
        actor: the API key of the request (`key:` and its prefix), or `local` if no keys are in use.
        second_review: whether the recipe asked for a second review when this one was added.
    """

    id: UUID
    inspection_id: UUID
    verdict: Verdict
    reviewer: str
    reason: str
    actor: str
    created_at: dt.datetime
    second_review: bool = False


@dataclass(frozen=True)
class Inspection:
    """One inspection with its image, recipe and model version.

    Attributes:
        reviews: those that were not retracted, oldest first.
        image_removed_at: when retention removed the file of the image; None while it is stored.
    """

    id: UUID
    status: str
    recipe: str
    priority: str
    batch_id: UUID | None
    external_id: str | None
    part_id: str | None
    view: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    metadata: dict[str, Any]
    anomaly_score: float | None
    threshold: float | None
    review_threshold: float | None
    verdict: Verdict | None
    model_version_id: int | None
    model_version: int | None
    model_sha256: bytes | None
    image_day: dt.date
    image_sha256: bytes
    image_media_type: str
    image_width: int
    image_height: int
    image_bytes: int
    reasons: list[str]
    error_code: str | None
    error_detail: str | None
    attempt: int
    captured_at: dt.datetime | None
    deadline_at: dt.datetime | None
    created_at: dt.datetime
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    timings_ms: dict[str, float]
    reviews: Sequence[Review] = ()
    image_removed_at: dt.datetime | None = None

    @property
    def effective_verdict(self) -> Verdict | None:
        """The verdict of the reviews, or the machine's if there is no review."""
        return verdicts.effective_verdict(self.verdict, self.reviews)

    @property
    def decisive_review(self) -> Review | None:
        """The newest review with the verdict that the reviews decided; None while they do not decide."""
        return decisive_review(self.reviews)

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def is_anomaly(self) -> bool | None:
        """Whether the score reaches the threshold, even if the verdict is `review`; None without a score."""
        if self.anomaly_score is None or self.threshold is None:
            return None
        return verdicts.is_anomaly(self.anomaly_score, self.threshold)


def decisive_review(reviews: Sequence[Review]) -> Review | None:
    """The newest of the reviews of an inspection with the verdict that they decided; None while they do not decide."""
    decided = verdicts.reviewed_verdict(reviews)
    return next((review for review in reversed(reviews) if review.verdict == decided), None)


_RESULTS = ("anomaly_score", "threshold", "review_threshold", "verdict", "error_code", "error_detail")
_OF_CLAIM = ("model_version_id", "model_version", "model_sha256", "started_at", "finished_at")
_QUEUED: dict[str, Any] = {
    **dict.fromkeys((*_RESULTS, *_OF_CLAIM)),
    "status": "queued",
    "reasons": [],
    "attempt": 0,
    "timings_ms": {},
    "reviews": (),
}


def queued(**submitted: Any) -> Inspection:
    """An inspection that was just accepted, from its other attributes."""
    return Inspection(**submitted, **_QUEUED)


def as_first_answered(inspection: Inspection) -> Inspection:
    """The inspection in its state at acceptance, regardless of later changes."""
    return replace(inspection, **_QUEUED)


Reviewed = Literal["ok", "ng", "any", "none"]
"""The verdict that the reviews decided, or whether there is any review."""


@dataclass(frozen=True)
class Filters(ScannedFilters):
    """Filters of a listing; None means any. `since` (inclusive) and `until` (exclusive) apply to `created_at`.

    Attributes:
        model_version: the number of a version of the recipe.
    """

    recipe: str | None = None
    part_id: str | None = None
    lot_id: str | None = None
    line_id: str | None = None
    station_id: str | None = None
    batch_id: UUID | None = None
    verdict: str | None = None
    effective_verdict: str | None = None
    reviewed: Reviewed | None = None
    status: str | None = None
    model_version: int | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def indexed(self) -> "Filters":
        """The filters that an index answers."""
        names = ("recipe", "part_id", "lot_id", "line_id", "station_id", "batch_id", "model_version", "since", "until")
        return Filters(**{name: getattr(self, name) for name in names})


_OUTCOME_COLUMNS = (
    "status",
    "anomaly_score",
    "verdict",
    "reasons",
    "error_code",
    "error_detail",
    "finished_at",
    "timings_ms",
)


def _in_flight() -> Select[Any]:
    types = {name: inspections.c[name].type for name in _OUTCOME_COLUMNS}
    defaults: dict[str, Any] = {name: null().cast(types[name]) for name in _OUTCOME_COLUMNS}
    defaults |= {
        "status": work.c.state,
        "reasons": literal([], types["reasons"]),
        "timings_ms": literal({}, JSONB),
    }
    return select(*(work.c[name] for name in SUBMITTED), *(defaults[name].label(name) for name in _OUTCOME_COLUMNS))


def _finished() -> Select[Any]:
    return select(*(inspections.c[name] for name in (*SUBMITTED, *_OUTCOME_COLUMNS)))


def _joined(branches: Sequence[Select[Any]]) -> Select[Any]:
    """The rows of both tables, joined with recipe, model version and image."""
    inspection = union_all(*branches).subquery("inspection")
    return (
        select(
            *(inspection.c[name] for name in (*SUBMITTED, *_OUTCOME_COLUMNS)),
            recipes.c.name.label("recipe"),
            model_versions.c.version.label("model_version"),
            model_versions.c.sha256.label("model_sha256"),
            images.c.media_type.label("image_media_type"),
            images.c.width.label("image_width"),
            images.c.height.label("image_height"),
            images.c.bytes.label("image_bytes"),
            images.c.removed_at.label("image_removed_at"),
        )
        .join(recipes, recipes.c.id == inspection.c.recipe_id)
        .join(images, and_(images.c.day == inspection.c.image_day, images.c.sha256 == inspection.c.image_sha256))
        .join(model_versions, model_versions.c.id == inspection.c.model_version_id, isouter=True)
        .order_by(inspection.c.id.desc())
    )


_HIDDEN_COLUMNS = {"recipe_id", "threshold_id", "callback_endpoint_id", "callback_url"}


def _inspections(connection: Connection, rows: Sequence[Row[Any]]) -> list[Inspection]:
    reviews_by_id = reviews_of(connection, [row.id for row in rows])
    return [
        Inspection(
            **{name: value for name, value in zip(row._fields, row, strict=True) if name not in _HIDDEN_COLUMNS},
            reviews=reviews_by_id.get(row.id, ()),
        )
        for row in rows
    ]


# One array parameter for any number of ids, so the statement is compiled and parsed only once.
_ANY_OF_IDS: ColumnElement[Any] = any_(bindparam("ids", type_=ARRAY(Uuid)))
_REVIEW_COLUMNS = [reviews.c[field.name] for field in fields(Review)]
_REVIEWS_OF = select(*_REVIEW_COLUMNS).where(reviews.c.inspection_id == _ANY_OF_IDS, IS_STANDING).order_by(reviews.c.id)
_FINISHED_OF_IDS = _finished().where(inspections.c.id == _ANY_OF_IDS)
_BY_IDS = _joined([_in_flight().where(work.c.id == _ANY_OF_IDS), _FINISHED_OF_IDS])
_FINISHED_BY_IDS = _joined([_FINISHED_OF_IDS])


def reviews_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, list[Review]]:
    """The reviews of these inspections that were not retracted, oldest first. Those without reviews are left out."""
    if not ids:
        return {}
    reviews_by_id: dict[UUID, list[Review]] = defaultdict(list)
    for row in connection.execute(_REVIEWS_OF, {"ids": ids}):
        reviews_by_id[row.inspection_id].append(Review(**row._mapping))
    return reviews_by_id


def by_ids(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, Inspection]:
    """The inspections with these ids. Unknown ids are left out."""
    return _of_ids(connection, _BY_IDS, ids)


def final_by_ids(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, Inspection]:
    """The final inspections with these ids. Unknown ids, and those of inspections in flight, are left out."""
    return _of_ids(connection, _FINISHED_BY_IDS, ids)


def _of_ids(connection: Connection, query: Select[Any], ids: Iterable[UUID]) -> dict[UUID, Inspection]:
    rows = connection.execute(query, {"ids": list(ids)}).all()
    return {inspection.id: inspection for inspection in _inspections(connection, rows)}


def get(connection: Connection, inspection_id: UUID) -> Inspection:
    """One inspection. Raises Refused if the id is unknown."""
    inspection = by_ids(connection, [inspection_id]).get(inspection_id)
    if inspection is None:
        raise unknown_inspection(connection, inspection_id)
    return inspection


_REMOVED_MONTH = text("SELECT month FROM removed_months WHERE first_id <= :id AND end_id > :id")


def unknown_inspection(connection: Connection, inspection_id: UUID) -> Refused:
    """The refusal of an unknown inspection id. An id says when it was made, so that of a removed month is known."""
    month = connection.execute(_REMOVED_MONTH, {"id": inspection_id}).scalar_one_or_none()
    if month is not None:
        return Refused(
            Code.INSPECTION_EXPIRED, f"The inspections of {month} were removed: their time of retention has ended."
        )
    return Refused(Code.NOT_FOUND, f"Inspection {inspection_id} does not exist.")


def list_page(
    connection: Connection, filters: Filters, *, before: UUID | None, limit: int
) -> tuple[list[Inspection], UUID | None]:
    """One page, newest first, and the value of `before` for the next page; None at the end.

    A page with `ScannedFilters` may have fewer items than `limit`, even none, although more follow.

    Raises Refused if the recipe is unknown, so that a mistyped name does not look like a recipe without inspections.
    """
    branches: list[Select[Any]] = []
    order = [inspections.c.id.desc()] if filters.model_version is None else VERSION_ORDER
    window = Window(IdRange(end=before))
    if filters.scans:
        indexed = conditions(connection, filters.indexed(), inspections, ids=window.ids)
        window = find_window(connection, filters, indexed, order, before)
    for branch, table, newest_first in (
        (_in_flight(), work, [work.c.id.desc()]),
        (_finished(), inspections, order),
    ):
        filtered = branch.where(*conditions(connection, filters, table, ids=window.ids))
        if table is inspections:
            filtered = filtered.where(*window.conditions)
        # Each branch is sorted and limited by an index of its table before the two are merged.
        branches.append(select(filtered.order_by(*newest_first).limit(limit + 1).subquery()))
    rows = connection.execute(_joined(branches).limit(limit + 1)).all()
    items = _inspections(connection, rows[:limit])
    return items, items[-1].id if len(rows) > limit else window.last


def _recipe_id(connection: Connection, name: str | None) -> int | None:
    """The id of a recipe, or None without a name. Raises Refused if it is unknown."""
    if name is None:
        return None
    recipe_id: int | None = connection.execute(select(recipes.c.id).where(recipes.c.name == name)).scalar()
    if recipe_id is None:
        raise unknown_recipe(name)
    return recipe_id


def conditions(connection: Connection, filters: Filters, table: Any, *, ids: IdRange = ALL_IDS) -> list[Any]:
    """The WHERE conditions of the filters for `work` or `inspections`, within a range of ids.

    Raises:
        Refused: RECIPE_UNKNOWN; NOT_FOUND if the recipe has no such model version; INVALID_FIELD without a recipe.
    """
    in_flight, recipe_id = table is work, _recipe_id(connection, filters.recipe)
    conditions = [
        table.c[name] == value
        for name in ("part_id", "lot_id", "line_id", "station_id", "batch_id")
        if (value := getattr(filters, name)) is not None
    ]
    if recipe_id is not None and filters.model_version is None:
        conditions.append(table.c.recipe_id == recipe_id)
    if filters.status is not None:
        conditions.append((table.c.state if in_flight else table.c.status) == filters.status)
    if filters.verdict is not None:
        conditions.append(literal(False) if in_flight else table.c.verdict == filters.verdict)
    if filters.effective_verdict is not None:
        conditions.append(literal(False) if in_flight else _effective(filters.effective_verdict, recipe_id))
    if filters.reviewed is not None:
        conditions.append(literal(filters.reviewed == "none") if in_flight else _reviewed(filters.reviewed, recipe_id))
    if filters.scans:
        conditions += [literal(False)] if in_flight else filters.scanned_conditions()
    return conditions + _in_range(connection, filters, table, ids.accepted(filters.since, filters.until))


def _in_range(connection: Connection, filters: Filters, table: Any, ids: IdRange) -> list[ColumnElement[bool]]:
    """The conditions on the time and the model version."""
    conditions = ids.conditions(table)
    if filters.model_version is not None:
        if filters.recipe is None:
            raise Refused(Code.INVALID_FIELD, "model_version: name its recipe, too.")
        version_id = versions.get(connection, filters.recipe, filters.model_version).id
        conditions += [work.c.model_version_id == version_id] if table is work else ids.of_version(version_id)
    if filters.since is not None:
        conditions.append(table.c.created_at >= filters.since)
    if filters.until is not None:
        conditions.append(table.c.created_at < filters.until)
    return conditions


def _decided() -> ColumnElement[Any]:
    """What the reviews of a finished inspection decided; null without reviews."""
    decided = decisions().subquery("decided")
    return select(decided.c.verdict).where(decided.c.inspection_id == inspections.c.id).scalar_subquery()


def _effective(verdict: str, recipe_id: int | None) -> ColumnElement[bool]:
    """`core.models.verdicts.effective_verdict` in SQL, for finished inspections."""
    is_effective = func.coalesce(_decided(), inspections.c.verdict) == verdict
    if verdict != "review":
        return is_effective
    # All of them wait in the queue, which is much shorter than the list of inspections.
    of_recipe = [] if recipe_id is None else [review_queue.c.recipe_id == recipe_id]
    return and_(inspections.c.id.in_(select(review_queue.c.inspection_id).where(*of_recipe)), is_effective)


def _reviewed(verdict: Reviewed, recipe_id: int | None) -> ColumnElement[bool]:
    """Whether this is what the reviews of a finished inspection decided. A recipe limits which reviews are read."""
    if verdict == "none":
        return ~select(reviews.c.id).where(reviews.c.inspection_id == inspections.c.id, IS_STANDING).exists()
    matching = select(reviews.c.inspection_id).where(IS_STANDING)
    if recipe_id is not None:
        matching = matching.where(reviews.c.recipe_id == recipe_id)
    if verdict == "any":
        return inspections.c.id.in_(matching)
    # PostgreSQL expects this to be mostly true, as it is, unlike an equality. So it reads the newest inspections first.
    is_decided = _decided().not_in([other for other in ("ok", "ng", "review") if other != verdict])
    return and_(inspections.c.id.in_(matching.where(reviews.c.verdict == verdict)), is_decided)


def which_are_final(connection: Connection, ids: Iterable[UUID]) -> set[UUID]:
    """The ids of those of these inspections that are final."""
    rows = connection.execute(select(inspections.c.id).where(inspections.c.id.in_(list(ids)))).scalars()
    return set(rows)
