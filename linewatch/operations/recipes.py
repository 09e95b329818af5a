"""Recipes: create, change and list."""

from typing import Literal, TypedDict, Unpack

from linewatch.errors import Refused
from linewatch.operations.session import Session, url_path
from linewatch.types.results import Recipe

BitDepth = Literal["auto", 8, 10, 12, 14, 16]


class RetentionPolicy(TypedDict, total=False):
    """The days that images and inspections of a recipe are kept. None, or an absent field, keeps them."""

    ok_images_days: int | None
    ng_images_days: int | None
    review_images_days: int | None
    rows_days: int | None


class RecipeChanges(TypedDict, total=False):
    """The fields of a recipe that can change; absent fields stay."""

    state: Literal["active", "archived"]
    without_model: Literal["refuse", "wait"]
    bit_depth: BitDepth
    second_review: bool
    role: Literal["inspection", "reference"]
    retention: RetentionPolicy | None


class Recipes(Session):
    """Operations on recipes."""

    async def recipes(self) -> list[Recipe]:
        """All recipes, by name."""
        return await self._list(Recipe, url_path("recipes"))

    async def recipe(self, name: str) -> Recipe:
        """One recipe."""
        return await self._get(Recipe, url_path("recipes", name))

    async def create_recipe(self, name: str, *, exist_ok: bool = False) -> Recipe:
        """Create a recipe; with `exist_ok`, return an existing one.

        Example:
            recipe = lw.create_recipe("ring", exist_ok=True)
            print(recipe.active_version)
        """
        try:
            return await self._post(Recipe, url_path("recipes"), {"name": name}, harmless_twice=exist_ok)
        except Refused as refused:
            if not exist_ok or refused.code != "recipe_exists":
                raise
        return await self._get(Recipe, url_path("recipes", name))

    async def change_recipe(self, name: str, **changes: Unpack[RecipeChanges]) -> Recipe:
        """Change a recipe.

        `bit_depth` is for the next training; model versions keep theirs. With `second_review`, two people must agree on
        each review from now on. The role `reference` marks a recipe that only serves to compare others with.

        `retention` replaces the whole policy; None keeps everything.

        Example:
            lw.change_recipe("ring", bit_depth=12)
            lw.change_recipe("ring", retention={"ok_images_days": 30, "ng_images_days": 365, "rows_days": 730})
        """
        return await self._patch(Recipe, url_path("recipes", name), changes)
