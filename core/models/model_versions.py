"""Model versions: immutable trained bundles of a recipe, `uploaded → ready | rejected`, later `retired`.

A worker checks each uploaded version: it loads the bundle and reproduces its golden scores. The first version of a
recipe that becomes ready is activated automatically, unless its training found that it is not fit for use.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, text, update
from sqlalchemy.sql.functions import now

from core import removal_lock
from core.access import audit
from core.errors import Code, Refused
from core.feed import events
from core.feed.events import Event, EventType
from core.models import recipes
from core.models.recipes import Recipe
from core.tables import activations, model_versions, thresholds
from core.tables import recipes as recipes_table

MAX_CHECKS = 5
"""Reject an uploaded version after this many checks that crashed or did not end in time."""
CHECK_SECONDS = 60.0
"""The lease of a check. A worker renews it while it checks; if the worker is killed, another one checks after it."""


@dataclass(frozen=True)
class ModelVersion:
    """A version of a recipe's model.

    Attributes:
        sha256: the digest of the bundle.
        rejection: why the version was rejected; None unless it was.
        decided_at: when a worker marked it ready or rejected it.
    """

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
    *(column for column in model_versions.c if column.name not in ("checks", "check_until")),
    recipes_table.c.name.label("recipe"),
    # The comparison is null if the recipe has no active version.
    func.coalesce(recipes_table.c.active_version_id == model_versions.c.id, False).label("active"),
).join_from(model_versions, recipes_table, model_versions.c.recipe_id == recipes_table.c.id)


def _version(row: Row[*tuple[Any, ...]]) -> ModelVersion:
    return ModelVersion(**row._mapping)


def list_all(connection: Connection, recipe: str) -> list[ModelVersion]:
    """Return the versions of a recipe, newest first.

    Raises:
        Refused: RECIPE_UNKNOWN.
    """
    recipe_id = recipes.get(connection, recipe).id
    query = _SELECT.where(model_versions.c.recipe_id == recipe_id).order_by(model_versions.c.version.desc())
    return [_version(row) for row in connection.execute(query)]


def get(connection: Connection, recipe: str, version: int) -> ModelVersion:
    """Return a version of a recipe by its number.

    Raises:
        Refused: RECIPE_UNKNOWN; NOT_FOUND.
    """
    recipe_id = recipes.get(connection, recipe).id
    row = connection.execute(
        _SELECT.where(model_versions.c.recipe_id == recipe_id, model_versions.c.version == version)
    ).one_or_none()
    if row is None:
        raise Refused(Code.NOT_FOUND, f"Recipe {recipe!r} has no model version {version}.")
    return _version(row)


def newest_ready(connection: Connection, recipe: str) -> ModelVersion:
    """Return the ready version with the highest number.

    Raises:
        Refused: RECIPE_UNKNOWN; MODEL_NOT_READY if no version is ready.
    """
    newest = next((version for version in list_all(connection, recipe) if version.state == "ready"), None)
    if newest is None:
        raise Refused(Code.MODEL_NOT_READY, f"Recipe {recipe!r} has no ready model version.")
    return newest


def by_id(connection: Connection, version_id: int) -> ModelVersion:
    """Return a version by its internal id, which must exist."""
    return _version(connection.execute(_SELECT.where(model_versions.c.id == version_id)).one())


def register(
    connection: Connection,
    recipe: str,
    *,
    sha256: bytes,
    manifest: dict[str, Any],
    actor: str,
    held_out_scores: list[float] | None = None,
) -> tuple[ModelVersion, bool]:
    """Register a bundle as the next version of a recipe, with the thresholds in its manifest.

    Args:
        held_out_scores: of the good parts of its calibration, ascending; None if the bundle does not have them.

    Returns:
        The version, and whether it is new: registering the same bundle again returns the same version. A rejected
        version is then checked again, because the fault may have been the worker's, and a retired one is in use again.

    Raises:
        Refused: RECIPE_UNKNOWN.
    """
    removal_lock.share(connection)  # from now on, the bundle is needed
    locked_recipe = recipes.lock(connection, recipe)
    existing = connection.execute(
        _SELECT.where(model_versions.c.recipe_id == locked_recipe.id, model_versions.c.sha256 == sha256)
    ).one_or_none()
    if existing is not None:
        return _check_again(connection, _version(existing)), False
    newest_number = connection.execute(
        select(func.coalesce(func.max(model_versions.c.version), 0)).where(
            model_versions.c.recipe_id == locked_recipe.id
        )
    ).scalar_one()
    version_id = connection.execute(
        insert(model_versions)
        .values(recipe_id=locked_recipe.id, version=newest_number + 1, sha256=sha256, manifest=manifest)
        .returning(model_versions.c.id)
    ).scalar_one()
    threshold = manifest["threshold"]
    connection.execute(
        insert(thresholds).values(
            model_version_id=version_id,
            threshold=threshold["value"],
            review_threshold=manifest.get("review_threshold"),
            calibration=threshold.get("calibration"),
            actor=actor,
            held_out_scores=held_out_scores,
        )
    )
    version = by_id(connection, version_id)
    audit.record(
        connection,
        actor=actor,
        action="model.uploaded",
        subject=f"recipe:{recipe}",
        version=version.version,
        sha256=sha256.hex(),
    )
    return version, True


def _check_again(connection: Connection, version: ModelVersion) -> ModelVersion:
    """`rejected | retired → uploaded`. Does nothing in any other state."""
    connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version.id, model_versions.c.state.in_(("rejected", "retired")))
        .values(state="uploaded", rejection=None, decided_at=None, checks=0, check_until=None)
    )
    return by_id(connection, version.id)


# A lease that ends further ahead than any lease lasts has expired, too: the clock was ahead when it was taken.
_NOT_UNDER_CHECK: Any = text("""
    state = 'uploaded' AND (check_until IS NULL OR check_until NOT BETWEEN clock_timestamp()
        AND clock_timestamp() + make_interval(secs => :check_seconds))
