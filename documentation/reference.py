"""The reference of the HTTP API, from its OpenAPI document."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


def render(document: Mapping[str, Any]) -> str:
    """Return the reference as Markdown: operations with parameters, body and answers by tag, then schemas."""
    by_tag: dict[str, list[str]] = defaultdict(list)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            by_tag[(operation.get("tags") or ["others"])[0]] += _operation(f"{method.upper()} {path}", operation)
    lines = [
        "# HTTP API",
        "",
        "A running system shows the same at `/docs`, and has it for programs at `/openapi.json`.",
    ]
    for tag, operations in by_tag.items():
        lines += ["", f"## {tag.capitalize()}", *operations]
    lines += ["", "## Schemas"]
    for name, schema in document["components"]["schemas"].items():
        lines += ["", f"### {name}", "", _text(schema.get("description", "")), *_fields(schema)]
    return "\n".join(lines) + "\n"


def _operation(title: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"### `{title}`", "", _text(operation.get("description") or operation.get("summary", "")))
    if parameters := operation.get("parameters"):
        yield from ("", "| parameter | in | type | |", "|---|---|---|---|")
        for each in parameters:
            name = f"**{each['name']}**" if each.get("required") else each["name"]
            yield f"| {name} | {each['in']} | {_type(each['schema'])} | {_cell(each.get('description', ''))} |"
    if body := operation.get("requestBody"):
        kinds = [f"`{media}`: {_type(content.get('schema', {}))}" for media, content in body["content"].items()]
        yield from ("", f"Body: {', or '.join(kinds)}.")
    yield from ("", "| answer | |", "|---|---|")
    for status, answer in operation["responses"].items():
        schemas = [_type(content["schema"]) for content in answer.get("content", {}).values() if "schema" in content]
        yield f"| {status} | {_cell(' '.join([answer.get('description', ''), *dict.fromkeys(schemas)]))} |"


def _fields(schema: Schema) -> Iterator[str]:
    if properties := schema.get("properties"):
        required = schema.get("required", ())
        yield from ("", "| field | type | |", "|---|---|---|")
        for name, field in properties.items():
            shown = f"**{name}**" if name in required else name
            yield f"| {shown} | {_type(field)} | {_cell(field.get('description', ''))} |"
    elif values := schema.get("enum"):
        yield from ("", "One of " + ", ".join(f"`{value}`" for value in values) + ".")


def _type(schema: Schema) -> str:
    """A short name of a type, with a link to a schema."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if parts := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    if "const" in schema:
        return f"`{schema['const']}`"
    if values := schema.get("enum"):
        return ", ".join(f"`{value}`" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return " ".join(str(schema[key]) for key in ("type", "format") if key in schema) or "anything"


def _text(description: str) -> str:
    return description.strip()


def _cell(description: str) -> str:
    """Text that fits into a cell of a table."""
    return " ".join(description.split()).replace("|", "\\|")
