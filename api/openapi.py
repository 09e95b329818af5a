"""The document at `/openapi.json`: what FastAPI derives from the routes, completed by what holds for all of them.

A route declares its own rejections (`problems.refuses`). Those of authentication, fields, bodies and the database are
added here, once.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from api.access.authentication import NEED_NO_KEY, PROBES, scope_needed
from api.responses.problems import MEDIA_TYPE, STATUS, refuses
from api.responses.schemas import GateNotMet, LostCursor, Problem
from core.errors import Code

_BY_FASTAPI = ("HTTPValidationError", "ValidationError")
"""Schemas of an answer that is never given: ours to wrong fields is a problem."""
_PROBLEMS = (Problem, LostCursor, GateNotMet)
_METHODS = frozenset({"get", "post", "patch", "delete", "put"})

_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, `lw_…` (`linewatch keys create`). Each operation names the scope that the key needs; "
    "`admin` is all of them. A system that listens on a loopback address needs no key unless configured otherwise.",
}
_RETRY_AFTER = {"description": "Seconds after which to ask again.", "schema": {"type": "integer", "minimum": 1}}
_AUTHENTICATE = {"description": "`Bearer`.", "schema": {"type": "string"}}
_HEADERS: Mapping[HTTPStatus, Mapping[str, Any]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": {"required": True, **_AUTHENTICATE}},
    HTTPStatus.CONFLICT: {"Retry-After": {"required": False, **_RETRY_AFTER}},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": {"required": True, **_RETRY_AFTER}},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": {"required": True, **_RETRY_AFTER}},
}


class DocumentedApp(FastAPI):
    """An app whose document is complete."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _completed(super().openapi())
        return self.openapi_schema


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document["components"]
    for name in _BY_FASTAPI:
        components["schemas"].pop(name, None)
    for model in _PROBLEMS:
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"] |= {**schema.pop("$defs", {}), model.__name__: schema}
    components["securitySchemes"] = {"key": _KEY}
    for path, item in document["paths"].items():
        for method in _METHODS & item.keys():
            operation = item[method]
            operation["security"] = [] if _is_open(path) else [{"key": [scope_needed(method.upper(), path)]}]
            operation["responses"] = _answers(path, operation)
    return document


def _is_open(path: str) -> bool:
    return path in PROBES | NEED_NO_KEY


def _answers(path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """Its own answers, and the problems that it says or that follow from what it is."""
    said: dict[str, Any] = operation["responses"]
    own = {status: answer for status, answer in said.items() if not _is_by_fastapi(answer)}
    answers = {status: answer for status, answer in own.items() if int(status) < HTTPStatus.BAD_REQUEST}
    codes: dict[int, list[str]] = {}
    for described in (own, refuses(*_common(path, operation))):
        for status, answer in described.items():
            if int(status) >= HTTPStatus.BAD_REQUEST:
                codes.setdefault(int(status), []).extend(answer["description"].split(", "))
    for status in sorted(codes):
        answers[str(status)] = _problem(HTTPStatus(status), ", ".join(dict.fromkeys(codes[status])))
    answers["default"] = _problem(None, f"Any other refusal, `{Code.INTERNAL_ERROR}` among them.")
    return answers


def _is_by_fastapi(answer: Mapping[str, Any]) -> bool:
    schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
    return schema.get("$ref", "").rpartition("/")[2] in _BY_FASTAPI


def _common(path: str, operation: Mapping[str, Any]) -> Iterator[Code]:
    """What any operation of this kind may refuse."""
    if path not in PROBES:
        yield Code.FOREIGN_ORIGIN
    if not _is_open(path):
        yield from (Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.RATE_LIMITED)
    if "{" in path:
        yield Code.NOT_FOUND
    if "requestBody" in operation:
        yield from (Code.MALFORMED_REQUEST, Code.UPLOAD_TOO_LARGE)
    if "requestBody" in operation or any(one["in"] != "path" for one in operation.get("parameters", ())):
        yield Code.INVALID_FIELD
    if path not in ("/healthz", "/health"):
        yield Code.DATABASE_UNAVAILABLE


def _kind(status: HTTPStatus | None, description: str) -> type[Problem]:
    if status == STATUS[Code.CURSOR_EXPIRED]:
        return LostCursor
    return GateNotMet if f"`{Code.GATE_NOT_MET}`" in description else Problem


def _problem(status: HTTPStatus | None, description: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{_kind(status, description).__name__}"}
    headers = _HEADERS.get(status) if status is not None else None
    answer: dict[str, Any] = {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}
    return answer | {"headers": headers} if headers else answer
