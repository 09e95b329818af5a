"""Recipes: create and list."""

from linewatch.errors import Refused
from linewatch.operations.session import Session, url_path
from linewatch.types.results import Recipe


class Recipes(Session):
    """Operations on recipes."""

    async def recipes(self) -> list[Recipe]:
        """All recipes, by name."""
        return await self._list(Recipe, url_path("recipes"))

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
