"""`/v1/recipes`: what is inspected, and how."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict

from api.requests.parameters import OrLeftOut, RecipeName, RecipePath
from api.responses.problems import refuses
from api.responses.schemas import Recipe, RecipeList
from api.services import Actor, Context
from core.errors import Code
from core.models import recipes
from core.rescoring import challengers

router = APIRouter(prefix="/v1/recipes", tags=["recipes"])

WithoutModel = Literal["refuse", "wait"]


class NewRecipe(BaseModel):
    """A recipe to create."""

    model_config = ConfigDict(extra="forbid")

    name: RecipeName
    without_model: WithoutModel = "refuse"


class RecipeChanges(BaseModel):
    """What to change of a recipe. What is left out stays."""

    model_config = ConfigDict(extra="forbid")

    state: OrLeftOut[Literal["active", "archived"]] = None
    without_model: OrLeftOut[WithoutModel] = None


@router.get("")
def list_recipes(services: Context, name: Annotated[RecipeName | None, Query()] = None) -> RecipeList:
    """All recipes, by name."""
    with services.transaction() as connection:
        found, challenging = recipes.list_all(connection), challengers.all_by_recipe_id(connection)
    return RecipeList(items=[Recipe.of(one, challenging.get(one.id)) for one in found if name in (None, one.name)])


@router.post("", status_code=201, responses=refuses(Code.RECIPE_EXISTS))
def create_recipe(new: NewRecipe, response: Response, services: Context, actor: Actor) -> Recipe:
    """Create a recipe. It takes images once it has a model version."""
    with services.transaction() as connection:
        made = recipes.create(connection, new.name, without_model=new.without_model, actor=actor)
    response.headers["Location"] = f"/v1/recipes/{made.name}"
    return Recipe.of(made, None)


@router.get("/{name}", responses=refuses(Code.RECIPE_UNKNOWN))
def get_recipe(name: RecipePath, services: Context) -> Recipe:
    """One recipe."""
    with services.transaction() as connection:
        return Recipe.of(recipes.get(connection, name), challengers.find(connection, name))


@router.patch("/{name}", responses=refuses(Code.RECIPE_UNKNOWN))
def change_recipe(name: RecipePath, changes: RecipeChanges, services: Context, actor: Actor) -> Recipe:
    """Archive or revive a recipe, or say whether its images may wait for a model version."""
    with services.transaction() as connection:
        wanted = changes.model_dump(exclude_unset=True)
        changed = recipes.change(connection, name, actor=actor, **wanted) if wanted else recipes.get(connection, name)
        return Recipe.of(changed, challengers.find(connection, name))
