"""Each parameter that is a time takes a date, and an offset whose `+` was not percent-encoded."""

from typing import Any

from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.api_routes import address
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

EXAMPLE = "2026-01-31T12:00:00Z"  # in the refusal of what is no time
TIMES = ("2026-11-27", "2026-11-27T02:00:00+02:00", "2026-11-27T00:00:00Z")


def is_time(schema: dict[str, Any]) -> bool:
    return any(choice.get("format") == "date-time" for choice in (schema, *schema.get("anyOf", ())))


def test_every_time_parameter_takes_a_date_and_an_offset_that_is_not_encoded(
    settings: Settings, engine: Engine
) -> None:
    make_recipe_with_model(engine)
    with running_api(settings, LINEWATCH_DEFAULT_RECIPE="ring") as http:
        parameters = [
            (path.replace("{name}", "ring"), parameter["name"])
            for path, item in http.get("/openapi.json").json()["paths"].items()
            for parameter in item.get("get", {}).get("parameters", ())
            if parameter["in"] == "query" and is_time(parameter["schema"])
        ]
        assert {("/v1/inspections", "since"), ("/v1/reviews", "until")} <= set(parameters)
        assert len(parameters) > 10
        for path, name in parameters:
            separator = "&" if "?" in address(path) else "?"
            for time in TIMES:
                answer = http.get(f"{address(path)}{separator}{name}={time}")
                assert EXAMPLE not in answer.text, (path, answer.text)
            wrong = http.get(f"{address(path)}{separator}{name}=yesterday")
            assert wrong.status_code == 422, path
            assert EXAMPLE in wrong.json()["detail"], path


def test_all_spellings_of_a_time_are_the_same(settings: Settings, engine: Engine) -> None:
    make_recipe_with_model(engine)
    with running_api(settings, LINEWATCH_DEFAULT_RECIPE="ring") as http:
        for time in TIMES:
            accepted = http.post(f"/v1/inspections?captured_at={time}", content=png(1))
            assert accepted.json()["captured_at"] == "2026-11-27T00:00:00Z", accepted.text
        form = http.post("/v1/inspections", data={"captured_at": TIMES[0]}, files={"image": png(1)})
        assert form.json()["captured_at"] == "2026-11-27T00:00:00Z"
        assert len(http.get("/v1/inspections?since=2020-01-01T00:00:00+02:00").json()["items"]) == 4
        assert http.get("/v1/inspections?since=2199-01-01").json()["items"] == []
