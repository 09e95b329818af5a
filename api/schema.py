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
READ_SCHEMA = ("/v1/", "/predict", "/heatmap", "/metrics")
"""The beginnings of the paths of requests that read or write the tables."""


class SchemaCheck:
    """Checks the schema of the database when the api starts, and again each second until it is migrated."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._task: asyncio.Task[None] | None = None
        self._is_settled = False
        self._waits_for: str | None = "The api is starting."
        self._logged = ""

    @property
    def refusal(self) -> Refused | None:
        """Why requests are refused; None once the schema fits. While there is no database, each request notices."""
        return None if self._waits_for is None else Refused(Code.NOT_READY, self._waits_for)

    async def start(self) -> None:
        """Check it once, and go on in a task if the database is not migrated yet."""
        await asyncio.to_thread(self._check)
        if not self._is_settled:
            self._task = asyncio.create_task(self._wait())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _wait(self) -> None:
        while not self._is_settled:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self._check)

    def _check(self) -> None:
        try:
            with self._engine.connect() as connection:
                schema = read_schema(connection)
        except UNUSABLE as error:
            self._log(f"the schema cannot be read, trying again: {error}")
            self._waits_for = None
            return
        self._is_settled = not schema.is_older
        self._waits_for = None if self._is_settled else schema.why_waiting
        if self._waits_for is not None:
            self._log(f"waiting to accept requests: {self._waits_for}")

    def _log(self, message: str) -> None:
        """Log a message, once until it changes."""
        if message != self._logged:
            log.warning("%s", message)
        self._logged = message


class MigratedOnly:
    """ASGI middleware: refuses requests that read or write the tables until the database is migrated."""

    def __init__(self, app: ASGIApp, schema: SchemaCheck) -> None:
        self._app = app
        self._schema = schema

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._schema.refusal
        if refusal is not None and scope["type"] == "http" and scope["path"].startswith(READ_SCHEMA):
            await problems.response(refusal)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
