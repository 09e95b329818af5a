"""`linewatch recipes`: list and change recipes."""

from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.failures import WrongUse
from linewatch.cli.groups import group
from linewatch.cli.options import bit_depth_type, client, recipe_option, system_options
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.types.results import Recipe

recipes = group("recipes", help="Recipes: what is inspected.")


@recipes.command("list")
@system_options
def list_recipes(url: str, api_key: str | None, as_json: bool) -> None:
    """List the recipes."""
    with client(url, api_key) as system:
        listed = system.recipes()
    if as_json:
        print_json([recipe.document for recipe in listed])
        return
    print_table(
        ["recipe", "state", "role", "active version", "without model", "bit depth", "second review"],
        [
            [
                recipe.name,
                recipe.state,
                recipe.role,
                recipe.active_version,
                recipe.without_model,
                recipe.bit_depth,
                _yes_or_no(recipe.second_review),
            ]
            for recipe in listed
        ],
        right=["active version"],
    )


@recipes.command()
@recipe_option
@click.option(
    "--bit-depth",
    type=bit_depth_type,
    help="The bit depth of the camera's grey levels, for the next training. Trained versions keep theirs.",
)
@click.option(
    "--without-model",
    type=click.Choice(["refuse", "wait"]),
    help="What happens to images while no model version is active.",
)
@click.option(
    "--second-review/--no-second-review",
    default=None,
    help="Whether two people must agree on a review. It applies to reviews from now on.",
)
@click.option(
    "--role",
    type=click.Choice(["inspection", "reference"]),
    help="Mark a recipe that only serves to compare others with as reference.",
)
@click.option("--state", type=click.Choice(["active", "archived"]), help="Archive or reactivate the recipe.")
@system_options
def update(recipe: str, url: str, api_key: str | None, as_json: bool, **changes: Any) -> None:
    """Change a recipe. Options that you omit keep their values."""
    chosen = {name: value for name, value in changes.items() if value is not None}
    if not chosen:
        raise WrongUse("choose what to change: --bit-depth, --without-model, --second-review, --role or --state")
    with client(url, api_key) as system:
        changed = system.change_recipe(recipe, **chosen)
    if as_json:
        print_json(changed.document)
        return
    remark(f"Recipe {changed.name} is changed: {_describe(changed)}.")


def _describe(recipe: "Recipe") -> str:
    return (
        f"{recipe.state}, role {recipe.role}, without a model {recipe.without_model}, bit depth {recipe.bit_depth}, "
        f"second review {_yes_or_no(recipe.second_review)}"
    )


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
