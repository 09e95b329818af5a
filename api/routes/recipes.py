"""`/v1/recipes`: list, create and change recipes."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from api.requests.parameters import OrLeftOut, RecipeName, RecipePath
from api.responses.problems import refuses
from api.responses.schemas import Recipe, RecipeList
from api.services import Actor, Context
from core.errors import Code
from core.models import recipes
from core.models.bit_depths import BitDepthChoice
from core.models.recipes import Role
from core.models.retention_policies import RetentionPolicy
from core.rescoring import challengers

router = APIRouter(prefix="/v1/recipes", tags=["recipes"])

WithoutModel = Literal["refuse", "wait"]
BitDepth = Annotated[
    BitDepthChoice,
    Field(
        description="the bit depth of the camera's grey levels, which `linewatch train --recipe` uses unless it gets "
        "another one; `auto`: found in the training images. It changes no version that is trained already: scoring "
        "uses the bit depth of the version, and an image of another one gets `review` with the reason `input_depth`"
    ),
]


SecondReview = Annotated[
    StrictBool,
    Field(
        description="whether a review needs a second one: the verdict is `review` until two reviewers agree; if two "
        "disagree, a third decides. It applies to reviews that are added from now on"
    ),
]
RecipeRole = Annotated[
    Role,
    Field(description="`reference` marks a recipe to compare others with, which judges no parts; it is only shown"),
]

Retention = Annotated[
    RetentionPolicy | None,
    Field(
        description="how long the images and inspections are kept; null keeps them for ever. A change replaces the "
        "whole policy and applies to what is stored already"
    ),
]


class NewRecipe(BaseModel):
    """A recipe to create."""

    model_config = ConfigDict(extra="forbid")

    name: RecipeName
    without_model: WithoutModel = "refuse"
    bit_depth: BitDepth = "auto"
    second_review: SecondReview = False
    role: RecipeRole = "inspection"
    retention: Retention = None


class RecipeChanges(BaseModel):
    """Changes to a recipe. Omitted fields keep their values."""

    model_config = ConfigDict(extra="forbid")

    state: OrLeftOut[Literal["active", "archived"]] = None
    without_model: OrLeftOut[WithoutModel] = None
    bit_depth: OrLeftOut[BitDepth] = None
    second_review: OrLeftOut[SecondReview] = None
    role: OrLeftOut[RecipeRole] = None
    retention: Retention = None


@router.get("")
def list_recipes(services: Context, name: Annotated[RecipeName | None, Query()] = None) -> RecipeList:
    """List all recipes by name, or only the recipe called `name`."""
    with services.transaction() as connection:
        listed, runs = recipes.list_all(connection), challengers.all_by_recipe_id(connection)
    return RecipeList(
        items=[Recipe.of(recipe, runs.get(recipe.id)) for recipe in listed if name in (None, recipe.name)]
    )


@router.post("", status_code=201, responses=refuses(Code.RECIPE_EXISTS))
def create_recipe(new: NewRecipe, response: Response, services: Context, actor: Actor) -> Recipe:
    """Create a recipe. Until it has an active model version, images are refused or wait, as `without_model` says."""
    with services.transaction() as connection:
        created = recipes.create(connection, actor=actor, **dict(new))
    response.headers["Location"] = f"/v1/recipes/{created.name}"
    return Recipe.of(created, None)


@router.get("/{name}", responses=refuses(Code.RECIPE_UNKNOWN))
def get_recipe(name: RecipePath, services: Context) -> Recipe:
    """Get a recipe."""
    with services.transaction() as connection:
        return Recipe.of(recipes.get(connection, name), challengers.find(connection, name))


@router.patch("/{name}", responses=refuses(Code.RECIPE_UNKNOWN))
def change_recipe(name: RecipePath, changes: RecipeChanges, services: Context, actor: Actor) -> Recipe:
    """Change a recipe: archive or reactivate it, or change its settings."""
    with services.transaction() as connection:
        values = {name: getattr(changes, name) for name in changes.model_fields_set}
        recipe = recipes.change(connection, name, actor=actor, **values) if values else recipes.get(connection, name)
        return Recipe.of(recipe, challengers.find(connection, name))
