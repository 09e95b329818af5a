"""`GET /v1/inspections/{id}/neighbours`; `core.inspection.neighbours` has tests of its own."""

from uuid import uuid4

from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.inspected_images import inspect_image


def test_neighbours_of_a_filtered_listing(settings: Settings, engine: Engine, recipe_id: int) -> None:
    ids = [
        inspect_image(engine, bytes([number]) * 32, recipe_id=recipe_id, lot_id=f"L-{number % 2}")
        for number in range(5)
    ]
    path = f"/v1/inspections/{ids[2]}/neighbours"
    with running_api(settings) as http:
        assert http.get(path).json() == {"newer": str(ids[3]), "older": str(ids[1])}
        assert http.get(path, params={"lot_id": "L-0"}).json() == {"newer": str(ids[4]), "older": str(ids[0])}
        assert http.get(path, params={"lot_id": "L-2"}).json() == {"newer": None, "older": None}
        for params, status, code in (
            ({"recipe": "nobody"}, 404, "recipe_unknown"),
            ({"verdict": "bad"}, 422, "invalid_field"),
            ({"cursor": "x"}, 422, "invalid_field"),
        ):
            answer = http.get(path, params=params)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert http.get(f"/v1/inspections/{uuid4()}/neighbours").json()["code"] == "not_found"
