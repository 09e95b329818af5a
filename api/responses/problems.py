"""Errors as `application/problem+json` (RFC 9457), and the HTTP status of each error code."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.metrics import count_refusal
from core.database import UNUSABLE
from core.errors import Code, Refused
from core.storage.image_store import StoreUnavailable

log = logging.getLogger(__name__)

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

STATUS: Mapping[Code, HTTPStatus] = {
    Code.MALFORMED_REQUEST: HTTPStatus.BAD_REQUEST,
    Code.EMPTY_BODY: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.FORBIDDEN: HTTPStatus.FORBIDDEN,
    Code.FOREIGN_ORIGIN: HTTPStatus.FORBIDDEN,
    Code.CSRF_TOKEN_INVALID: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.METHOD_NOT_ALLOWED: HTTPStatus.METHOD_NOT_ALLOWED,
    Code.RECIPE_UNKNOWN: HTTPStatus.NOT_FOUND,
    Code.RECIPE_EXISTS: HTTPStatus.CONFLICT,
    Code.RECIPE_WITHOUT_MODEL: HTTPStatus.CONFLICT,
    Code.MODEL_NOT_READY: HTTPStatus.CONFLICT,
    Code.INVALID_TRANSITION: HTTPStatus.CONFLICT,
    Code.OWN_API_KEY: HTTPStatus.CONFLICT,
    Code.LAST_ADMIN_KEY: HTTPStatus.CONFLICT,
    Code.UPLOAD_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.IMAGE_TOO_LARGE: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.TOO_MANY_IMAGES: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.MULTIPLE_FRAMES: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    Code.IMAGE_UNDECODABLE: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.INVALID_FIELD: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.INVALID_CURSOR: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.CURSOR_EPOCH: HTTPStatus.GONE,
    Code.CURSOR_EXPIRED: HTTPStatus.GONE,
    Code.IMAGE_EXPIRED: HTTPStatus.GONE,
    Code.INSPECTION_EXPIRED: HTTPStatus.GONE,
    Code.INVALID_BUNDLE: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.CALLBACK_UNREGISTERED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.WEBHOOK_TARGET_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.SOURCE_REFUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.GATE_NOT_MET: HTTPStatus.CONFLICT,
    Code.SCHEDULE_EXISTS: HTTPStatus.CONFLICT,
    Code.CHALLENGER_EXISTS: HTTPStatus.CONFLICT,
    Code.IDEMPOTENCY_MISMATCH: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.IDEMPOTENCY_IN_FLIGHT: HTTPStatus.CONFLICT,
    Code.REQUEST_TIMEOUT: HTTPStatus.REQUEST_TIMEOUT,
    Code.RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.QUEUE_FULL: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.WAITING_QUEUE_FULL: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.BUSY: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.NOT_READY: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DATABASE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.STORE_FULL: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.STORE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.TIMEOUT: HTTPStatus.SERVICE_UNAVAILABLE,
}

RETRY_AFTER_SECONDS = 5
MEDIA_TYPE = "application/problem+json"


def body(refused: Refused) -> dict[str, Any]:
    """The problem document of an error."""
    status = STATUS[refused.code]
    return {
        "type": f"urn:linewatch:problem:{refused.code}",
        "title": refused.code.replace("_", " ").capitalize(),
        "status": status.value,
        "detail": refused.detail,
        "code": refused.code,
        **refused.members,
    }


def response(refused: Refused) -> JSONResponse:
    """The HTTP response for an error, which is counted as a refusal."""
    count_refusal(refused.code)
    status = STATUS[refused.code]
    headers = {}
    if refused.retry_after is not None or status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(refused.retry_after or RETRY_AFTER_SECONDS)
    if status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body(refused), status.value, headers, MEDIA_TYPE)


def refuses(*codes: Code) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route with these error codes. `api.openapi` adds the codes that all routes share."""
    by_status: dict[int | str, list[str]] = {}
    for code in codes:
        by_status.setdefault(STATUS[code].value, []).append(f"`{code}`")
    return {status: {"description": ", ".join(names)} for status, names in by_status.items()}


def database_unavailable() -> Refused:
    """The error while the database cannot be reached or used."""
    return Refused(Code.DATABASE_UNAVAILABLE, "The database is unavailable. Nothing was accepted. Retry later.")


def install(app: FastAPI) -> None:
    """Answer all errors of the app with problem documents.

    The handlers are coroutines: plain functions would wait for a thread of the plain routes.
    """
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(ClientDisconnect, _disconnected)
    for exception in UNUSABLE:
        app.add_exception_handler(exception, _unavailable)
    app.add_exception_handler(StoreUnavailable, _store_unavailable)
    app.add_exception_handler(Exception, _internal_error)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)  # noqa: S101 - registered for this type only
    return response(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    faults = error.errors()
    if any(fault["loc"][0] == "path" for fault in faults):
        return response(Refused(Code.NOT_FOUND, "Not found: the id in the path is malformed."))
    if isinstance(error.body, bytes):  # FastAPI does not parse a body without a JSON content type
        return response(
            Refused(
                Code.UNSUPPORTED_MEDIA_TYPE, "Unsupported content type. Send JSON with Content-Type: application/json."
            )
        )
    if any(fault["type"] == "missing" and fault["loc"] == ("body",) for fault in faults):
        return response(Refused(Code.EMPTY_BODY, "The body is missing. Send JSON with Content-Type: application/json."))
    if any(fault["type"] == "json_invalid" for fault in faults):
        return response(Refused(Code.MALFORMED_REQUEST, "The body is not valid JSON."))
    return response(invalid_fields(faults))


def invalid_fields(faults: Any) -> Refused:
    """The error for invalid fields, from pydantic's list of errors. It does not repeat the values."""
    messages = []
    for fault in faults:
        field = ".".join(str(part) for part in fault["loc"] if part not in ("query", "body", "header"))
        messages.append(f"{field}: {fault['msg']}" if field else fault["msg"])
    return Refused(Code.INVALID_FIELD, "; ".join(messages))


async def http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    codes = {
        404: Code.NOT_FOUND,
        408: Code.REQUEST_TIMEOUT,
        413: Code.UPLOAD_TOO_LARGE,
    }
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted(_methods(request)))
        refused = Refused(Code.METHOD_NOT_ALLOWED, f"{request.method} is not a method of this address: use {allowed}.")
        problem = response(refused)
        problem.headers["Allow"] = allowed
        return problem
    problem = response(Refused(codes.get(error.status_code, Code.MALFORMED_REQUEST), str(error.detail)))
    if error.headers:
        problem.headers.update(error.headers)
    return problem


def _methods(request: Request) -> set[str]:
    """The methods of all routes with this path; Starlette's own header has those of the first one only."""
    methods = {
        method
        for method in _METHODS
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    }
    return methods | {"HEAD"} if "GET" in methods else methods


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    log.warning("database unavailable: %s", error)
    return response(database_unavailable())


async def _store_unavailable(_: Request, error: Exception) -> JSONResponse:
    log.warning("the image store is unavailable: %s", error)
    return response(Refused(Code.STORE_UNAVAILABLE, "The image store is unavailable. Retry later."))


async def _disconnected(_: Request, __: Exception) -> JSONResponse:
    """The client disconnected during its upload, so this response reaches nobody. Nothing was stored."""
    return response(Refused(Code.MALFORMED_REQUEST, "The client disconnected. Nothing was accepted."))


async def _internal_error(_: Request, __: Exception) -> JSONResponse:
    return response(Refused(Code.INTERNAL_ERROR, "Internal error. See the log of the api."))
