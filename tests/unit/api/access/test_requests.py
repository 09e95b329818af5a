"""The scope of each request, what needs no key, requests of other pages, and rate limits."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from api.access import rate_limits
from api.access.authentication import SESSION_COOKIE, needs_no_key, scope_needed, session_token
from api.access.origins import check_same_origin
from api.access.rate_limits import RateLimits
from api.access.sign_ins import FAILURES_PER_MINUTE, SignInLimit
from core.errors import Code, Refused


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
        ("GET", "/v1/api-keys", "admin"),
        ("HEAD", "/v1/audit-events", "admin"),
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


def test_a_request_that_is_given_back_does_not_count() -> None:
    rates = RateLimits(lambda: 100.0)
    for _ in range(5):
        assert rates.take("10.0.0.1", 1) == 0
        rates.give_back("10.0.0.1")
    rates.give_back("10.0.0.2")  # never counted
    assert [rates.take(address, 1) for address in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2")] == [0, 60, 0, 60]


def test_the_counts_of_many_clients_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_BUCKETS", 3)
    rates = RateLimits(lambda: 100.0)
    for address in range(100):
        assert rates.take(address, 1) == 0
        assert rates.take(address, 1) == 60
        assert len(rates._buckets) <= 3


def test_only_failed_sign_ins_are_limited() -> None:
    limit = SignInLimit()
    for _ in range(3 * FAILURES_PER_MINUTE):
        limit.begin("10.0.0.1")
        limit.succeeded("10.0.0.1")
    for _ in range(FAILURES_PER_MINUTE):
        limit.begin("10.0.0.1")
    with pytest.raises(Refused) as refused:
        limit.begin("10.0.0.1")
    assert refused.value.code is Code.RATE_LIMITED
    assert refused.value.retry_after is not None
    limit.begin("10.0.0.2")


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/live", "/inspections", "/inspections/0193e0c8-0000-7000-8000-000000000000", "/thresholds", "/review"),
        *("/train", "/models", "/rescoring", "/drift", "/system", "/static/page.css", "/static/charts/charts.js"),
    ],
)
def test_views_of_the_page_need_no_key_to_be_read(path: str) -> None:
    assert needs_no_key("GET", path)
    assert needs_no_key("HEAD", path)
    assert not needs_no_key("POST", path)
    assert not needs_no_key("GET", f"/v1{path}")


@pytest.mark.parametrize(
    "path",
    ["", "//", "/live/", "/live/x", "/inspections/", "/inspections/a/b", "/static", "/static/", "/docs", "/LIVE"],
)
def test_other_paths_need_a_key(path: str) -> None:
    assert not needs_no_key("GET", path)


segments = st.lists(st.sampled_from(["", "..", ".", "static", "live", "v1", "recipes", "\n", "%2e%2e"]), max_size=4)


@given(st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]), segments)
def test_no_request_on_data_passes_without_a_key(method: str, names: list[str]) -> None:
    assert not needs_no_key(method, "/".join(["/v1", *names]))


def is_accepted(**headers: str) -> bool:
    with contextlib.suppress(Refused):
        check_same_origin(Headers({name.replace("_", "-"): value for name, value in headers.items()}))
        return True
    return False


def test_browsers_say_whether_a_request_is_from_another_origin() -> None:
    assert is_accepted(host="plant.example", sec_fetch_site="same-origin", origin="https://plant.example")
    # The proxy has replaced the host.
    assert is_accepted(host="api:8000", sec_fetch_site="same-origin", origin="https://plant.example")
    for site in ("cross-site", "same-site"):
        assert not is_accepted(host="plant.example", sec_fetch_site=site)
        assert not is_accepted(host="plant.example", sec_fetch_site=site, origin="https://plant.example")
    # Older browsers, and plain HTTP.
    assert is_accepted(host="plant.example", origin="http://plant.example")
    assert is_accepted(host="plant.example:8443", origin="https://plant.example:8443")
    assert is_accepted(host="plant.example")
    assert not is_accepted(host="plant.example", sec_fetch_site="none", origin="https://evil.example")


hosts = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,8})?(:[0-9]{1,5})?", fullmatch=True)


@given(st.sampled_from(["http", "https"]), hosts, hosts)
def test_only_the_own_origin_is_accepted(scheme: str, host: str, other: str) -> None:
    assert is_accepted(host=host, origin=f"{scheme}://{host}")
    assert is_accepted(host=host, origin=f"{scheme}://{other}") == (host == other)
    assert not is_accepted(host=host, origin="null")


@given(st.text(st.characters(codec="latin-1", exclude_characters="\0\r\n")))
def test_any_cookie_header_has_a_token_or_none(header: str) -> None:
    assert isinstance(session_token(Headers({"cookie": header})), str)
    assert (
        session_token(Headers({"cookie": f"theme=dark; {SESSION_COOKIE}=abc-_9; {header.replace('=', '')}"}))
        == "abc-_9"
    )