""").bindparams(check_seconds=CHECK_SECONDS)
_CHECK_LEASE: Any = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, CHECK_SECONDS)


def undecided(connection: Connection, *, older_than_seconds: float = 0) -> list[int]:
    """Return the ids of the uploaded versions that are neither decided nor under check, oldest first."""
    age = func.make_interval(0, 0, 0, 0, 0, 0, older_than_seconds)
    # A version with a time in the future is old enough: the clock was ahead when it was uploaded.
    is_old = ~model_versions.c.created_at.between(now() - age, now())
    return list(
        connection.execute(
            select(model_versions.c.id).where(_NOT_UNDER_CHECK, is_old).order_by(model_versions.c.id)
        ).scalars()
    )


def begin_check(connection: Connection, version_id: int) -> bool:
    """Take the lease of a check of an uploaded version, count the check and return whether to run it. Commit before it.

    Returns False while another worker holds the lease. The count survives a crash of the worker, so a version that
    keeps crashing workers is rejected after `MAX_CHECKS`.
    """
    checks = connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version_id, _NOT_UNDER_CHECK)
        .values(checks=model_versions.c.checks + 1, check_until=_CHECK_LEASE)
        .returning(model_versions.c.checks)
    ).scalar_one_or_none()
    if checks is not None and checks > MAX_CHECKS:
        reject(connection, version_id, f"{MAX_CHECKS} checks of this version crashed their worker")
        return False
    return checks is not None


def is_verified(connection: Connection, version_id: int) -> bool:
    """Return whether the same bundle is already a ready version of another recipe."""
    verified = model_versions.alias()
    query = select(model_versions.c.id).where(
        model_versions.c.id == version_id,
        select(verified.c.id).where(verified.c.sha256 == model_versions.c.sha256, verified.c.state == "ready").exists(),
    )
    return connection.execute(query).first() is not None


def renew_check(connection: Connection, version_id: int) -> bool:
    """Extend the lease of a check in progress. Returns False if the version was decided in the meantime."""
    renewed = connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version_id, model_versions.c.state == "uploaded")
        .values(check_until=_CHECK_LEASE)
    )
    return renewed.rowcount > 0


def fail_check(connection: Connection, version_id: int, reason: str) -> bool:
    """End a check that crashed or did not end in time. Reject the version if it was the last of `MAX_CHECKS`.

    Returns whether it was rejected; if not, it is checked again.
    """
    checks = connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version_id, model_versions.c.state == "uploaded")
        .values(check_until=None)
        .returning(model_versions.c.checks)
    ).scalar_one_or_none()
    if checks is None or checks < MAX_CHECKS:
        return False
    return reject(connection, version_id, f"{MAX_CHECKS} checks of this version failed; the last one: {reason}")


def undo_check(connection: Connection, version_id: int) -> None:
    """Undo `begin_check` after a check that could not run for a reason outside the version."""
    connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version_id)
        .values(checks=model_versions.c.checks - 1, check_until=None)
    )


def mark_ready(connection: Connection, version_id: int) -> bool:
    """`uploaded → ready`; the first ready version of a recipe becomes active, unless it is not fit for use.

    Returns False if the version is not `uploaded`.
    """
    if not _decide(connection, version_id, state="ready", rejection=None):
        return False
    version = by_id(connection, version_id)
    recipe = recipes.lock(connection, version.recipe)
    if recipe.active_version_id is None and not _is_unfit(version):
        _activate(connection, recipe, version, actor="worker")
    return True


def _is_unfit(version: ModelVersion) -> bool:
    """Whether its training found that it is not fit for use; see `core.vision.selection.fitness`."""
    detectability = version.manifest.get("detectability")
    return detectability is not None and not detectability["fit_for_use"]


def reject(connection: Connection, version_id: int, reason: str) -> bool:
    """`uploaded → rejected`, with the reason. Returns False if the version is not `uploaded`."""
    return _decide(connection, version_id, state="rejected", rejection=reason)


def _decide(connection: Connection, version_id: int, *, state: str, rejection: str | None) -> bool:
    decided = connection.execute(
        update(model_versions)
        .where(model_versions.c.id == version_id, model_versions.c.state == "uploaded")
        .values(state=state, rejection=rejection, decided_at=now())
        .returning(model_versions.c.id)
    ).one_or_none()
    return decided is not None


def activate(connection: Connection, recipe: str, version: int, *, actor: str) -> ModelVersion:
    """Make a ready version the active one. Activating the active version changes nothing.

    Raises:
        Refused: RECIPE_UNKNOWN; NOT_FOUND; MODEL_NOT_READY.
    """
    locked_recipe = recipes.lock(connection, recipe)
    target = get(connection, recipe, version)
    _check_ready(target)
    if locked_recipe.active_version_id != target.id:
        _activate(connection, locked_recipe, target, actor=actor)
    return get(connection, recipe, version)


def _check_ready(version: ModelVersion) -> None:
    if version.state == "ready":
        return
    reason = f": {version.rejection}" if version.rejection else ""
    if version.state == "retired":
        reason = ", and its bundle was removed: upload it again"
    raise Refused(
        Code.MODEL_NOT_READY,
        f"Version {version.version} of recipe {version.recipe!r} is {version.state}{reason}; only a ready version can "
        "be activated.",
    )


def rollback(connection: Connection, recipe: str, *, actor: str) -> ModelVersion:
    """Activate the version that was active before the current one.

    Raises:
        Refused: RECIPE_UNKNOWN; INVALID_TRANSITION if there is no earlier version; MODEL_NOT_READY if it is retired.
    """
    locked_recipe = recipes.lock(connection, recipe)
    last_two = connection.execute(
        select(activations.c.id, activations.c.model_version_id)
        .where(activations.c.recipe_id == locked_recipe.id, activations.c.rolled_back_at.is_(None))
        .order_by(activations.c.id.desc())
        .limit(2)
    ).all()
    if len(last_two) < 2:
        raise Refused(Code.INVALID_TRANSITION, f"Recipe {recipe!r} has no earlier version to roll back to.")
    current, previous = last_two
    target = by_id(connection, previous.model_version_id)
    _check_ready(target)
    connection.execute(update(activations).where(activations.c.id == current.id).values(rolled_back_at=now()))
    _set_active(connection, locked_recipe, target, actor=actor, action="model.rolled_back")
    return by_id(connection, target.id)


def newest_activation(connection: Connection, recipe_id: int) -> int | None:
    """Return the id of the activation that a rollback would undo, or None if the recipe has none."""
    newest: int | None = connection.execute(
        select(func.max(activations.c.id)).where(
            activations.c.recipe_id == recipe_id, activations.c.rolled_back_at.is_(None)
        )
    ).scalar_one()
    return newest


def _activate(connection: Connection, recipe: Recipe, version: ModelVersion, *, actor: str) -> None:
    connection.execute(insert(activations).values(recipe_id=recipe.id, model_version_id=version.id))
    _set_active(connection, recipe, version, actor=actor, action="model.activated")


def _set_active(connection: Connection, recipe: Recipe, version: ModelVersion, *, actor: str, action: str) -> None:
    connection.execute(
        update(recipes_table)
        .where(recipes_table.c.id == recipe.id)
        .values(active_version_id=version.id, updated_at=now())
    )
    audit.record(
        connection,
        actor=actor,
        action=action,
        subject=f"recipe:{recipe.name}",
        version=version.version,
        before=recipe.active_version,
    )
    events.emit(connection, [Event(EventType.MODEL_ACTIVATED, str(version.id), [recipe.id])])
