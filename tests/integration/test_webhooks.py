"""Webhooks as receivers see them: real HTTP, real TLS, a real database; only Celery is left out."""

import datetime as dt
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import Engine, event, text
from standardwebhooks import Webhook, WebhookVerificationError

from core import deliveries, endpoints, events, model_versions, payloads, submission, targets, work
from core import sending as messages
from core.deliveries import Delivery
from core.errors import Refused
from core.events import Callback, Event, EventType
from core.settings import Settings
from core.submission import Accepted, NewInspection, Submission
from tests.events import IMAGE, MANIFEST, finish_inspections, make_recipe
from tests.receivers import DEADLINE_SECONDS, SECRET, Reply, private_authority, receiving
from worker import calls, lanes, webhooks
from worker.webhooks import Sender

OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - of this file only


def register(engine: Engine, url: str, **columns: Any) -> UUID:
    """An endpoint with a secret that is known here."""
    own = {"url": url, "secret": SECRET, "events": ["inspection.completed", "model.activated"], **columns}
    names = ", ".join(own)
    values = ", ".join(f":{name}" for name in own)
    with engine.begin() as connection:
        made = connection.execute(
            text(f"INSERT INTO webhook_endpoints ({names}) VALUES ({values}) RETURNING id"),  # noqa: S608 - names of ours
            own,
        )
        return UUID(str(made.scalar_one()))


@contextmanager
def sending(settings: Settings, *urls: str, **own: Any) -> Iterator[None]:
    """A sender that may call these addresses; it tries again after hardly any time unless told otherwise."""
    allowed = ",".join(urlsplit(url).netloc for url in urls)
    configuration = {"webhook_retry_seconds": (0.1,) * 7, "webhook_allow": allowed, **own}
    sender = Sender(settings.model_copy(update=configuration))
    sender.start()
    try:
        yield
    finally:
        sender.stop()


@pytest.fixture
def inspect(engine: Engine) -> Callable[..., list[UUID]]:
    """Inspects so many pictures of one recipe, each of which is an event."""
    make_recipe(engine)
    return lambda number=1: finish_inspections(engine, number)


def only(engine: Engine, endpoint_id: UUID) -> Delivery:
    with engine.begin() as connection:
        [found], _ = deliveries.list_page(connection, endpoint_id, state=None, before=None, limit=10)
        return found


