"""The document at `/openapi.json`: FastAPI derives it from the routes, and this module adds what all routes share.

A route declares its specific error codes (`problems.refuses`). The codes of authentication, fields, bodies and the
database are added here.
"""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from api.access.authentication import (
    CSRF_HEADER,
    NEED_NO_KEY,
    PROBES,
    SAFE_METHODS,
    SESSION,
    SESSION_COOKIE,
    scope_needed,
)
from api.responses.problems import MEDIA_TYPE, refuses
from api.responses.schemas import GateNotMet, LostCursor, Problem
from core.errors import Code

_BY_FASTAPI = ("HTTPValidationError", "ValidationError")
"""FastAPI's schemas for invalid fields. They are removed: the api answers with a problem document instead."""
_PROBLEMS = (Problem, LostCursor, GateNotMet)
_METHODS = frozenset({"get", "post", "patch", "delete", "put"})

_KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key, `lw_…` (`linewatch keys create`). Each operation names the scope that the key needs; "
    "`admin` includes all scopes. By default, an api on a loopback address needs no key.",
}
_SESSION = {
    "type": "apiKey",
    "in": "cookie",
    "name": SESSION_COOKIE,
    "description": f"The session of a browser that has signed in with an API key (`POST {SESSION}`). It has the scopes "
    "of the key.",
}
_CSRF = {
    "type": "apiKey",
    "in": "header",
    "name": CSRF_HEADER,
    "description": f"The `csrf_token` of the session (`GET {SESSION}`), for methods that change something.",
}
_RETRY_AFTER = {"description": "Retry after this many seconds.", "schema": {"type": "integer", "minimum": 1}}
_AUTHENTICATE = {"description": "`Bearer`.", "schema": {"type": "string"}}
_HEADERS: Mapping[HTTPStatus, Mapping[str, Any]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": {"required": True, **_AUTHENTICATE}},
    HTTPStatus.CONFLICT: {"Retry-After": {"required": False, **_RETRY_AFTER}},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": {"required": True, **_RETRY_AFTER}},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": {"required": True, **_RETRY_AFTER}},
}


class DocumentedApp(FastAPI):
    """An app with a complete OpenAPI document."""

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
    components["securitySchemes"] = {"key": _KEY, "session": _SESSION, "csrf": _CSRF}
    for path, item in document["paths"].items():
        for method in _METHODS & item.keys():
            operation = item[method]
            operation["security"] = [] if _is_open(path) else _security(method.upper(), path)
            operation["responses"] = _all_responses(method.upper(), path, operation)
    return document


def _security(method: str, path: str) -> list[dict[str, list[str]]]:
    """The alternatives by which an operation is authenticated, with the scope that the key or session needs."""
    scopes = [scope_needed(method, path)]
    session = {"session": scopes} if method in SAFE_METHODS else {"session": scopes, "csrf": []}
    return [{"key": scopes}, session]


def _is_open(path: str) -> bool:
    return path in PROBES | NEED_NO_KEY


def _all_responses(method: str, path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    """All responses of an operation: those that its route declares, and the errors common to its kind."""
    responses: dict[str, Any] = operation["responses"]
    declared = {status: response for status, response in responses.items() if not _is_by_fastapi(response)}
    documented = {status: response for status, response in declared.items() if int(status) < HTTPStatus.BAD_REQUEST}
    codes: dict[int, list[str]] = {}
    for described in (declared, refuses(*_common(method, path, operation))):
        for status, response in described.items():
            if int(status) >= HTTPStatus.BAD_REQUEST:
                codes.setdefault(int(status), []).extend(response["description"].split(", "))
    for status in sorted(codes):
        documented[str(status)] = _problem(HTTPStatus(status), ", ".join(dict.fromkeys(codes[status])))
    documented["default"] = _problem(None, f"Any other error, for example `{Code.INTERNAL_ERROR}`.")
    return documented


def _is_by_fastapi(response: Mapping[str, Any]) -> bool:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return schema.get("$ref", "").rpartition("/")[2] in _BY_FASTAPI


def _common(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[Code]:
    """The error codes that all operations of this kind share."""
    if path not in PROBES:
        yield Code.FOREIGN_ORIGIN
    if method not in SAFE_METHODS and path not in PROBES | NEED_NO_KEY:
        yield Code.CSRF_TOKEN_INVALID
    if not _is_open(path):
        yield from (Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.RATE_LIMITED)
    if "{" in path:
        yield Code.NOT_FOUND
    if "{inspection_id}" in path:
        yield Code.INSPECTION_EXPIRED
    if "requestBody" in operation:
        yield from (Code.MALFORMED_REQUEST, Code.UPLOAD_TOO_LARGE)
    if "requestBody" in operation or any(parameter["in"] != "path" for parameter in operation.get("parameters", ())):
        yield Code.INVALID_FIELD
    if path not in ("/healthz", "/health"):
        yield Code.DATABASE_UNAVAILABLE


def _model_of(status: HTTPStatus | None, description: str) -> type[Problem]:
    if f"`{Code.CURSOR_EXPIRED}`" in description:
        return LostCursor
    return GateNotMet if f"`{Code.GATE_NOT_MET}`" in description else Problem


def _problem(status: HTTPStatus | None, description: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{_model_of(status, description).__name__}"}
    headers = _HEADERS.get(status) if status is not None else None
    response: dict[str, Any] = {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}
    return response | {"headers": headers} if headers else response
