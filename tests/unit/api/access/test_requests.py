"""The scope of each request, and the rate limit of keys."""

import pytest

from api.access.authentication import scope_needed
from api.access.rate_limits import RateLimits


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/inspections", "read"),
        ("POST", "/v1/inspections", "submit"),
        ("POST", "/v1/batches/1/close", "submit"),
        ("POST", "/predict", "submit"),
        ("POST", "/v1/recipes", "admin"),
        ("POST", "/v1/recipes/ring/rollback", "admin"),
        ("PATCH", "/v1/recipes/ring", "admin"),
        ("DELETE", "/anything", "admin"),
        ("GET", "/v1/parts/SN-1", "read"),
        ("POST", "/v1/inspections/1/reviews", "submit"),
        ("POST", "/v1/results/acknowledge", "read"),
        ("DELETE", "/v1/results/consumers/mes", "read"),
        ("DELETE", "/v1/results/consumers/mes/more", "admin"),
        ("GET", "/v1/results/acknowledge", "read"),
        ("PUT", "/v1/results/acknowledge", "admin"),
        ("POST", "/v1/webhook-endpoints", "admin"),
    ],
)
def test_each_request_needs_one_scope(method: str, path: str, scope: str) -> None:
    assert scope_needed(method, path) == scope


def test_a_rate_limit_allows_one_minute_of_requests_and_refills_evenly() -> None:
    now = 100.0
    rates = RateLimits(lambda: now)
    assert [rates.take(1, 3) for _ in range(5)] == [0, 0, 0, 20, 20]
    assert rates.take(2, 3) == 0
    now += 15
    assert rates.take(1, 3) == 5
    now += 5
    assert [rates.take(1, 3) for _ in range(2)] == [0, 20]
    now += 3600
    assert [rates.take(1, 3) for _ in range(4)] == [0, 0, 0, 20]
