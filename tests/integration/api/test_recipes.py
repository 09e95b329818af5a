"""The settings of a recipe: set, changed, audited. The bit depth is for trainings and changes no version."""

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine, text

from core.settings import Settings
from tests.fixtures.api_process import running_api


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings) as client:
        yield client


def test_a_recipe_has_a_bit_depth(http: httpx.Client, engine: Engine) -> None:
    assert http.post("/v1/recipes", json={"name": "plain"}).json()["bit_depth"] == "auto"
    created = http.post("/v1/recipes", json={"name": "deep", "bit_depth": 12})
    assert (created.status_code, created.json()["bit_depth"]) == (201, 12)
    assert http.get("/v1/recipes/deep").json()["bit_depth"] == 12
    assert {recipe["name"]: recipe["bit_depth"] for recipe in http.get("/v1/recipes").json()["items"]} == {
        "plain": "auto",
        "deep": 12,
    }
    for bit_depth in (8, 10, 14, 16, "auto", 12):
        changed = http.patch("/v1/recipes/deep", json={"bit_depth": bit_depth})
        assert (changed.status_code, changed.json()["bit_depth"]) == (200, bit_depth)
    assert http.patch("/v1/recipes/deep", json={"without_model": "wait"}).json()["bit_depth"] == 12
    query = text("SELECT detail FROM audit_events WHERE action = 'recipe.changed' AND subject = :of ORDER BY id")
    with engine.connect() as connection:
        details = connection.execute(query, {"of": "recipe:deep"}).scalars().all()
    assert [detail.get("bit_depth") for detail in details] == [8, 10, 14, 16, "auto", 12, None]


def test_another_bit_depth_is_refused(http: httpx.Client) -> None:
    http.post("/v1/recipes", json={"name": "kept", "bit_depth": 10})
    for bit_depth in (9, 0, 32, -8, "12", 12.5, True, None, "all", [12]):
        for answer in (
            http.patch("/v1/recipes/kept", json={"bit_depth": bit_depth}),
            http.post("/v1/recipes", json={"name": "wrong", "bit_depth": bit_depth}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), bit_depth
    assert http.get("/v1/recipes/kept").json()["bit_depth"] == 10
    assert http.get("/v1/recipes/wrong").status_code == 404


def test_the_api_documents_what_the_bit_depth_is_for(http: httpx.Client) -> None:
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    for name in ("NewRecipe", "RecipeChanges"):
        described = schemas[name]["properties"]["bit_depth"]
        assert described["enum"] == ["auto", 8, 10, 12, 14, 16]
        assert "scoring uses the bit depth of the version" in described["description"]


def test_a_recipe_has_a_role_and_may_ask_for_a_second_review(http: httpx.Client, engine: Engine) -> None:
    def settings_of(answer: httpx.Response) -> tuple[str, bool]:
        return answer.json()["role"], answer.json()["second_review"]

    assert settings_of(http.post("/v1/recipes", json={"name": "plain"})) == ("inspection", False)
    chosen = {"name": "chosen", "role": "reference", "second_review": True}
    assert settings_of(http.post("/v1/recipes", json=chosen)) == ("reference", True)
    assert settings_of(http.patch("/v1/recipes/plain", json={"role": "reference"})) == ("reference", False)
    assert settings_of(http.patch("/v1/recipes/plain", json={"second_review": True})) == ("reference", True)
    assert settings_of(http.patch("/v1/recipes/plain", json={"second_review": False})) == ("reference", False)
    assert settings_of(http.get("/v1/recipes/plain")) == ("reference", False)
    for wrong in (
        {"role": "other"},
        {"role": None},
        {"second_review": None},
        {"second_review": "yes"},
        {"second_review": 0},
    ):
        answer = http.patch("/v1/recipes/plain", json=wrong)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), wrong
    query = text("SELECT detail FROM audit_events WHERE action = 'recipe.changed' ORDER BY id")
    with engine.connect() as connection:
        assert connection.execute(query).scalars().all() == [
            {"role": "reference"}, {"second_review": True}, {"second_review": False},
        ]  # fmt: skip
