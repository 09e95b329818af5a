"""During an upgrade, a new api may start before the database is migrated: it refuses requests until then."""

import asyncio
import logging

from sqlalchemy import Engine
from starlette.types import ASGIApp, Receive, Scope, Send

from api.responses import problems
from core.database import UNUSABLE
from core.errors import Code, Refused
from migrations.revisions import read_schema

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
NEED_DATABASE = ("/v1/", "/predict", "/heatmap")
"""The beginnings of the paths of requests that need the database."""
READ_SCHEMA = (*NEED_DATABASE, "/metrics")
"""Those of requests that need the schema if there is a database: without one, `/metrics` has those of the process."""


class SchemaCheck:
    """Checks the schema of the database when the api starts, and again each second until it is migrated."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._task: asyncio.Task[None] | None = None
        self._waits_for: tuple[Code, str] | None = (Code.NOT_READY, "The api is starting.")

    @property
    def refusal(self) -> Refused | None:
        """Why requests are refused: NOT_READY, or DATABASE_UNAVAILABLE if the schema is unknown; None once it fits."""
        return None if self._waits_for is None else Refused(*self._waits_for)

    async def start(self) -> None:
        """Check it once, and go on in a task if the database is not migrated yet."""
        await asyncio.to_thread(self._check)
        if self._waits_for is not None:
            self._task = asyncio.create_task(self._wait())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _wait(self) -> None:
        while self._waits_for is not None:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self._check)

    def _check(self) -> None:
        try:
            with self._engine.connect() as connection:
                schema = read_schema(connection)
            waits_for = (Code.NOT_READY, schema.why_waiting) if schema.is_older else None
        except UNUSABLE as error:
            log.warning("the schema cannot be read, trying again: %s", error)
            unavailable = problems.database_unavailable()
            waits_for = unavailable.code, unavailable.detail
        if waits_for is not None and waits_for != self._waits_for:
            log.warning("waiting to accept requests: %s", waits_for[1])
        self._waits_for = waits_for


class MigratedOnly:
    """ASGI middleware: refuses requests that need the database until it is migrated."""

    def __init__(self, app: ASGIApp, schema: SchemaCheck) -> None:
        self._app = app
        self._schema = schema

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._schema.refusal
        if refusal is not None and scope["type"] == "http" and _is_refused(scope["path"], refusal.code):
            await problems.response(refusal)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _is_refused(path: str, code: Code) -> bool:
    return path.startswith(READ_SCHEMA if code is Code.NOT_READY else NEED_DATABASE)
