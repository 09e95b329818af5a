"""Recipes: each kind of part that is inspected, and the model version that scores it."""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ARRAY, BigInteger, Connection, Row, Text, any_, bindparam, null, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.sql.functions import now

from core import removal_lock
from core.access import audit
from core.errors import Code, Refused
from core.models.bit_depths import BitDepthChoice
from core.models.retention_policies import RetentionPolicy
from core.tables import model_versions, recipes

Role = Literal["inspection", "reference"]


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        without_model: what to do with uploads while no version is active: `refuse` them or let them `wait`.
        bit_depth: what a training is asked for unless it chooses its own. Scoring uses that of the model version.
        second_review: whether two people must agree on a review (`core.models.verdicts.reviewed_verdict`). It applies
            to reviews from now on.
        role: `inspection`, or `reference` for a recipe to compare others with, which judges no parts.
        retention: how long its images and inspections are kept; None keeps them.
        active_version: the number of the active model version, or None.
    """

    id: int
    name: str
    state: str
    without_model: str
    bit_depth: BitDepthChoice
    second_review: bool
    role: Role
    retention: RetentionPolicy | None
    active_version_id: int | None
    active_version: int | None
    created_at: dt.datetime
    updated_at: dt.datetime


_SELECT = select(
    recipes.c.id,
    recipes.c.name,
    recipes.c.state,
    recipes.c.without_model,
    recipes.c.bit_depth,
    recipes.c.second_review,
    recipes.c.role,
    recipes.c.retention,
    recipes.c.active_version_id,
    model_versions.c.version.label("active_version"),
    recipes.c.created_at,
    recipes.c.updated_at,
).join_from(recipes, model_versions, recipes.c.active_version_id == model_versions.c.id, isouter=True)


# One array parameter for any number of names, so the statement is compiled and parsed only once.
_BY_NAMES = _SELECT.where(recipes.c.name == any_(bindparam("names", type_=ARRAY(Text))))
_NAMES = select(recipes.c.id, recipes.c.name).where(recipes.c.id == any_(bindparam("ids", type_=ARRAY(BigInteger))))


def _recipe(row: Row[*tuple[Any, ...]]) -> Recipe:
    bit_depth = row.bit_depth if row.bit_depth == "auto" else int(row.bit_depth)
    retention = None if row.retention is None else RetentionPolicy.model_validate(row.retention)
    return Recipe(**{**row._mapping, "bit_depth": bit_depth, "retention": retention})


def unknown_recipe(name: str) -> Refused:
    """Return the refusal for a recipe name that does not exist."""
    return Refused(
        Code.RECIPE_UNKNOWN,
        f"There is no recipe {name!r}. Create it with POST /v1/recipes or with `linewatch train --recipe {name}`.",
    )


def list_all(connection: Connection) -> list[Recipe]:
    return [_recipe(row) for row in connection.execute(_SELECT.order_by(recipes.c.name))]


def get(connection: Connection, name: str) -> Recipe:
    """Return a recipe by its name.

    Raises:
        Refused: RECIPE_UNKNOWN.
    """
    row = connection.execute(_SELECT.where(recipes.c.name == name)).one_or_none()
    if row is None:
        raise unknown_recipe(name)
    return _recipe(row)


def by_names(connection: Connection, names: set[str]) -> dict[str, Recipe]:
    """Return the recipes with these names; unknown names are left out."""
    rows = connection.execute(_BY_NAMES, {"names": list(names)})
    return {row.name: _recipe(row) for row in rows}


def names(connection: Connection, ids: set[int]) -> dict[int, str]:
    """Return the names of recipes by id; unknown ids are left out."""
    rows = connection.execute(_NAMES, {"ids": list(ids)})
    return {row.id: row.name for row in rows}


def lock(connection: Connection, name: str) -> Recipe:
    """Return a recipe and lock it until the transaction ends, so that registrations and activations run one by one.

    Raises:
        Refused: RECIPE_UNKNOWN.
    """
    row = connection.execute(
        select(recipes.c.id).where(recipes.c.name == name).with_for_update(key_share=True)
    ).one_or_none()
    if row is None:
        raise unknown_recipe(name)
    return get(connection, name)


def create(
    connection: Connection,
    name: str,
    *,
    without_model: str = "refuse",
    bit_depth: BitDepthChoice = "auto",
    second_review: bool = False,
    role: Role = "inspection",
    retention: RetentionPolicy | None = None,
    actor: str,
) -> Recipe:
    """Create a recipe.

    Raises:
        Refused: RECIPE_EXISTS.
    """
    row = connection.execute(
        upsert(recipes)
        .values(
            name=name,
            without_model=without_model,
            bit_depth=str(bit_depth),
            second_review=second_review,
            role=role,
            retention=_stored(retention),
        )
        .on_conflict_do_nothing()
        .returning(recipes.c.id)
    ).one_or_none()
    if row is None:
        raise Refused(Code.RECIPE_EXISTS, f"The recipe {name!r} already exists.")
    audit.record(connection, actor=actor, action="recipe.created", subject=f"recipe:{name}")
    return get(connection, name)


def _stored(retention: RetentionPolicy | None) -> Any:
    return null() if retention is None else retention.model_dump()


def change(connection: Connection, name: str, *, actor: str, **changes: Any) -> Recipe:
    """Change `state`, `without_model`, `bit_depth`, `second_review`, `role` or `retention` of a recipe.

    Raises:
        Refused: RECIPE_UNKNOWN.
    """
    values = {field: str(value) if field == "bit_depth" else value for field, value in changes.items()}
    if "retention" in changes:
        removal_lock.share(connection)  # once this is committed, nothing is removed by the earlier policy
        values["retention"] = _stored(changes["retention"])
        changes["retention"] = changes["retention"] and changes["retention"].model_dump()
    row = connection.execute(
        update(recipes).where(recipes.c.name == name).values(**values, updated_at=now()).returning(recipes.c.id)
    ).one_or_none()
    if row is None:
        raise unknown_recipe(name)
    audit.record(connection, actor=actor, action="recipe.changed", subject=f"recipe:{name}", **changes)
    return get(connection, name)
