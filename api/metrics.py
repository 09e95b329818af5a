"""The metrics of an api process."""

from prometheus_client import Counter

from core.errors import Code
from core.metrics import DURATIONS, Distribution, Values

NO_ROUTE = "none"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_REQUESTS = Counter(
    "linewatch_http_requests",
    "Requests by method, route and status. The route is `none` for the page's files, and if authentication refused "
    "the request or nothing is there.",
    ["method", "route", "status"],
)
_DURATIONS = Distribution(
    "linewatch_http_request_duration_seconds",
    "How long requests take until their response is sent, with the time that `wait` asks for.",
    DURATIONS,
    ["method", "route"],
)
ACCEPTED = Counter("linewatch_accepted_inspections", "Inspections that uploads were accepted for.", ["priority"])
REFUSED_IMAGES = Counter("linewatch_refused_images", "Images that were refused in accepted batches.", ["code"])
_REFUSALS = Counter("linewatch_refusals", "Requests that were refused, by the code of the problem.", ["code"])
for _code in Code:
    _REFUSALS.labels(_code)  # a rise from nothing to 1 would not be seen

_series: dict[tuple[str, str, int], tuple[Counter, Values]] = {}
"""The series of requests by method, route and status: looking them up by their labels would take longer."""


def count_refusal(code: Code) -> None:
    """Count a response with a problem."""
    _REFUSALS.labels(code).inc()


def count_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request by the template of its route, if it has one."""
    method, route = method if method in _METHODS else "other", route or NO_ROUTE
    series = _series.get((method, route, status))
    if series is None:
        series = _REQUESTS.labels(method, route, str(status)), _DURATIONS.labels(method, route)
        _series[method, route, status] = series
    requests, durations = series
    requests.inc()
    durations.add((seconds,))