def eventually(look: Callable[[], Any], wanted: Any) -> None:
    """Look until this is seen."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (seen := look()) != wanted:
        assert time.monotonic() < deadline, f"{seen!r} instead of {wanted!r}"
        time.sleep(0.02)


def endpoint_state(engine: Engine, endpoint_id: UUID) -> tuple[str, str | None]:
    with engine.begin() as connection:
        row = connection.execute(
            text("SELECT state, disabled_because FROM webhook_endpoints WHERE id = :id"), {"id": endpoint_id}
        ).one()
        return row.state, row.disabled_because


Inspect = Callable[..., list[UUID]]


def test_an_event_is_sent_signed_and_once(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(200, body=lambda: iter([b"th\x00ank\x1b[2J you"]))) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            [inspected] = inspect()
            [request] = receiver.wait()
            eventually(lambda: only(engine, endpoint_id).state, "delivered")
    found = only(engine, endpoint_id)
    told = request.verified()
    assert set(told) == {"type", "timestamp", "data"}
    assert told["type"] == "inspection.completed"
    assert dt.datetime.fromisoformat(told["timestamp"]) == found.occurred_at
    assert (told["data"]["id"], told["data"]["verdict"]) == (str(inspected), "ok")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("Linewatch/")
    assert request.headers["host"] == urlsplit(url).netloc
    assert request.id == str(found.message_id) == str(found.id)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER_SECRET).verify(request.body, dict(request.headers))
    [attempt] = found.attempts
    assert (found.tries, attempt.outcome, attempt.status, attempt.answer) == (1, "delivered", 200, "th ank [2J you")
    assert found.next_try_at is None
    assert len(receiver.requests) == 1


def test_other_nouns(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, events=["model.activated", "batch.completed"])
        with engine.begin() as connection:
            for sha256 in (b"\3", b"\4"):
                made, _ = model_versions.register(
                    connection, "ring", sha256=sha256 * 32, manifest=MANIFEST, actor="test"
                )
                model_versions.mark_ready(connection, made.id)
            model_versions.activate(connection, "ring", 3, actor="test")
            deliveries.send_test(connection, endpoint_id)
            [batch] = submission.accept(connection, [Submission([NewInspection(IMAGE, "ring")], as_batch=True)])
            assert isinstance(batch, Accepted)
            work.cancel(connection, batch.inspections[0].id)
        told = {one["type"]: one["data"] for one in (request.verified() for request in receiver.wait(3))}
    assert told["model.activated"]["version"] == 3
    assert "manifest" not in told["model.activated"]
    assert told["batch.completed"]["id"] == str(batch.batch_id)
    assert told["batch.completed"]["counts"]["cancelled"] == 1
    assert set(told["endpoint.test"]) == {"endpoint_id", "message"}
    assert told["endpoint.test"]["endpoint_id"] == str(endpoint_id)


def test_what_fails_is_tried_again_under_the_same_id(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    statuses = [500, 404, 302, 204]
    with receiving(lambda number, _: Reply(statuses[number], {"Location": "/elsewhere"})) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(0.5,) * 3):
            inspect()
            requests = receiver.wait(4)
            eventually(lambda: only(engine, endpoint_id).state, "delivered")
    assert {(request.id, request.path) for request in requests} == {(requests[0].id, "/hook")}
    assert len({request.headers["webhook-timestamp"] for request in requests}) > 1  # each is signed anew
    for request in requests:
        request.verified()
    found = only(engine, endpoint_id)
    assert [one.status for one in found.attempts] == statuses
    assert [one.outcome for one in found.attempts] == ["refused_status"] * 3 + ["delivered"]
    assert len(receiver.requests) == 4


def test_the_last_try(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(503)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(0.05, 0.05)):
            inspect()
            eventually(lambda: only(engine, endpoint_id).state, "exhausted")
    found = only(engine, endpoint_id)
    assert (found.tries, len(found.attempts), len(receiver.requests)) == (3, 3, 3)
    assert found.next_try_at is None
    assert found.finished_at is not None


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after(engine: Engine, settings: Settings, inspect: Inspect, as_date: bool) -> None:
    def busy(number: int, _: Any) -> Reply:
        until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=3600)
        return Reply(429, {"Retry-After": format_datetime(until, usegmt=True) if as_date else "3600"})

    with receiving(busy) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries, 1)
    found = only(engine, endpoint_id)
    assert found.next_try_at is not None
    assert 3598 <= (found.next_try_at - found.attempts[0].at).total_seconds() < 3610
    assert len(receiver.requests) == 1


def test_an_endpoint_that_is_gone_is_disabled(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(410)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: endpoint_state(engine, endpoint_id), ("disabled", "answered 410 Gone"))
            assert only(engine, endpoint_id).attempts[0].outcome == "gone"
            found = only(engine, endpoint_id)
            assert (found.state, found.tries) == ("cancelled", 1)
            inspect()  # an event that it is not told of
    assert len(receiver.requests) == 1
    with engine.begin() as connection, pytest.raises(Refused, match="disabled"):
        deliveries.replay(connection, only(engine, endpoint_id).id)


def test_what_waits_for_an_endpoint_that_is_gone_is_not_sent(
    engine: Engine, settings: Settings, inspect: Inspect
) -> None:
    with receiving(lambda number, _: Reply(200 if number == 0 else 410)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            receiver.wait()
            inspect(60)
            eventually(lambda: endpoint_state(engine, endpoint_id), ("disabled", "answered 410 Gone"))
    assert len(receiver.requests) <= 1 + lanes.CALLS_OF_LANE


def test_what_waits_is_not_sent_once_its_endpoint_is_disabled(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "FRESH_SECONDS", 0.2)
    over = threading.Event()

    def hang(*_: Any) -> Reply:
        over.wait(DEADLINE_SECONDS)
        return Reply()

    with receiving(hang) as (slow, slow_url), receiving() as (alive, url), sending(settings, slow_url, url):
        endpoint_id = register(engine, slow_url)
        try:
            inspect(4)
            last = slow.wait(2)[-1]
            with engine.begin() as connection:
                endpoints.disable(connection, endpoint_id, "by hand")
            eventually(lambda: time.monotonic() > last.at + 0.2, True)
        finally:
            over.set()
        register(engine, url)
        inspect()
        alive.wait()
    assert len(slow.requests) == 2


def test_what_waits_goes_to_where_its_endpoint_is_now(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "FRESH_SECONDS", 0.2)
    over = threading.Event()

    def hang(*_: Any) -> Reply:
        over.wait(DEADLINE_SECONDS)
        return Reply()

    with receiving(hang) as (before, old_url), receiving() as (after, url), sending(settings, old_url, url):
        endpoint_id = register(engine, old_url)
        try:
            inspect(4)
            last = before.wait(2)[-1]
            with engine.begin() as connection:
                endpoints.change(connection, endpoint_id, actor="test", url=url)
                secret = endpoints.rotate_secret(connection, endpoint_id, actor="test").secret.get_secret_value()
            eventually(lambda: time.monotonic() > last.at + 0.2, True)
        finally:
            over.set()
        for request in after.wait(2):
            request.verified(secret)
    assert len(before.requests) == 2


def test_an_endpoint_that_fails_for_days_is_disabled(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(500)) as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect()
        receiver.wait(2)
        assert endpoint_state(engine, endpoint_id) == ("enabled", None)
        with engine.begin() as connection:
            connection.execute(text("UPDATE webhook_endpoints SET failing_since = failing_since - interval '5 days'"))
        disabled = ("disabled", "nothing but failures for 5 days")
        eventually(lambda: endpoint_state(engine, endpoint_id), disabled)


def test_a_success_ends_the_failing(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda number, _: Reply(500 if number == 0 else 200)) as (_, url), sending(settings, url):
        endpoint_id = register(engine, url, failing_since=dt.datetime.now(dt.UTC) - dt.timedelta(days=4))
        inspect()
        eventually(lambda: only(engine, endpoint_id).state, "delivered")
        with engine.begin() as connection:
            assert connection.execute(text("SELECT failing_since FROM webhook_endpoints")).scalar_one() is None
    assert endpoint_state(engine, endpoint_id) == ("enabled", None)


def test_a_receiver_that_never_answers_delays_no_other(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    hung = threading.Event()

    def hang(*_: Any) -> Reply:
        hung.wait(DEADLINE_SECONDS)
        return Reply()

    with receiving(hang) as (dead, dead_url), receiving() as (alive, url):
        register(engine, dead_url)
        endpoint_id = register(engine, url)
        try:
            with sending(settings, dead_url, url):
                inspect(100)
                dead.wait(2)
                alive.wait(100)
                eventually(
                    lambda: {one.state for one in page(engine, endpoint_id)},
                    {"delivered"},
                )
                assert len(dead.requests) == 2
                hung.set()
        finally:
            hung.set()


def test_many_that_never_answer_leave_places_for_one_that_does(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(lanes, "MAX_CALLS", 64)
    monkeypatch.setattr(calls, "TRY_SECONDS", 2 * DEADLINE_SECONDS)
    over = threading.Event()

    def hang(*_: Any) -> Reply:
        over.wait(2 * DEADLINE_SECONDS)
        return Reply()

    with receiving(hang) as (dead, dead_url), receiving() as (alive, url):
        for number in range(20):
            register(engine, f"{dead_url}/{number}")
        inspect(10)
        try:
            with sending(settings, dead_url, url):
                dead.wait(40)
                register(engine, url)
                inspect(50)
                alive.wait(50)
                over.set()
        finally:
            over.set()


def test_those_that_turn_slow_keep_half_of_the_places_at_most(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(lanes, "MAX_CALLS", 16)
    monkeypatch.setattr(calls, "TRY_SECONDS", 2 * DEADLINE_SECONDS)
    over, slow = threading.Event(), threading.Event()

    def hang_later(*_: Any) -> Reply:
        if slow.is_set():
            over.wait(2 * DEADLINE_SECONDS)
        return Reply()

    with (
        receiving(hang_later) as (dead, dead_url),
        receiving() as (alive, url),
        sending(settings, dead_url, url),
    ):
        try:
            for number in range(3):
                register(engine, f"{dead_url}/{number}")
            inspect()
            eventually(lambda: states(engine), {"delivered"})
            slow.set()
            inspect(20)
            dead.wait(3 + 8)
            register(engine, url)
            inspect()
            alive.wait()
        finally:
            over.set()


def test_a_place_that_becomes_free_is_for_the_next_endpoint(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MAX_CALLS", 1)
    with receiving() as (receiver, url):
        register(engine, f"{url}/busy")
        other = register(engine, f"{url}/other", events=[])
        inspect(50)
        with engine.begin() as connection:
            deliveries.send_test(connection, other)
        with sending(settings, url):
            paths = [request.path for request in receiver.wait(51)]
    assert paths.index("/hook/other") <= 2 * lanes.HELD_CAREFULLY


def test_a_failing_endpoint_gets_one_request_at_a_time(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    over = threading.Event()

    def hang(*_: Any) -> Reply:
        over.wait(DEADLINE_SECONDS)
        return Reply()

    with receiving(hang) as (dead, dead_url), receiving() as (alive, url), sending(settings, dead_url, url):
        register(engine, dead_url, failing_since=dt.datetime.now(dt.UTC))
        register(engine, url)
        try:
            inspect(100)
            dead.wait(1)
            alive.wait(100)
            assert len(dead.requests) == 1
        finally:
            over.set()


def test_several_senders_share_the_work(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    """Nothing is sent twice, no group is torn, and neither waits for the other."""
    with receiving() as (alone, alone_url), receiving() as (grouped, grouped_url):
        register(engine, alone_url)
        register(engine, grouped_url, max_group_size=7, max_group_delay_ms=100)
        with sending(settings, alone_url, grouped_url), sending(settings, alone_url, grouped_url):
            inspected = [one for _ in range(20) for one in inspect(15)]
            alone.wait(300)
            eventually(lambda: states(engine), {"delivered"})
    assert sorted(one.verified()["data"]["id"] for one in alone.requests) == sorted(map(str, inspected))
    told = [one["data"]["id"] for request in grouped.requests for one in request.verified()["data"]]
    assert sorted(told) == sorted(map(str, inspected))
    assert len({one.id for one in grouped.requests}) == len(grouped.requests)
    assert all(len(request.verified()["data"]) <= 7 for request in grouped.requests)


def states(engine: Engine) -> set[str]:
    with engine.begin() as connection:
        return set(connection.execute(text("SELECT DISTINCT state FROM deliveries")).scalars())


def page(engine: Engine, endpoint_id: UUID) -> list[Delivery]:
    with engine.begin() as connection:
        return deliveries.list_page(connection, endpoint_id, state=None, before=None, limit=1000)[0]


def test_a_sender_that_stops_gives_back_what_is_in_flight(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one sends it at once, although its lease has not run out."""
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    hung = threading.Event()

    def hang_at_first(number: int, _: Any) -> Reply:
        if number == 0:
            hung.wait(DEADLINE_SECONDS)
        return Reply()

    with receiving(hang_at_first) as (receiver, url):
        endpoint_id = register(engine, url)
        try:
            with sending(settings, url):
                inspect()
                receiver.wait(1)
            assert only(engine, endpoint_id).state == "pending"
            with sending(settings, url):
                first, second = receiver.wait(2, seconds=10)
                eventually(lambda: only(engine, endpoint_id).state, "delivered")
        finally:
            hung.set()
    assert first.id == second.id


