"""Retire model versions once all inspections that they may have judged have ended, and delete bundles without a use.

A retired version stays listed, with its manifest and thresholds, but without its bundle and the report of its training;
it can no longer be activated. Uploading the same bundle again brings it back.
"""

import datetime as dt
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from sqlalchemy import Connection, text

from core.access import audit
from core.retention.removals import Removal, Scope, Step, make_due
from core.retention.rules import HELD, Rules
from core.storage.image_store import BUNDLES, TRAINING_REPORTS, Store, StoredFile, bundle_key, training_report_key

MARGIN = dt.timedelta(days=1)
"""A version may have judged inspections whose ids are this much older than its replacement, by another clock."""
FRESH_SECONDS = 24 * 3600.0
"""A file that was stored later may belong to a version that is being registered."""
FILES_AT_ONCE = 20

# The versions of a recipe that are neither in use nor were in use later than `day`. They judged inspections with ids
# below `before` only; of those, all that are not under legal hold have ended. A rollback returns to the activation
# below the newest one, so both are in use.
_UNUSED = text(f"""
    SELECT version.id, version.recipe_id, recipes.name AS recipe, version.version, version.sha256
    FROM model_versions AS version JOIN recipes ON recipes.id = version.recipe_id
    WHERE version.recipe_id = :recipe_id AND version.state IN ('ready', 'rejected')
      AND greatest(version.created_at, version.decided_at) < :day
      AND version.id IS DISTINCT FROM recipes.active_version_id
      AND NOT EXISTS (
          SELECT FROM (
              SELECT model_version_id FROM activations
              WHERE activations.recipe_id = :recipe_id AND rolled_back_at IS NULL ORDER BY id DESC LIMIT 2
          ) AS newest WHERE newest.model_version_id = version.id
      )
      AND NOT EXISTS (
          SELECT FROM activations AS use WHERE use.model_version_id = version.id
            AND coalesce(use.rolled_back_at, (
                SELECT min(later.activated_at) FROM activations AS later
                WHERE later.recipe_id = use.recipe_id AND later.id > use.id AND later.rolled_back_at IS NULL
            ), 'infinity') >= :day
      )
      AND NOT EXISTS (
          SELECT FROM rescore_runs AS run WHERE run.model_version_id = version.id
            AND NOT coalesce(run.finished_at < :ended_before, false)
      )
      AND NOT EXISTS (
          SELECT FROM rescore_schedules AS schedule WHERE schedule.recipe_id = :recipe_id
            AND schedule.request ->> 'model_version' = CAST(version.version AS text)
      )
      AND NOT EXISTS (
          SELECT FROM inspections AS inspection
          WHERE inspection.recipe_id = :recipe_id AND inspection.id < :before AND {HELD}
      )
    ORDER BY version.id
""")  # noqa: S608 - all parts are constants

_LOCK_RECIPE = text("SELECT FROM recipes WHERE id = :recipe_id FOR NO KEY UPDATE")
"""As activations and rollbacks do: no version becomes active while it is retired."""


def remove(scope: Scope, store: Store) -> Iterator[Step]:
    """Retire versions recipe by recipe, and delete the files that no version needs."""
    with scope.engine.begin() as connection:
        recipe_ids = {version.recipe_id for version in unused(connection, scope.rules(connection))}
    for recipe_id in sorted(recipe_ids):
        with scope.deciding() as (connection, rules):
            connection.execute(_LOCK_RECIPE, {"recipe_id": recipe_id})
            _retire(connection, _unused_of(connection, rules, recipe_id), scope.today)
        yield []
    with scope.engine.begin() as connection:
        needed = _needed_keys(connection, ())
    listing = _old_files(store, needed)
    while files := list(islice(listing, FILES_AT_ONCE)):
        yield from _delete(scope, store, files)


def plan(scope: Scope, store: Store) -> Iterator[Removal]:
    """Count the files that `remove` would delete now."""
    with scope.engine.begin() as connection:
        ended = [version.id for version in unused(connection, scope.rules(connection))]
        needed, owners = _needed_keys(connection, ended), _owners(connection)
    yield from (_removal(file, owners) for file in _old_files(store, needed))


