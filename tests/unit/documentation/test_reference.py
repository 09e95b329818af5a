"""The reference of the HTTP API on the documentation site."""

from api.app import create_app
from documentation.reference import render
from documentation.site import relinked


def test_every_operation_and_schema_is_described() -> None:
    document = create_app().openapi()
    reference = render(document)
    for path, operations in document["paths"].items():
        for method in operations:
            assert f"### `{method.upper()} {path}`\n" in reference
    for name in document["components"]["schemas"]:
        assert f"\n### {name}\n" in reference


def test_a_parameter_is_a_row_and_a_reference_is_a_link() -> None:
    operation = {
        "tags": ["parts"],
        "description": "Read a part.",
        "parameters": [
            {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "a|b"}
        ],
        "responses": {"200": {"description": "It.", "content": {"application/json": {"schema": {"$ref": "#/c/Part"}}}}},
    }
    schema = {
        "description": "A part.",
        "required": ["id"],
        "properties": {"id": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    }
    reference = render({"paths": {"/parts/{id}": {"get": operation}}, "components": {"schemas": {"Part": schema}}})
    assert "## Parts\n\n### `GET /parts/{id}`\n\nRead a part.\n" in reference
    assert "| **id** | path | string | a\\|b |\n" in reference
    assert "| 200 | It. [Part](#part) |\n" in reference
    assert "### Part\n\nA part.\n\n| field | type | |\n|---|---|---|\n| **id** | string or null |  |\n" in reference


def test_links_lead_to_where_the_site_has_a_file() -> None:
    assert relinked("[a](docs/mes.md#polling)", "README.md") == "[a](mes.md#polling)"
    assert relinked("[a](../README.md)", "docs/mes.md") == "[a](index.md)"
    assert relinked("[a](../benchmarks/results/speed.md)", "docs/performance.md") == "[a](measured/speed.md)"
    assert relinked("[a](speed.svg)", "benchmarks/results/speed.md") == "[a](../measured/speed.svg)"
    assert relinked("[the code](../core/feed/feed.py)", "docs/mes.md") == "the code"
    assert relinked("[a](https://example.com/b)", "docs/mes.md") == "[a](https://example.com/b)"