def test_a_huge_answer_is_not_read(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 64 * 1024
            yield b"x" * (64 * 1024)

    with receiving(lambda *_: Reply(200, {"Content-Encoding": "gzip"}, endless)) as (_, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect()
        eventually(lambda: only(engine, endpoint_id).state, "delivered")
        assert only(engine, endpoint_id).attempts[0].answer == "x" * 500
    assert sent < 32 * 1024 * 1024  # what the kernel's buffers took


def test_both_secrets_sign_while_a_secret_is_rotated(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    now = dt.datetime.now(dt.UTC)
    rotated = {"secret": OTHER_SECRET, "previous_secret": SECRET}
    with (
        receiving() as (during, during_url),
        receiving() as (after, after_url),
        sending(settings, during_url, after_url),
    ):
        register(engine, during_url, previous_secret_until=now + dt.timedelta(hours=1), **rotated)
        register(engine, after_url, previous_secret_until=now - dt.timedelta(seconds=1), **rotated)
        inspect()
        [one] = during.wait()
        [other] = after.wait()
    assert one.verified(SECRET) == one.verified(OTHER_SECRET)
    assert other.verified(OTHER_SECRET)
    with pytest.raises(WebhookVerificationError):
        other.verified(SECRET)


def test_replay(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect()
        eventually(lambda: only(engine, endpoint_id).state, "delivered")
        with engine.begin() as connection:
            replayed = deliveries.replay(connection, only(engine, endpoint_id).id)
        assert (replayed.state, replayed.tries, replayed.finished_at) == ("pending", 0, None)
        first, second = receiver.wait(2)
        eventually(lambda: only(engine, endpoint_id).state, "delivered")
    assert first.id == second.id
    assert only(engine, endpoint_id).tries == 1
    assert len(only(engine, endpoint_id).attempts) == 2


def test_a_pending_one_is_tried_at_once_on_request(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda number, _: Reply(500 if number == 0 else 200)) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_retry_seconds=(3600.0,)):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries, 1)
            with engine.begin() as connection:
                assert deliveries.replay(connection, only(engine, endpoint_id).id).tries == 1
            receiver.wait(2)
            eventually(lambda: only(engine, endpoint_id).state, "delivered")


def test_what_it_tells_of_is_gone(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url):
        endpoint_id = register(engine, url)
        inspected = inspect(2)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM inspections WHERE id = :id"), {"id": inspected[0]})
        with sending(settings, url):
            [request] = receiver.wait()
            eventually(
                lambda: {one.subject_id: one.state for one in page(engine, endpoint_id)},
                {str(inspected[0]): "cancelled", str(inspected[1]): "delivered"},
            )
    assert request.verified()["data"]["id"] == str(inspected[1])
    assert len(receiver.requests) == 1


def test_groups(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    """Full groups go at once, the rest when its oldest event has waited; a retry is the same group."""
    failed: set[str] = set()

    def fail_each_once(_: int, request: Any) -> Reply:
        known = request.id in failed
        failed.add(request.id)
        return Reply(200 if known else 500)

    with receiving(fail_each_once) as (receiver, url):
        endpoint_id = register(engine, url, max_group_size=4, max_group_delay_ms=2000)
        inspected = inspect(10)
        with sending(settings, url):
            requests = receiver.wait(6)
            eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered"})
    bodies: dict[str, set[str]] = {}
    for request in requests:
        told = request.verified()
        assert told["type"] == "group"
        shown = json.dumps([(one["id"], one["type"], one["data"]["id"]) for one in told["data"]])
        bodies.setdefault(request.id, set()).add(shown)
    assert [len(bodies), *{len(one) for one in bodies.values()}] == [3, 1]
    groups = [json.loads(shown) for [shown] in bodies.values()]
    assert sorted(len(one) for one in groups) == [2, 4, 4]
    assert [subject for one in groups for _, _, subject in one] == [str(one) for one in inspected]
    found = {str(one.id): one for one in page(engine, endpoint_id)}
    assert {delivery_id for one in groups for delivery_id, _, _ in one} == set(found)
    rest = next(request for request in requests if len(request.verified()["data"]) == 2)
    waited = rest.headers["webhook-timestamp"]
    assert int(waited) >= int(next(iter(found.values())).occurred_at.timestamp()) + 2


def test_a_group_is_sent_again_as_a_group(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=60_000)
        inspect(5)
        receiver.wait(1)
        eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered"})
        with engine.begin() as connection:
            connection.execute(text("UPDATE webhook_endpoints SET max_group_size = 1"))
            deliveries.replay(connection, page(engine, endpoint_id)[2].id)
        first, second = receiver.wait(2)
    assert first.id == second.id
    assert first.verified() == second.verified()


def test_a_group_of_one_is_a_group(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=100)
        inspect()
        [request] = receiver.wait()
        told = request.verified()
    assert (told["type"], len(told["data"])) == ("group", 1)
    assert request.id != told["data"][0]["id"] == str(only(engine, endpoint_id).id)


def test_a_callback_goes_to_its_own_address_and_into_no_group(
    engine: Engine, settings: Settings, inspect: Inspect
) -> None:
    with receiving() as (receiver, url), sending(settings, url):
        endpoint_id = register(engine, url, max_group_size=5, max_group_delay_ms=60_000)
        inspect(3)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE deliveries SET callback_url = :url, next_try_at = now() WHERE id = :id"),
                {"url": url + "/of-its-own", "id": page(engine, endpoint_id)[0].id},
            )
        [request] = receiver.wait()
        eventually(lambda: sorted(one.state for one in page(engine, endpoint_id)), ["delivered", "pending", "pending"])
    assert request.path == "/hook/of-its-own"
    assert request.verified()["type"] == EventType.INSPECTION_COMPLETED


def make_callbacks(engine: Engine, url: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE deliveries SET callback_url = :url WHERE state = 'pending'"), {"url": url})


def test_a_callback_that_is_gone_ends_alone(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    gone = lambda _, request: Reply(410 if request.path.endswith("/own") else 200)  # noqa: E731
    with receiving(gone) as (receiver, url):
        endpoint_id = register(engine, url)
        inspect()
        make_callbacks(engine, f"{url}/own")
        inspect()
        with sending(settings, url):
            eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered", "exhausted"})
    [called] = [one for one in page(engine, endpoint_id) if one.state == "exhausted"]
    assert (called.tries, [one.outcome for one in called.attempts]) == (1, ["gone"])
    assert endpoint_state(engine, endpoint_id) == ("enabled", None)
    assert len(receiver.requests) == 2


def test_callbacks_that_fail_leave_their_endpoint_as_it_is(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not noted as failing, and its events are sent as many at a time as ever."""
    monkeypatch.setattr(webhooks, "STOP_SECONDS", 0.5)
    over, hanging = threading.Event(), threading.Event()

    def answer(_: int, request: Any) -> Reply:
        if request.path.endswith("/own"):
            return Reply(500)
        if hanging.is_set():
            over.wait(DEADLINE_SECONDS)
        return Reply()

    with receiving(answer) as (receiver, url):
        endpoint_id = register(engine, url)
        called = Callback(endpoint_id, f"{url}/own")
        try:
            with sending(settings, url, webhook_retry_seconds=(0.05,)):
                [inspected] = inspect()
                eventually(lambda: states(engine), {"delivered"})
                with engine.begin() as connection:
                    failed = Event(EventType.INSPECTION_FAILED, str(inspected), [], called)
                    events.emit(connection, [failed] * 10)
                eventually(lambda: {one.state for one in page(engine, endpoint_id)[:10]}, {"exhausted"})
                with engine.begin() as connection:
                    assert endpoints.get(connection, endpoint_id).failing_since is None
                hanging.set()
                inspect(20)
                receiver.wait(20 + 1 + lanes.CALLS_OF_LANE)
                over.set()
        finally:
            over.set()


@pytest.mark.parametrize("hangs", [False, True])
def test_a_name_is_reached_at_the_next_of_its_addresses(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(calls, "TRY_SECONDS", 2.0)
    monkeypatch.setattr(targets, "addresses_of", lambda *_: ["127.0.0.2", "127.0.0.1"])
    with receiving() as (receiver, url), ExitStack() as stack:
        port = urlsplit(url).port
        if hangs:  # a queue of connections that is full
            stack.enter_context(socket.create_server(("127.0.0.2", port), backlog=0))
            for _ in range(2):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.2", port))
        endpoint_id = register(engine, f"http://localhost:{port}/hook")
        with sending(settings, webhook_allow=f"localhost:{port}, 127.0.0.2:{port}"):
            inspect(5)
            eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered"})
    assert {one.tries for one in page(engine, endpoint_id)} == {1}
    assert {request.headers["host"] for request in receiver.requests} == {f"localhost:{port}"}


def test_a_failure_that_nobody_foresaw_is_told_and_does_not_end_the_sending(
    engine: Engine,
    settings: Settings,
    inspect: Inspect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    close, failed = Sender._close_idle_lanes, threading.Event()

    async def fail_once(sender: Sender) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a bug")
        await close(sender)

    monkeypatch.setattr(Sender, "_close_idle_lanes", fail_once)
    with receiving() as (receiver, url), sending(settings, url):
        register(engine, url)
        assert failed.wait(DEADLINE_SECONDS)
        inspect()
        receiver.wait()
    assert "RuntimeError: a bug" in caplog.text


def test_tls_with_an_authority_of_ones_own(
    engine: Engine, settings: Settings, inspect: Inspect, tmp_path: Path
) -> None:
    ca_file, tls = private_authority(tmp_path, "localhost")
    with receiving(tls=tls) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries > 0, True)
        assert {one.outcome for one in only(engine, endpoint_id).attempts} == {"tls_failed"}
        assert receiver.requests == []
        with sending(settings, url, webhook_ca_file=ca_file):
            [request] = receiver.wait()
            eventually(lambda: only(engine, endpoint_id).state, "delivered")
    assert request.headers["host"] == urlsplit(url).netloc
    request.verified()


def test_a_certificate_for_another_name_is_not_trusted(
    engine: Engine, settings: Settings, inspect: Inspect, tmp_path: Path
) -> None:
    ca_file, tls = private_authority(tmp_path, "mes.example")
    with receiving(tls=tls) as (receiver, url):
        endpoint_id = register(engine, url)
        with sending(settings, url, webhook_ca_file=ca_file):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries > 0, True)
        assert {one.outcome for one in only(engine, endpoint_id).attempts} == {"tls_failed"}
        assert receiver.requests == []


def test_targets_are_judged_again_when_they_are_called(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (receiver, url), receiving() as (_, other):
        endpoint_id = register(engine, url)
        with sending(settings, other):
            inspect()
            eventually(lambda: only(engine, endpoint_id).tries > 0, True)
        assert only(engine, endpoint_id).attempts[0].outcome == "target_refused"
        assert receiver.requests == []
        with sending(settings, url):
            receiver.wait()


def test_nobody_listens(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (_, url):
        pass
    endpoint_id = register(engine, url)
    with sending(settings, url):
        inspect()
        eventually(lambda: only(engine, endpoint_id).tries > 0, True)
    assert only(engine, endpoint_id).attempts[0].outcome == "unreachable"


def test_a_try_has_its_time(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer is a failure; a status whose body never ends is what it says."""
    monkeypatch.setattr(calls, "TRY_SECONDS", 0.5)
    over = threading.Event()

    def trickle() -> Iterator[bytes]:
        while not over.wait(0.05):
            yield b"."

    def answer(number: int, _: Any) -> Reply:
        if number == 0:
            over.wait(DEADLINE_SECONDS)
        return Reply(body=trickle)

    with receiving(answer) as (_, url), sending(settings, url):
        endpoint_id = register(engine, url)
        try:
            inspect()
            eventually(lambda: only(engine, endpoint_id).state, "delivered")
        finally:
            over.set()
    first, second = only(engine, endpoint_id).attempts
    assert (first.outcome, first.status) == ("timed_out", None)
    assert (second.outcome, second.answer[:2]) == ("delivered", "..")
    assert first.duration_ms >= 500
    assert second.duration_ms >= 500


def test_what_is_no_http(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        endpoint_id = register(engine, url)
        with sending(settings, url):
            inspect()
            for talk in (b"220 mail.example ESMTP\r\n\r\n", b""):
                connection, _ = server.accept()
                with connection:
                    request = b""
                    while not request.endswith(b"}}"):  # all of it, or closing would reset the connection
                        request += connection.recv(65536)
                    connection.sendall(talk)
            eventually(lambda: only(engine, endpoint_id).tries >= 2, True)
    assert [one.outcome for one in only(engine, endpoint_id).attempts[:2]] == ["bad_answer", "unreachable"]


def test_a_receiver_leaves_no_cookies(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving(lambda *_: Reply(200, {"Set-Cookie": "a=b"})) as (receiver, url), sending(settings, url):
        register(engine, url)
        inspect(10)
        assert all("cookie" not in request.headers for request in receiver.wait(10))


def test_proxies_of_the_environment_are_not_used(
    engine: Engine, settings: Settings, inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as (receiver, url), receiving() as (proxy, proxy_url):
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy_url)
        with sending(settings, url):
            register(engine, url)
            inspect()
            receiver.wait()
        assert proxy.requests == []


def test_a_claim_is_bounded_by_its_events(engine: Engine) -> None:
    """Whatever is left is claimed next; each endpoint's first message comes before anyone's second."""
    size = messages.EVENTS_AT_ONCE // 5
    ids = [register(engine, f"http://127.0.0.1/{number}", max_group_size=size) for number in range(8)]
    with engine.begin() as connection:
        events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), []) for n in range(2 * size)])
    claimed: list[list[messages.Message]] = []
    while not claimed or claimed[-1]:
        with engine.begin() as connection:
            claimed.append(messages.claim(connection, {}, room=64))
    assert [sum(len(one.claims) for one in each) for each in claimed] == [1000, 1000, 1000, 200, 0]
    assert len({one.endpoint_id for one in claimed[0]}) == 5
    assert {one.endpoint_id for each in claimed for one in each} == set(ids)


def test_a_message_is_claimed_however_many_events_it_brings(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "EVENTS_AT_ONCE", 10)
    register(engine, "http://127.0.0.1/", max_group_size=25)
    with engine.begin() as connection:
        events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(UUID(int=n)), []) for n in range(25)])
        [message] = messages.claim(connection, {}, room=64)
    assert len(message.claims) == 25


