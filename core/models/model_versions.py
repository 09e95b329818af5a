"""Model versions: immutable trained artefacts of a recipe. `uploaded → ready | rejected`, later `retired`.

A worker decides whether an uploaded version is ready: it loads the bundle and reproduces its golden scores. The first
version of a recipe that becomes ready becomes its active one.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.sql.functions import now

from core.access import audit
from core.errors import Code, Refused
from core.feed import events
from core.feed.events import Event, EventType
from core.models import recipes
from core.models.recipes import Recipe
from core.tables import activations, model_versions, thresholds
from core.tables import recipes as recipes_table

MAX_CHECKS = 5
"""Checks of an uploaded version that may end their worker, before the version is rejected."""


@dataclass(frozen=True)
class ModelVersion:
    """A model version: a bundle of a recipe."""

    id: int
    recipe_id: int
    recipe: str
    version: int
    state: str
    sha256: bytes
    manifest: dict[str, Any]
    rejection: str | None
    active: bool
    created_at: dt.datetime
    decided_at: dt.datetime | None


_SELECT = select(
    *(column for column in model_versions.c if column.name != "checks"),
    recipes_table.c.name.label("recipe"),
    # The recipe may point at no version, which makes the comparison null.
    func.coalesce(recipes_table.c.active_version_id == model_versions.c.id, False).label("active"),
).join_from(model_versions, recipes_table, model_versions.c.recipe_id == recipes_table.c.id)


def _version(row: Row[*tuple[Any, ...]]) -> ModelVersion:
    return ModelVersion(**row._mapping)


def list_all(connection: Connection, recipe: str) -> list[ModelVersion]:
    """The versions of a recipe, newest first."""
    found = recipes.get(connection, recipe)
    query = _SELECT.where(model_versions.c.recipe_id == found.id).order_by(model_versions.c.version.desc())
    return [_version(row) for row in connection.execute(query)]


def get(connection: Connection, recipe: str, version: int) -> ModelVersion:
    """One version of a recipe.

    Raises:
        Refused: NOT_FOUND.
    """
    found = recipes.get(connection, recipe)
    row = connection.execute(
        _SELECT.where(model_versions.c.recipe_id == found.id, model_versions.c.version == version)
    ).one_or_none()
    if row is None:
        raise Refused(Code.NOT_FOUND, f"Recipe {recipe!r} has no model version {version}.")
    return _version(row)


def newest_ready(connection: Connection, recipe: str) -> ModelVersion:
    """The version with the highest number that can score; refuses a recipe that has none."""
    newest = next((one for one in list_all(connection, recipe) if one.state == "ready"), None)
    if newest is None:
        raise Refused(Code.MODEL_NOT_READY, f"Recipe {recipe!r} has no version that is ready.")
    return newest


def by_id(connection: Connection, version_id: int) -> ModelVersion:
    """One version by its internal id, which must exist."""
    return _version(connection.execute(_SELECT.where(model_versions.c.id == version_id)).one())


def register(
    connection: Connection, recipe: str, *, sha256: bytes, manifest: dict[str, Any], actor: str
) -> tuple[ModelVersion, bool]:
    """Enter a bundle as the next version of a recipe, its threshold with it.

    Returns the version and whether it is new: the same bundle twice is the same version. One that was rejected is
    checked again, for the worker that rejected it may have been at fault.
    """
    owner = recipes.lock(connection, recipe)
    known = connection.execute(
        _SELECT.where(model_versions.c.recipe_id == owner.id, model_versions.c.sha256 == sha256)
    ).one_or_none()
    if known is not None:
        return _checked_again(connection, _version(known)), False
    latest = connection.execute(
        select(func.coalesce(func.max(model_versions.c.version), 0)).where(model_versions.c.recipe_id == owner.id)
    ).scalar_one()
    made = connection.execute(
        insert(model_versions)
        .values(recipe_id=owner.id, version=latest + 1, sha256=sha256, manifest=manifest)
        .returning(model_versions.c.id)
    ).scalar_one()
    seed = manifest["threshold"]
    connection.execute(
        insert(thresholds).values(
            model_version_id=made,
            threshold=seed["value"],
            review_threshold=manifest.get("review_threshold"),
            calibration=seed.get("calibration"),
        )
    )
    version = by_id(connection, made)
    audit.record(
        connection,
        actor=actor,
        action="model.uploaded",
        subject=f"recipe:{recipe}",
        version=version.version,
        sha256=sha256.hex(),
    )
    return version, True


def _checked_again(connection: Connection, version: ModelVersion) -> ModelVersion:
    """`rejected → uploaded`; any other version stays as it is."""
    connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version.id, model_versions.c.state == "rejected")
        .values(state="uploaded", rejection=None, decided_at=None, checks=0)
    )
    return by_id(connection, version.id)


def undecided(connection: Connection, *, older_than_seconds: float = 0) -> list[int]:
    """Ids of the versions that no worker has checked yet."""
    age = func.make_interval(0, 0, 0, 0, 0, 0, older_than_seconds)
    return list(
        connection.execute(
            select(model_versions.c.id)
            .where(model_versions.c.state == "uploaded", model_versions.c.created_at < now() - age)
            .order_by(model_versions.c.id)
        ).scalars()
    )


def begin_check(connection: Connection, version_id: int) -> bool:
    """Count a check of an uploaded version. Returns whether to check it; commit before you do.

    A version whose checks keep ending their process is rejected after `MAX_CHECKS`.
    """
    checks = connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version_id, model_versions.c.state == "uploaded")
        .values(checks=model_versions.c.checks + 1)
        .returning(model_versions.c.checks)
    ).scalar_one_or_none()
    if checks is not None and checks > MAX_CHECKS:
        reject(connection, version_id, f"{MAX_CHECKS} checks of it ended their worker")
        return False
    return checks is not None


def undo_check(connection: Connection, version_id: int) -> None:
    """Take back `begin_check`, for a check that could not be made, which is not the fault of the version."""
    connection.execute(
        update(model_versions).where(model_versions.c.id == version_id).values(checks=model_versions.c.checks - 1)
    )


def mark_ready(connection: Connection, version_id: int) -> bool:
    """`uploaded → ready`; the first ready version of a recipe becomes active. False if it was decided already."""
    if not _decide(connection, version_id, state="ready", rejection=None):
        return False
    version = by_id(connection, version_id)
    owner = recipes.lock(connection, version.recipe)
    if owner.active_version_id is None:
        _activate(connection, owner, version, actor="worker")
    return True


def reject(connection: Connection, version_id: int, why: str) -> bool:
    """`uploaded → rejected`, with the reason. False if it was decided already."""
    return _decide(connection, version_id, state="rejected", rejection=why)


def _decide(connection: Connection, version_id: int, *, state: str, rejection: str | None) -> bool:
    decided = connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version_id, model_versions.c.state == "uploaded")
        .values(state=state, rejection=rejection, decided_at=now())
        .returning(model_versions.c.id)
    ).one_or_none()
    return decided is not None


def activate(connection: Connection, recipe: str, version: int, *, actor: str) -> ModelVersion:
    """Make a ready version the one that scores; refuses any that is not ready. Activating the active one is nothing."""
    owner = recipes.lock(connection, recipe)
    wanted = get(connection, recipe, version)
    if wanted.state != "ready":
        why = f": {wanted.rejection}" if wanted.rejection else ""
        raise Refused(
            Code.MODEL_NOT_READY,
            f"Version {version} of recipe {recipe!r} is {wanted.state}{why}; only a ready one can be activated.",
        )
    if owner.active_version_id != wanted.id:
        _activate(connection, owner, wanted, actor=actor)
    return get(connection, recipe, version)


def rollback(connection: Connection, recipe: str, *, actor: str) -> ModelVersion:
    """Go back to the version that was active before the present one; refuses when there is none."""
    owner = recipes.lock(connection, recipe)
    stack = connection.execute(
        select(activations.c.id, activations.c.model_version_id)
        .where(activations.c.recipe_id == owner.id, activations.c.rolled_back_at.is_(None))
        .order_by(activations.c.id.desc())
        .limit(2)
    ).all()
    if len(stack) < 2:
        raise Refused(Code.INVALID_TRANSITION, f"Recipe {recipe!r} has no earlier version to go back to.")
    present, earlier = stack
    connection.execute(update(activations).where(activations.c.id == present.id).values(rolled_back_at=now()))
    target = by_id(connection, earlier.model_version_id)
    _point_at(connection, owner, target, actor=actor, action="model.rolled_back")
    return by_id(connection, target.id)


def newest_activation(connection: Connection, recipe_id: int) -> int | None:
    """The id of the activation that a rollback would take back; None where nothing was activated."""
    newest: int | None = connection.execute(
        select(func.max(activations.c.id)).where(
            activations.c.recipe_id == recipe_id, activations.c.rolled_back_at.is_(None)
        )
    ).scalar_one()
    return newest


def _activate(connection: Connection, owner: Recipe, version: ModelVersion, *, actor: str) -> None:
    connection.execute(insert(activations).values(recipe_id=owner.id, model_version_id=version.id))
    _point_at(connection, owner, version, actor=actor, action="model.activated")


def _point_at(connection: Connection, owner: Recipe, version: ModelVersion, *, actor: str, action: str) -> None:
    connection.execute(
        update(recipes_table)
        .where(recipes_table.c.id == owner.id)
        .values(active_version_id=version.id, updated_at=now())
    )
    audit.record(
        connection,
        actor=actor,
        action=action,
        subject=f"recipe:{owner.name}",
        version=version.version,
        before=owner.active_version,
    )
    events.emit(connection, [Event(EventType.MODEL_ACTIVATED, str(version.id), [owner.id])])
