"""`linewatch recipes`: list and change recipes."""

from typing import TYPE_CHECKING, Any, cast

import click

from linewatch.cli.failures import WrongUse
from linewatch.cli.groups import group
from linewatch.cli.options import bit_depth_type, client, recipe_option, system_options, together
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.operations.recipes import RetentionPolicy
    from linewatch.types.results import Recipe

_FOREVER = "forever"
_KEPT = {
    "ok_images_days": "images of ok parts",
    "ng_images_days": "all other images",
    "review_images_days": "images with the verdict review",
    "rows_days": "inspections",
}
"""The fields of a retention policy, and what each keeps."""

recipes = group("recipes", help="Recipes: what is inspected.")


class _Days(click.IntRange):
    """A number of days, or `forever`."""

    name = "days"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == _FOREVER else super().convert(value, param, ctx)


_retention_options = together(
    [
        *(
            click.option(
                f"--{field.replace('_', '-')}",
                type=_Days(min=1, max=36_500),
                metavar="DAYS",
                help=f"For how many days {kept} are kept; `{_FOREVER}` keeps them.",
            )
            for field, kept in _KEPT.items()
        ),
        click.option("--no-retention", is_flag=True, help="Keep all images and inspections for ever."),
    ]
)
"""Options for the fields of a retention policy, and for a parameter `no_retention`."""


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
        ["recipe", "state", "role", "active version", "without model", "bit depth", "second review", "retention"],
        [
            [
                recipe.name,
                recipe.state,
                recipe.role,
                recipe.active_version,
                recipe.without_model,
                recipe.bit_depth,
                _yes_or_no(recipe.second_review),
                _describe_retention(recipe),
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
@_retention_options
@system_options
def update(recipe: str, no_retention: bool, url: str, api_key: str | None, as_json: bool, **changes: Any) -> None:
    """Change a recipe. Options that you omit keep their values.

    A change of the retention applies to what is stored already: `linewatch retention --dry-run` says what would go.
    """
    chosen = {name: value for name, value in changes.items() if value is not None}
    days = {name: chosen.pop(name) for name in _KEPT if name in chosen}
    if days and no_retention:
        raise WrongUse("--no-retention excludes the options for days: use only one of them")
    if not chosen and not days and not no_retention:
        raise WrongUse(
            "choose what to change: --bit-depth, --without-model, --second-review, --role, --state, "
            "--ok-images-days and the like, or --no-retention"
        )
    with client(url, api_key) as system:
        if days or no_retention:
            chosen["retention"] = _policy(system, recipe, days)
        changed = system.change_recipe(recipe, **chosen)
    if as_json:
        print_json(changed.document)
        return
    remark(f"Recipe {changed.name} is changed: {_describe(changed)}.")


def _policy(system: "Client", recipe: str, days: dict[str, Any]) -> "RetentionPolicy | None":
    """Return the recipe's policy with other days; None if it limits nothing."""
    if not days:
        return None
    changed = {name: None if value == _FOREVER else value for name, value in days.items()}
    policy = {**(system.recipe(recipe).retention or {}), **changed}
    return cast("RetentionPolicy", policy) if any(policy.values()) else None


def _describe(recipe: "Recipe") -> str:
    return (
        f"{recipe.state}, role {recipe.role}, without a model {recipe.without_model}, bit depth {recipe.bit_depth}, "
        f"second review {_yes_or_no(recipe.second_review)}, retention: {_describe_retention(recipe)}"
    )


def _describe_retention(recipe: "Recipe") -> str:
    limits = [f"{_KEPT[name]} {days} days" for name, days in (recipe.retention or {}).items() if days and name in _KEPT]
    return ", ".join(limits) or _FOREVER


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
