"""`linewatch.Client` and `linewatch.AsyncClient`: use a running system from Python.

Their methods are written once, in `linewatch.operations`.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from linewatch.http.executors import AsyncExecutor, SyncExecutor, iterate, run
from linewatch.http.transport import OnWait, Transport, options
from linewatch.operations import Operations
from linewatch.operations.endpoints import EndpointChanges
from linewatch.operations.inspections import Fields, Filters, NotSubmitted, Outcome, Submitted
from linewatch.operations.recipes import RecipeChanges
from linewatch.operations.rescore_runs import ResultFilters, Where
from linewatch.operations.training_runs import TrainingInspections

__all__ = [
    "AsyncClient",
    "Client",
    "EndpointChanges",
    "Fields",
    "Filters",
    "NotSubmitted",
    "Outcome",
    "RecipeChanges",
    "ResultFilters",
    "Submitted",
    "TrainingInspections",
    "Where",
]

DEFAULT_URL = "http://127.0.0.1:8000"

P = ParamSpec("P")
T = TypeVar("T")


class AsyncClient(Operations):
    """A client whose methods are awaited. Use it in an `async with` block, in one event loop.

    Every method raises `Refused`, with a stable `code`, if the system rejects the request, and `Unreachable` if there
    is no response; both are a `LinewatchError`. A request that gets 429 or 503 is retried for up to `patience` seconds.
    After a connection error, requests that are safe to repeat are retried; uploads are, by their idempotency key.

    Example:
        async with AsyncClient("http://127.0.0.1:8000") as lw:
            inspection = await lw.submit("part.png", recipe="ring", wait=30)
            async for item in lw.results(recipe="ring"):
                print(item.id, item.verdict)
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float = 60.0,
        on_wait: OnWait | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Sends nothing yet; the arguments are those of `Client`."""
        executor = AsyncExecutor(httpx.AsyncClient(transport=transport, **options(url, api_key)))
        super().__init__(Transport(executor, timeout=timeout, patience=patience, on_wait=on_wait))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def _blocking(
    operation: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["Client", P], T]:
    """An operation as a method that blocks."""

    @wraps(operation)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(operation(self._operations, *args, **kwargs))

    return method


def _iterating(
    operation: Callable[Concatenate[Any, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate["Client", P], Generator[T, None, None]]:
    """An operation that yields items as a method that you iterate over."""

    @wraps(operation)
    def method(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return iterate(operation(self._operations, *args, **kwargs))

    return method


class Client:
    """A client of a running system. Use it in a `with` block; it is safe to use from several threads.

    Every method raises `Refused`, with a stable `code`, if the system rejects the request, and `Unreachable` if there
    is no response; both are a `LinewatchError`. A request that gets 429 or 503 is retried for up to `patience` seconds.
    After a connection error, requests that are safe to repeat are retried; uploads are, by their idempotency key.

    Example:
        with Client("http://127.0.0.1:8000") as lw:
            inspection = lw.submit("part.png", recipe="ring", wait=30)
            for item in lw.results(recipe="ring"):
                print(item.id, item.verdict)
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float = 60.0,
        on_wait: OnWait | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Sends nothing yet.

        Args:
            url: the address of the api.
            api_key: `lw_…`, if the system requires a key.
            timeout: seconds for a response, in addition to the `wait` of a method.
            patience: seconds for which a request that gets 429 or 503 is retried.
            on_wait: called before each pause with the `Refused` or `Unreachable` that is the reason of the retry and
                the seconds since the first try, the pause included; and with None and the seconds it took once there
                is an answer. `submit_many` calls it from several threads.
            transport: replaces the network, for tests.

        Raises:
            BadAddress: `url` is not a URL of HTTP.
            BadKey: `api_key` has characters that a key cannot have; it is also a ValueError.
        """
        executor = SyncExecutor(httpx.Client(transport=transport, **options(url, api_key)))
        self._operations = Operations(Transport(executor, timeout=timeout, patience=patience, on_wait=on_wait))
        self.url = self._operations.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    ready = _blocking(Operations.ready)
    close = _blocking(Operations.close)

    # Images and parts

    submit = _blocking(Operations.submit)
    submit_many = _iterating(Operations.submit_many)
    inspection = _blocking(Operations.inspection)
    inspections = _iterating(Operations.inspections)
    export = _blocking(Operations.export)
    cancel = _blocking(Operations.cancel)
    review = _blocking(Operations.review)
    retract_review = _blocking(Operations.retract_review)
    review_queue = _iterating(Operations.review_queue)
    review_progress = _blocking(Operations.review_progress)
    reviews = _iterating(Operations.reviews)
    part = _blocking(Operations.part)
    image = _blocking(Operations.image)
    image_link = _blocking(Operations.image_link)
    anomaly_map = _blocking(Operations.anomaly_map)
    heatmap = _blocking(Operations.heatmap)
    thumbnail = _blocking(Operations.thumbnail)
    similar = _blocking(Operations.similar)
    neighbours = _blocking(Operations.neighbours)
    rescores = _iterating(Operations.rescores)

    # Batches

    submit_batch = _blocking(Operations.submit_batch)
    open_batch = _blocking(Operations.open_batch)
    batch = _blocking(Operations.batch)
    close_batch = _blocking(Operations.close_batch)
    cancel_batch = _blocking(Operations.cancel_batch)

    # The feed

    results = _iterating(Operations.results)
    acknowledge = _blocking(Operations.acknowledge)
    consumers = _blocking(Operations.consumers)
    forget_consumer = _blocking(Operations.forget_consumer)

    # Webhooks

    endpoints = _blocking(Operations.endpoints)
    endpoint = _blocking(Operations.endpoint)
    create_endpoint = _blocking(Operations.create_endpoint)
    change_endpoint = _blocking(Operations.change_endpoint)
    delete_endpoint = _blocking(Operations.delete_endpoint)
    rotate_secret = _blocking(Operations.rotate_secret)
    test_endpoint = _blocking(Operations.test_endpoint)
    deliveries = _iterating(Operations.deliveries)
    delivery = _blocking(Operations.delivery)
    replay = _blocking(Operations.replay)

    # Recipes and their model versions

    recipes = _blocking(Operations.recipes)
    recipe = _blocking(Operations.recipe)
    create_recipe = _blocking(Operations.create_recipe)
    change_recipe = _blocking(Operations.change_recipe)
    model_versions = _blocking(Operations.model_versions)
    model_version = _blocking(Operations.model_version)
    upload_bundle = _blocking(Operations.upload_bundle)
    download_bundle = _blocking(Operations.download_bundle)
    activate = _blocking(Operations.activate)
    rollback = _blocking(Operations.rollback)
    set_threshold = _blocking(Operations.set_threshold)
    preview_threshold = _blocking(Operations.preview_threshold)
    compare_versions = _blocking(Operations.compare_versions)

    # Training in a worker

    create_training = _blocking(Operations.create_training)
    add_training_images = _blocking(Operations.add_training_images)
    start_training = _blocking(Operations.start_training)
    training_run = _blocking(Operations.training_run)
    follow_training = _iterating(Operations.follow_training)
    training_runs = _iterating(Operations.training_runs)
    cancel_training = _blocking(Operations.cancel_training)
    download_training_report = _blocking(Operations.download_training_report)

    # Re-scoring

    rescore = _blocking(Operations.rescore)
    count_rescore = _blocking(Operations.count_rescore)
    rescore_run = _blocking(Operations.rescore_run)
    follow_run = _iterating(Operations.follow_run)
    rescore_runs = _iterating(Operations.rescore_runs)
    pause_run = _blocking(Operations.pause_run)
    resume_run = _blocking(Operations.resume_run)
    cancel_run = _blocking(Operations.cancel_run)
    rescore_results = _iterating(Operations.rescore_results)
    rescore_flips = _iterating(Operations.rescore_flips)
    rescore_report = _blocking(Operations.rescore_report)
    download_rescore_report = _blocking(Operations.download_rescore_report)
    export_rescore_results = _blocking(Operations.export_rescore_results)

    # Schedules of re-scoring

    rescore_schedules = _blocking(Operations.rescore_schedules)
    rescore_schedule = _blocking(Operations.rescore_schedule)
    create_rescore_schedule = _blocking(Operations.create_rescore_schedule)
    change_rescore_schedule = _blocking(Operations.change_rescore_schedule)
    delete_rescore_schedule = _blocking(Operations.delete_rescore_schedule)

    # From re-scoring to action

    activate_run = _blocking(Operations.activate_run)
    rollback_run = _blocking(Operations.rollback_run)
    challenger = _blocking(Operations.challenger)
    set_challenger = _blocking(Operations.set_challenger)
    end_challenger = _blocking(Operations.end_challenger)

    # Legal holds

    legal_holds = _iterating(Operations.legal_holds)
    legal_hold = _blocking(Operations.legal_hold)
    set_legal_hold = _blocking(Operations.set_legal_hold)
    release_legal_hold = _blocking(Operations.release_legal_hold)

    # The state of the system and of a recipe

    system = _blocking(Operations.system)
    drift = _blocking(Operations.drift)
