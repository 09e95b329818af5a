"""The bit depth of a recipe in the database."""

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from core.models import recipes


def test_a_bit_depth_is_read_as_it_was_written(engine: Engine) -> None:
    with engine.begin() as connection:
        assert recipes.create(connection, "plain", actor="test").bit_depth == "auto"
        assert recipes.create(connection, "deep", bit_depth=12, actor="test").bit_depth == 12
        assert recipes.change(connection, "deep", actor="test", bit_depth=16).bit_depth == 16
        assert [recipe.bit_depth for recipe in recipes.list_all(connection)] == [16, "auto"]
        assert recipes.by_names(connection, {"deep"})["deep"].bit_depth == 16


def test_a_recipe_of_an_earlier_api_is_auto_and_another_depth_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO recipes (name) VALUES ('older')"))
        assert recipes.get(connection, "older").bit_depth == "auto"
    with engine.begin() as connection, pytest.raises(IntegrityError, match="ck_recipes_bit_depth"):
        connection.execute(text("UPDATE recipes SET bit_depth = '9'"))
