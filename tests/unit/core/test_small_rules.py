"""Small rules of core and api that need no server."""

import contextlib
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.access.authentication import scope_needed
from api.access.rate_limits import RateLimits
from api.requests.parameters import decode_cursor, encode_cursor, parse_json
from api.responses.problems import STATUS
from core.errors import Code, Refused
from core.models.verdicts import decide_verdict
from core.partitions import first_id_of
from core.queue.broker import broker_url, celery_settings
from core.settings import Settings
from core.storage.image_store import Store

finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite, st.none() | finite)
def test_a_verdict_follows_the_thresholds(score: float, threshold: float, review: float | None) -> None:
    verdict = decide_verdict(score, threshold, review)
    assert (verdict == "ng") == (score >= threshold)
    assert (verdict == "review") == (review is not None and review <= score < threshold)


def test_a_score_at_the_threshold_is_ng() -> None:
    assert decide_verdict(0.5, 0.5) == "ng"
    assert decide_verdict(0.4, 0.5, 0.4) == "review"


@given(finite, finite, st.none() | finite)
def test_a_image_that_cannot_be_trusted_is_for_a_person_to_judge(
    score: float, threshold: float, review: float | None
) -> None:
    assert decide_verdict(score, threshold, review, ["input_dark"]) == "review"


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(Code)


@given(st.integers(0, 16_000_000_000_000))
def test_the_first_id_of_a_moment_is_below_all_of_that_millisecond(milliseconds: int) -> None:
    moment = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    first = first_id_of(moment)
    assert first < UUID(int=first.int + (1 << 64))
    assert first_id_of(moment + dt.timedelta(milliseconds=2)) > first


json_values = st.recursive(
    st.none() | st.booleans() | finite | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_json_is_taken_as_it_is_or_refused(value: object) -> None:
    text = json.dumps(value)
    if "\\u0000" in text or any("\ud800" <= letter <= "\udfff" for letter in str(value)):
        return  # refused below
    assert parse_json(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        '{"a": -Infinity}',
        '"\\u0000"',
        '{"\\u0000": 1}',
        '"\\udc00"',
        "1e400",
        "[" * 10_000,
        "",
        "{",
        b"\xff",
    ],
)
def test_json_that_postgres_could_not_keep_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@given(st.uuids())
def test_a_cursor_comes_back_as_it_went(inspection_id: UUID) -> None:
    assert decode_cursor(encode_cursor(inspection_id)) == inspection_id


@given(st.text(max_size=40))
def test_any_other_cursor_is_refused(text: str) -> None:
    with contextlib.suppress(Refused):
        assert isinstance(decode_cursor(text), UUID)


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


def test_a_bucket_holds_a_minutes_requests_and_fills_evenly() -> None:
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


def test_the_broker_is_addressed_as_kombu_wants_it() -> None:
    assert broker_url("unix:///run/valkey.sock") == "redis+socket:///run/valkey.sock"
    assert broker_url("redis://:secret@host:6379/1") == "redis://:secret@host:6379/1"


def test_lost_workers_cannot_make_a_message_run_for_ever() -> None:
    celery = celery_settings(Settings())
    assert celery["task_acks_late"]
    assert not celery["task_reject_on_worker_lost"]
    assert celery["worker_prefetch_multiplier"] == 1
    assert celery["broker_transport_options"]["queue_order_strategy"] == "priority"
    assert celery["result_backend"] is None


def test_keys_are_needed_unless_only_this_machine_can_ask() -> None:
    assert not Settings(host="127.0.0.1").auth_required
    assert Settings(host="0.0.0.0").auth_required  # noqa: S104 - the case in question
    assert Settings(host="127.0.0.1", auth="on").auth_required


@pytest.mark.parametrize("url", ["s3://bucket/x", "file://relative", "relative", "file://host/x", "http://x/y"])
def test_a_store_that_is_no_folder_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="file:///absolute/path"):
        Settings(store_url=url)


def test_no_secret_shows_when_settings_are_printed() -> None:
    shown = repr(Settings(database_url="postgresql+psycopg://u:hidden@h/d", redis_url="redis://:hidden@h"))
    assert "hidden" not in shown


def test_a_file_of_the_store_is_whole_or_not_there(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/a%20store")
    staged = store.stage()
    staged.write(b"half of ")
    assert not store.holds("2026/01/02/x")
    staged.write(b"it")
    staged.flush()
    store.publish([(staged, "2026/01/02/x")])
    assert store.read("2026/01/02/x") == b"half of it"
    staged.discard()  # too late: it is published
    assert store.holds("2026/01/02/x")
    assert (tmp_path / "a store" / "2026" / "01" / "02" / "x").is_file()
    assert list((tmp_path / "a store" / "tmp").iterdir()) == []


def test_what_was_begun_and_never_published_is_swept_up_in_time(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}")
    staged = store.stage()
    staged.write(b"abandoned")
    staged.close()
    assert store.sweep(older_than_seconds=60) == 0
    assert store.sweep(older_than_seconds=-60) == 1
    assert not staged.path.exists()


def test_importing_the_api_imports_no_torch() -> None:
    script = "import sys, api.app, api.__main__; print(sorted(m for m in sys.modules if 'torch' in m or 'scipy' in m))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
