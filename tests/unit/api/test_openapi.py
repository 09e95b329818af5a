"""The OpenAPI document describes the parameters, responses and refusals of every route."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from pydantic import SecretStr

from api.access.authentication import NEED_NO_KEY, PROBES, scope_needed
from api.app import create_app
from api.requests.parameters import UploadFields
from api.responses.problems import STATUS
from core.errors import Code
from core.settings import Settings

CODE = re.compile(r"`(\w+)`")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(
        database_url=SecretStr("postgresql+psycopg://nobody@127.0.0.1:1/none"),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        store_url=f"file://{tmp_path_factory.mktemp('store')}",
    )
    described: dict[str, Any] = json.loads(json.dumps(create_app(settings).openapi()))
    return described


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_schema_is_valid_and_every_reference_resolves(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    used = set(references(document))
    assert used == {f"#/components/schemas/{name}" for name in schemas}  # no schema is unused
    assert "HTTPValidationError" not in json.dumps(document)


def test_every_refusal_is_a_problem(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status != "default" and int(status) < 400:
                continue
            [(media_type, content)] = answer["content"].items()
            schema = "LostCursor" if "`cursor_expired`" in answer["description"] else "Problem"
            schema = "GateNotMet" if "`gate_not_met`" in answer["description"] else schema
            assert media_type == "application/problem+json", (method, path, status)
            assert content == {"schema": {"$ref": f"#/components/schemas/{schema}"}}
            if status != "default":
                codes = CODE.findall(answer["description"])
                assert {STATUS[Code(code)].value for code in codes} == {int(status)}, (method, path, status)
                assert answer["description"] == ", ".join(f"`{code}`" for code in codes)
            assert ("Retry-After" in answer.get("headers", {})) == (status in ("409", "429", "503"))


def test_every_route_documents_the_common_refusals(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        statuses = operation["responses"].keys()
        assert "default" in statuses
        if path in PROBES | NEED_NO_KEY:
            assert operation["security"] == []
            continue
        scopes = [scope_needed(method, path)]
        csrf: dict[str, list[str]] = {} if method == "GET" else {"csrf": []}
        assert operation["security"] == [{"key": scopes}, {"session": scopes, **csrf}]
        assert ("`csrf_token_invalid`" in operation["responses"]["403"]["description"]) == bool(csrf), (method, path)
        assert {"401", "403", "429", "503"} <= statuses, (method, path)
        assert ("404" in statuses) or "{" not in path, (method, path)
        takes_fields = any(parameter["in"] != "path" for parameter in operation.get("parameters", ()))
        assert ("422" in statuses) or not (takes_fields or "requestBody" in operation), (method, path)
        assert ({"400", "413"} <= statuses) or "requestBody" not in operation, (method, path)
    schemes = document["components"]["securitySchemes"]
    assert schemes["key"]["scheme"] == "bearer"
    assert [(schemes[name]["in"], schemes[name]["name"]) for name in ("session", "csrf")] == [
        ("cookie", "linewatch_session"),
        ("header", "X-CSRF-Token"),
    ]


def test_every_success_response_describes_its_body(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        successes = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
        assert successes, (method, path)
        for status, answer in successes.items():
            if status == "204":
                assert "content" not in answer
                continue
            assert answer["content"], (method, path)
            assert all(content["schema"] for content in answer["content"].values()), (method, path, status)


def test_refusals_of_single_routes_are_documented(document: dict[str, Any]) -> None:
    def codes(method: str, path: str, status: str) -> set[str]:
        return set(CODE.findall(document["paths"][path][method]["responses"][status]["description"]))

    assert codes("get", "/v1/results", "410") == {"cursor_epoch", "cursor_expired"}
    assert "resume_after" in document["components"]["schemas"]["LostCursor"]["required"]
    assert "busy" in codes("get", "/v1/inspections/export", "503")
    for path in ("/v1/inspections", "/v1/batches"):
        assert codes("post", path, "415") == {"unsupported_media_type", "multiple_frames"}
        assert "idempotency_mismatch" in codes("post", path, "422")
        assert "idempotency_in_flight" in codes("post", path, "409")
        assert {"queue_full", "store_full"} < codes("post", path, "503")
        answer = document["paths"][path]["post"]["responses"]["202"]
        assert answer["headers"].keys() == {"Location", "Idempotency-Replayed"}


def test_uploads_document_their_fields(document: dict[str, Any]) -> None:
    def form(path: str) -> set[str]:
        content = document["paths"][path]["post"]["requestBody"]["content"]
        return set(content["multipart/form-data"]["schema"]["properties"])

    fields = set(UploadFields.model_fields)
    assert form("/v1/inspections") == {"image", *fields}
    assert form("/v1/batches") == {"images", "items", *fields} - {"batch_id"}


def test_both_views_and_both_formats_are_documented(document: dict[str, Any]) -> None:
    paths, schemas = document["paths"], document["components"]["schemas"]
    answers = paths["/v1/inspections"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert {schema["$ref"].rpartition("/")[2] for schema in answers["anyOf"]} == {"InspectionPage", "OpcUaPage"}
    required = set(schemas["OpcUaResult"]["required"])
    assert {"ResultId", "IsPartial", "ResultState", "InternalRecipeId", "JobId", "CreationTime"} <= required
    assert {"MeasId", "PartId", "ProductId", "ProcessingTimes"} == {
        name for name in schemas["OpcUaResult"]["properties"] if name not in required
    } - {"ExternalConfigurationId"}
    files = paths["/v1/inspections/export"]["get"]["responses"]["200"]["content"]
    assert files.keys() == {"text/csv", "application/vnd.apache.parquet"}
    assert "/v1/parts/{part_id}" in paths
