"""Undeclared query parameters are refused, because a mistyped filter would filter nothing."""

import re

import httpx
import pytest

from api.app import create_app
from core.settings import Settings

DOCUMENT = create_app(Settings()).openapi()
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
OPERATIONS_OF_V1 = [(method, path) for method, path in OPERATIONS if path.startswith("/v1/")]


@pytest.mark.parametrize(("method", "path"), OPERATIONS_OF_V1)
def test_an_unknown_parameter_is_refused(client: httpx.Client, method: str, path: str) -> None:
    filled = re.sub(r"\{version\}", "1", re.sub(r"\{(name|part_id)\}", "x", path))
    filled = re.sub(r"\{[a-z_]+\}", "00000000-0000-0000-0000-000000000000", filled)
    declared = DOCUMENT["paths"][path][method.lower()].get("parameters", [])
    names = sorted(parameter["name"] for parameter in declared if parameter["in"] == "query")
    answer = client.request(method, filled, params=dict.fromkeys([*names, "wiat"], "30"))
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), answer.text
    takes = ", ".join(names) or "none"
    assert answer.json()["detail"] == f"wiat: not a query parameter of this address; it takes {takes}."


def test_the_refusal_lists_the_known_parameters(client: httpx.Client) -> None:
    answer = client.get("/v1/inspections/00000000-0000-0000-0000-000000000000?wiat=30")
    assert answer.json()["detail"].endswith("it takes view, wait.")
    assert client.get("/v1/inspections/00000000-0000-0000-0000-000000000000?wait=0").status_code == 404
    assert client.post("/v1/batches?recipe=x").json()["detail"].endswith("it takes callback_url.")
    assert client.get("/v1/parts/x?recipe=a&lot_id=b").status_code == 404


@pytest.mark.parametrize("path", ["/", "/health", "/healthz", "/readyz", "/docs", "/openapi.json"])
def test_probes_and_pages_ignore_unknown_parameters(client: httpx.Client, path: str) -> None:
    assert client.get(path, params={"cache": "7"}).status_code == 200


def test_the_api_reference_needs_no_internet(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) == 4
    for target in linked:
        if target != "data:,":
            asset = client.get(f"/{target}")
            assert asset.status_code == 200
            assert len(asset.content) > 100
    assert "SwaggerUIBundle" in client.get("/docs/start.js").text


@pytest.mark.parametrize("path", ["/predict", "/heatmap"])
def test_the_routes_of_the_demo_ignore_unknown_parameters(client: httpx.Client, path: str) -> None:
    answer = client.post(path, params={"cache": "7"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def test_operation_ids_are_descriptive_and_unique() -> None:
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        if not operation["operationId"].startswith(("predict", "health", "readyz")):
            assert " " in operation["summary"]
    for name in DOCUMENT["components"]["schemas"]:
        assert re.fullmatch(r"[A-Z][A-Za-z]+", name)