def unused(connection: Connection, rules: Rules) -> list[Any]:
    """Return the versions that are to be retired, by recipe."""
    return [version for recipe_id in rules.recipes for version in _unused_of(connection, rules, recipe_id)]


def _unused_of(connection: Connection, rules: Rules, recipe_id: int) -> list[Any]:
    recipe = rules.recipes.get(recipe_id)
    if recipe is None or recipe.ended_before is None or recipe_id in rules.busy:
        return []
    midnight = dt.datetime.combine(recipe.ended_before.replace(day=1), dt.time(), dt.UTC)
    own = {
        "recipe_id": recipe_id,
        "before": recipe.rows_before,
        "ended_before": recipe.ended_before,
        "day": midnight - MARGIN,
    }
    return list(connection.execute(_UNUSED, rules.parameters | own))


def _retire(connection: Connection, versions: Iterable[Any], today: dt.date) -> None:
    """`ready | rejected → retired`. The images that the versions were trained on are not needed any more."""
    ids = []
    for version in versions:
        ids.append(version.id)
        audit.record(
            connection,
            actor="retention",
            action="model.retired",
            subject=f"recipe:{version.recipe}",
            version=version.version,
            sha256=version.sha256.hex(),
        )
    connection.execute(text("UPDATE model_versions SET state = 'retired' WHERE id = ANY(:ids)"), {"ids": ids})
    days = connection.execute(
        text("""
            SELECT DISTINCT trained.image_day FROM training_images AS trained
            JOIN training_runs AS run ON run.id = trained.run_id WHERE run.model_version_id = ANY(:ids)
        """),
        {"ids": ids},
    ).scalars()
    make_due(connection, set(days), today)


def _needed_keys(connection: Connection, ended: Iterable[int]) -> set[str]:
    """Return the keys of the bundles and of the reports of trainings that versions need, except those of `ended`."""
    own = {"ended": list(ended)}
    is_kept = "version.state <> 'retired' AND version.id <> ALL(:ended)"
    bundles = text(f"SELECT DISTINCT sha256 FROM model_versions AS version WHERE {is_kept}")  # noqa: S608 - a constant
    reports = text(f"""
        SELECT run.id FROM training_runs AS run LEFT JOIN model_versions AS version ON version.id = run.model_version_id
        WHERE version.id IS NULL OR {is_kept}
    """)  # noqa: S608 - a constant
    keys = {bundle_key(sha256) for sha256 in connection.execute(bundles, own).scalars()}
    return keys | {training_report_key(run_id) for run_id in connection.execute(reports, own).scalars()}


def _owners(connection: Connection) -> dict[str, int]:
    """Return the recipe of each bundle and report; the oldest of several."""
    versions = connection.execute(text("SELECT sha256, recipe_id FROM model_versions ORDER BY id DESC")).all()
    runs = connection.execute(text("SELECT id, recipe_id FROM training_runs")).all()
    return {training_report_key(run.id): run.recipe_id for run in runs} | {
        bundle_key(version.sha256): version.recipe_id for version in versions
    }


def _old_files(store: Store, needed: set[str]) -> Iterator[StoredFile]:
    """Yield the bundles and the reports of trainings that nothing needs, except recent ones."""
    stored_before = time.time() - FRESH_SECONDS
    for folder in (BUNDLES, TRAINING_REPORTS):
        for file in store.files(folder):
            if file.key not in needed and file.modified_at < stored_before:
                yield file


def _removal(file: StoredFile, owners: dict[str, int]) -> Removal:
    is_bundle = file.key.startswith(f"{BUNDLES}/")
    return Removal(owners.get(file.key), "bundles" if is_bundle else "training reports", 1, file.size)


def _delete(scope: Scope, store: Store, files: Iterable[StoredFile]) -> Iterator[Step]:
    """Delete files, within the transaction that decides: the registration of a version waits for it.

    It then finds that its bundle is gone, and the upload is sent again.
    """
    with scope.deciding() as (connection, _):
        needed, owners = _needed_keys(connection, ()), _owners(connection)
        ended = [file for file in files if file.key not in needed]
        store.delete([file.key for file in ended])
    yield [_removal(file, owners) for file in ended]