def test_what_many_events_tell_of_is_read_at_once(engine: Engine, inspect: Inspect) -> None:
    with engine.begin() as connection:
        new = Submission([NewInspection(IMAGE, "ring")], as_batch=True)
        accepted = submission.accept(connection, [new] * 20)
    ids = [str(one.batch_id) for one in accepted if isinstance(one, Accepted)]
    now = dt.datetime.now(dt.UTC)
    claims = [messages.Claim(UUID(int=n), 1, EventType.BATCH_COMPLETED, one, now) for n, one in enumerate(ids)]
    statements: list[str] = []
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: statements.append(given[2]))
        told = payloads.documents(connection, claims)
    assert [told[UUID(int=number)]["id"] for number in range(20)] == ids
    assert len(statements) == 1


def test_old_deliveries_are_forgotten(engine: Engine, settings: Settings, inspect: Inspect) -> None:
    with receiving() as (_, url), sending(settings, url):
        endpoint_id = register(engine, url)
        inspect(3)
        eventually(lambda: {one.state for one in page(engine, endpoint_id)}, {"delivered"})
    now = dt.datetime.now(dt.UTC)
    with engine.begin() as connection:
        assert deliveries.forget(connection, at_most=10, now=now + dt.timedelta(days=29)) == 0
        assert deliveries.forget(connection, at_most=2, now=now + dt.timedelta(days=31)) == 2
        assert deliveries.forget(connection, at_most=10, now=now + dt.timedelta(days=31)) == 1
        for table in ("deliveries", "delivery_attempts"):
            assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0  # noqa: S608
