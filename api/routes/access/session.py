"""`/v1/session`: sign a browser in with an API key, and out again."""

import asyncio
import logging
import re
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from api.access.authentication import LOCAL, SESSION, SESSION_COOKIE, UNKNOWN_KEY, session_token
from api.requests.parameters import refuse_unstorable
from api.responses import access as documents
from api.responses.problems import refuses
from api.services import Context, RequestIdentity, Services
from core.access import keys, sessions
from core.access.keys import SCOPES, Key
from core.access.sessions import Session
from core.errors import Code, Refused

router = APIRouter(prefix=SESSION, tags=["access"])
log = logging.getLogger(__name__)

_PREFIX = re.compile(r"\s*lw_([0-9a-f]{12})_")
_NO_STORE = {"Cache-Control": "no-store"}


class SignIn(BaseModel):
    """An API key to sign in with."""

    model_config = ConfigDict(extra="forbid")

    api_key: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=200),
        AfterValidator(refuse_unstorable),
        Field(json_schema_extra={"format": "password"}),
    ]


@router.get("")
async def get_session(
    request: Request, response: Response, services: Context, identity: RequestIdentity
) -> documents.Session:
    """Get who you are, and what you may do. It needs no key: `actor` is null if you must sign in."""
    response.headers.update(_NO_STORE)
    if not services.settings.auth_required:
        return documents.Session(
            auth="off", actor=LOCAL.actor, name=None, scopes=[*SCOPES], csrf_token=None, expires_at=None
        )
    if identity.key is None:
        return documents.Session(auth="on", actor=None, name=None, scopes=[], csrf_token=None, expires_at=None)
    token = None if identity.session is None else session_token(request.headers)
    return _document(identity.key, identity.session, token)


@router.post("", status_code=201, responses=refuses(Code.UNAUTHENTICATED, Code.RATE_LIMITED, Code.INVALID_TRANSITION))
async def sign_in(new: SignIn, request: Request, response: Response, services: Context) -> documents.Session:
    """Sign in with an API key, in a browser. The response sets the cookie that authenticates further requests.

    The session has the scopes of the key and ends with it, 12 hours after its last use, or after 7 days. Requests that
    change something must be from the same origin and send `csrf_token` in the header `X-CSRF-Token`. Programs send the
    key with each request instead. 409 `invalid_transition` if this api needs no keys.
    """
    if not services.settings.auth_required:
        raise Refused(Code.INVALID_TRANSITION, "This api needs no API keys (LINEWATCH_AUTH), so there is no sign-in.")
    address = request.client.host if request.client else "unknown"
    services.sign_in_limit.begin(address)
    previous = session_token(request.headers)
    try:
        session, token = await asyncio.to_thread(_create, services, new.api_key, previous, address)
    except Refused as refused:
        prefix = _PREFIX.match(new.api_key)
        log.warning("a sign-in from %s with the key %s failed: %s", address, prefix[1] if prefix else "?", refused)
        raise
    services.sign_in_limit.succeeded(address)
    services.credentials.forget_session(previous)
    response.headers.update(_NO_STORE)
    _set_cookie(request, response, token, seconds=int(sessions.LIFETIME.total_seconds()))
    return _document(session.key, session, token)


@router.delete("", status_code=204, responses=refuses(Code.CSRF_TOKEN_INVALID))
async def sign_out(request: Request, response: Response, services: Context) -> None:
    """Sign out: end the session of the cookie, and delete the cookie. Without a session, it changes nothing."""
    token = session_token(request.headers)
    if token:
        await asyncio.to_thread(_end, services, token)
        services.credentials.forget_session(token)
    _set_cookie(request, response, "", seconds=0)


def _create(services: Services, text: str, previous: str, address: str) -> tuple[Session, str]:
    """Start a session of the key with this text, instead of the previous session of the browser, if it has one.

    Raises:
        Refused: UNAUTHENTICATED if the key is unknown, revoked or expired.
    """
    with services.transaction() as connection:
        key = keys.find(connection, text)
        if key is None:
            raise Refused(Code.UNAUTHENTICATED, UNKNOWN_KEY)
        key.check_not_expired()
        if previous:
            sessions.end(connection, previous)
        return sessions.create(connection, key, address=address)


def _end(services: Services, token: str) -> None:
    with services.transaction() as connection:
        sessions.end(connection, token)


def _set_cookie(request: Request, response: Response, token: str, *, seconds: int) -> None:
    """Set the session cookie. Scripts cannot read it, and no request from another site carries it."""
    response.set_cookie(
        SESSION_COOKIE,
        token,
        max_age=seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def _document(key: Key, session: Session | None, token: str | None) -> documents.Session:
    return documents.Session(
        auth="on",
        actor=key.actor,
        name=key.name,
        scopes=[scope for scope in SCOPES if key.allows(scope)],
        csrf_token=None if token is None else sessions.csrf_token(token),
        expires_at=key.expires_at if session is None else session.expires_at,
    )
