"""The api application: routes, authentication and services."""

import asyncio
import gc
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from api.access.authentication import Authentication
from api.access.origins import allow_origins
from api.openapi import DocumentedApp
from api.requests.parameters import refuse_unknown_parameters
from api.responses import problems
from api.responses.bodiless import BodilessResponses
from api.responses.root_path import RootPath
from api.routes import (
    batches,
    deliveries,
    docs,
    drift,
    exports,
    health,
    inspections,
    legal_holds,
    metrics,
    model_versions,
    page,
    parts,
    predict,
    recipes,
    results,
    reviews,
    statistics,
    system,
    thresholds,
    thumbnails,
    training_runs,
    webhook_endpoints,
)
from api.routes.access import api_keys, audit_events, session
from api.routes.rescoring import activations, challengers, comparisons, history, reports, runs, schedules
from api.routes.whole_uploads import WholeUploads
from api.schema import MigratedOnly
from api.services import ROUTE_THREADS, WORK_THREADS, Services
from api.tracking import RequestTracking, telemetry
from core.settings import Settings, settings
from core.tracing import traces

DESCRIPTION = """Asynchronous visual inspection: upload images, get scores and verdicts. Accepted images are never lost.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Times are ISO 8601 with a time zone; a date alone
is midnight UTC. `HEAD` is answered where `GET` is. Bodies may be compressed with `Content-Encoding: gzip`. Every
response has an `X-Request-ID`: that of the request, or a new one. It is in the log."""


def create_app(configuration: Settings | None = None) -> FastAPI:
    """Create the api. It opens its connections when it starts. Its requests are traced if tracing is on by then."""
    configuration = configuration or settings()
    services = Services.create(configuration)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(WORK_THREADS, thread_name_prefix="work"))
        anyio.to_thread.current_default_thread_limiter().total_tokens = ROUTE_THREADS
        await services.start()
        # What exists now stays until the end. Without this, the garbage collector goes through it again and again.
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()
            await services.stop()
            await asyncio.to_thread(traces.stop)

    app = DocumentedApp(
        title="Linewatch",
        version=version("linewatch"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from the internet; `api.routes.docs` does not
        redoc_url=None,
        servers=[{"url": configuration.root_path}] if configuration.root_path else None,
        generate_unique_id_function=_operation_id,
        telemetry=telemetry(configuration.root_path),
    )
    app.state.services = services
    app.router.routes.append(WholeUploads(services))
    problems.install(app)
    app.add_middleware(Authentication, settings=configuration, credentials=services.credentials)
    app.add_middleware(MigratedOnly, schema=services.schema)
    app.add_middleware(BodilessResponses)
    if configuration.cors_origin_list:
        allow_origins(app, configuration.cors_origin_list)
    if configuration.root_path:
        app.add_middleware(RootPath, root_path=configuration.root_path)
    app.add_middleware(RequestTracking)
    # `exports` comes before `inspections`: otherwise `export` would match `{inspection_id}`.
    resources = (exports, inspections, thumbnails, reviews, results, statistics, batches, parts)
    models = (recipes, model_versions, thresholds, training_runs, drift)
    webhooks = (webhook_endpoints, deliveries)
    rescoring = (runs, schedules, reports, history, activations, challengers, comparisons)
    operation = (session, api_keys, audit_events, system, metrics, legal_holds)
    for routes in (*resources, *models, *webhooks, *rescoring, *operation):
        app.include_router(routes.router, dependencies=[Depends(refuse_unknown_parameters)])
    # These accept any query parameters: for clients of the old demo, probes and browsers.
    for routes in (predict, health, page, docs):
        app.include_router(routes.router)
    app.mount("/static", page.PageFiles())
    app.add_exception_handler(404, page.not_found)
    return app


def _operation_id(route: APIRoute) -> str:
    """The `operationId` in the OpenAPI document. Generated clients use it as the method name."""
    return route.name
