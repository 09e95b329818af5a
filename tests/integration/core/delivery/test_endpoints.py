"""Webhook endpoints: who is called, with which secret, and what becomes of pending deliveries."""

import base64
import dataclasses
import datetime as dt
import logging
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from core.delivery import endpoints
from core.delivery.endpoints import Endpoint
from core.errors import Code, Refused
from core.feed import events
from core.feed.events import Callback, Event, EventType
from core.intake import submission
from core.intake.submission import Accepted, NewInspection, Submission
from core.queue import batches, depths, finishing
from tests.integration.core.queue.test_work import IMAGE, claim, make_recipe, make_version, passed

URL = "https://mes.plant.example/hook"
COMPLETED = ["inspection.completed"]


def register(connection: Connection, url: str = URL, wanted: list[str] = COMPLETED, **settings: Any) -> Endpoint:
    return endpoints.create(connection, url, events=wanted, actor="test", **settings)


def happen(connection: Connection, callback: Callback | None = None) -> None:
    events.emit(connection, [Event(EventType.INSPECTION_COMPLETED, str(uuid4()), [], callback)])


def deliveries(connection: Connection) -> list[tuple[UUID, str, str, str | None, str]]:
    rows = connection.execute(
        text("SELECT endpoint_id, event, subject_id, callback_url, state FROM deliveries ORDER BY id")
    )
    return [tuple(row) for row in rows]


def states(connection: Connection, endpoint: Endpoint) -> list[str]:
    return [state for owner, *_, state in deliveries(connection) if owner == endpoint.id]


def audited(connection: Connection) -> list[tuple[str, dict[str, Any]]]:
    rows = connection.execute(
        text("SELECT action, detail FROM audit_events WHERE action LIKE 'webhook_endpoint.%' ORDER BY id")
    )
    return [tuple(row) for row in rows]


def test_an_endpoint_is_registered_and_found_again(engine: Engine) -> None:
    with engine.begin() as connection:
        made = register(connection, recipes=["ring", "not-yet-there"], description="the MES", max_group_size=50)
        assert (made.url, made.events, made.recipes) == (URL, COMPLETED, ["ring", "not-yet-there"])
        assert (made.state, made.disabled_because, made.failing_since) == ("enabled", None, None)
        assert (made.max_group_size, made.max_group_delay_ms, made.description) == (50, 0, "the MES")
        second = register(connection, "https://second.example/")
        assert endpoints.list_all(connection) == [made, second]
        assert endpoints.get(connection, made.id) == made


def test_an_unknown_endpoint_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        for use in (
            lambda: endpoints.get(connection, uuid4()),
            lambda: endpoints.change(connection, uuid4(), actor="test", description="x"),
            lambda: endpoints.enable(connection, uuid4(), actor="test"),
            lambda: endpoints.delete(connection, uuid4(), actor="test"),
            lambda: endpoints.rotate_secret(connection, uuid4(), actor="test"),
        ):
            with pytest.raises(Refused) as refused:
                use()
            assert refused.value.code is Code.NOT_FOUND
        assert not endpoints.disable(connection, uuid4(), "gone")
        assert audited(connection) == []


def test_what_is_changed_is_changed_and_the_rest_stays(engine: Engine) -> None:
    with engine.begin() as connection:
        made = register(connection, recipes=["ring"], max_group_size=7)
    with engine.begin() as connection:
        changed = endpoints.change(connection, made.id, actor="test", recipes=None, max_group_delay_ms=200)
        assert (changed.recipes, changed.max_group_delay_ms) == (None, 200)
        assert (changed.url, changed.max_group_size, changed.secret) == (made.url, 7, made.secret)
        assert changed.updated_at > made.updated_at == made.created_at


def test_a_disabled_endpoint_takes_its_pending_deliveries_along(engine: Engine) -> None:
    with engine.begin() as connection:
        mine, other = register(connection), register(connection, "https://other.example/")
        happen(connection)
        connection.execute(text("UPDATE deliveries SET state = 'delivered' WHERE endpoint_id = :id"), {"id": mine.id})
        happen(connection)
        assert endpoints.disable(connection, mine.id, "it answered 410 Gone")
        assert not endpoints.disable(connection, mine.id, "again")
        assert states(connection, mine) == ["delivered", "cancelled"]
        assert states(connection, other) == ["pending", "pending"]
        found = endpoints.get(connection, mine.id)
        assert (found.state, found.disabled_because) == ("disabled", "it answered 410 Gone")
        happen(connection)
        assert len(states(connection, mine)) == 2
        unfinished = "SELECT count(*) FROM deliveries WHERE state = 'cancelled' AND finished_at IS NULL"
        assert connection.execute(text(unfinished)).scalar_one() == 0


def test_an_endpoint_that_is_enabled_again_has_a_clean_record(engine: Engine) -> None:
    with engine.begin() as connection:
        made = register(connection)
        connection.execute(text("UPDATE webhook_endpoints SET failing_since = now()"))
        endpoints.disable(connection, made.id, "it failed for five days")
        enabled = endpoints.enable(connection, made.id, actor="test")
        assert (enabled.state, enabled.disabled_because, enabled.failing_since) == ("enabled", None, None)
        assert endpoints.enable(connection, made.id, actor="test") == enabled
        happen(connection)
        assert states(connection, made) == ["pending"]


def test_what_was_still_written_for_a_disabled_endpoint_is_not_sent_later(engine: Engine) -> None:
    with engine.begin() as connection:
        made = register(connection)
    with engine.begin() as late:
        happen(late)  # it has seen the endpoint enabled
        with engine.begin() as connection:
            endpoints.disable(connection, made.id, "why")
    with engine.begin() as connection:
        assert states(connection, made) == ["pending"]
        endpoints.enable(connection, made.id, actor="test")
        happen(connection)
        assert states(connection, made) == ["cancelled", "pending"]


def test_a_deleted_endpoint_is_gone_and_its_history_stays(engine: Engine) -> None:
    with engine.begin() as connection:
        made = register(connection)
        happen(connection)
        endpoints.delete(connection, made.id, actor="test")
        assert states(connection, made) == ["cancelled"]
        assert endpoints.list_all(connection) == []
        assert connection.execute(text("SELECT secret FROM webhook_endpoints")).scalar_one() == ""
        happen(connection)
        assert states(connection, made) == ["cancelled"]
        for again in (endpoints.delete, endpoints.enable, endpoints.rotate_secret):
            with pytest.raises(Refused):
                again(connection, made.id, actor="test")


def test_a_secret_is_long_random_and_its_own(engine: Engine) -> None:
    with engine.begin() as connection:
        secrets = [endpoints.signing_secrets(register(connection)) for _ in range(20)]
    assert len({secret for [secret] in secrets}) == 20
    for [secret] in secrets:
        assert secret.startswith("whsec_")
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64


def test_after_a_rotation_both_secrets_sign_for_a_day(engine: Engine) -> None:
    with engine.begin() as connection:
        made = register(connection)
        rotated = endpoints.rotate_secret(connection, made.id, actor="test")
    [first] = endpoints.signing_secrets(made)
    newest, previous = endpoints.signing_secrets(rotated)
    assert previous == first != newest
    until = rotated.previous_secret_until
    assert until is not None
    assert until - rotated.updated_at == dt.timedelta(hours=24)
    with engine.begin() as connection:
        again = endpoints.rotate_secret(connection, made.id, actor="test")
        assert endpoints.signing_secrets(again)[1] == newest
        connection.execute(text("UPDATE webhook_endpoints SET previous_secret_until = now() - interval '1 second'"))
        assert endpoints.signing_secrets(endpoints.get(connection, made.id)) == [again.secret.get_secret_value()]


def test_no_secret_is_in_a_text_an_error_a_log_or_the_audit(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.echo = True
    with caplog.at_level(logging.DEBUG), engine.begin() as connection:
        made = register(connection)
        rotated = endpoints.rotate_secret(connection, made.id, actor="test")
        endpoints.change(connection, made.id, actor="test", description="x")
        endpoints.disable(connection, made.id, "why", actor="test")
        endpoints.enable(connection, made.id, actor="test")
        endpoints.delete(connection, made.id, actor="test")
        trail = audited(connection)
    with engine.begin() as connection, pytest.raises(DBAPIError) as failed:
        register(connection, max_group_size=2**40)
    actions = ["created", "secret_rotated", "changed", "disabled", "enabled", "deleted"]
    assert [action for action, _ in trail] == [f"webhook_endpoint.{one}" for one in actions]
    assert trail[0][1]["url"] == URL
    told = f"{made!r} {rotated} {dataclasses.asdict(rotated)} {trail} {failed.value} {caplog.text}"
    assert "INSERT INTO webhook_endpoints" in caplog.text
    for secret in endpoints.signing_secrets(rotated):
        assert secret.removeprefix("whsec_") not in told


def test_a_callback_goes_to_the_endpoint_of_its_origin(engine: Engine) -> None:
    with engine.begin() as connection:
        first = register(connection, "https://mes.plant.example/a")
        second = register(connection, "https://MES.plant.example.:443/b")
        plain = register(connection, "http://mes.plant.example/a")
        gone = register(connection, "https://gone.example/")
        endpoints.disable(connection, gone.id, "why")
        registered = {
            "https://mes.plant.example/any?part=1": first,
            "https://mes.plant.example/a": first,
            "https://MES.plant.example.:443/b": second,
            "http://mes.plant.example:80/": plain,
        }
        elsewhere = ["https://mes.plant.example:8443/a", "https://gone.example/", "https://plant.example/", "no url"]
        found = endpoints.callbacks(connection, [*registered, *elsewhere])
        assert found == {url: Callback(endpoint.id, url) for url, endpoint in registered.items()}
        for url in elsewhere:
            with pytest.raises(Refused) as refused:
                endpoints.callback(connection, url)
            assert refused.value.code is Code.CALLBACK_UNREGISTERED


@pytest.fixture
def recipe_id(engine: Engine) -> int:
    with engine.begin() as connection:
        made = make_recipe(connection)
        make_version(connection)
        return made


def enter(connection: Connection, *callback_urls: str | None, batch_url: str | None = None) -> Accepted:
    new = [NewInspection(IMAGE, "ring", callback_url=url) for url in callback_urls]
    [accepted] = submission.accept(connection, [Submission(new, len(new) > 1, batch_url)])
    assert isinstance(accepted, Accepted), accepted
    return accepted


def examine(connection: Connection, recipe_id: int, accepted: Accepted) -> None:
    ids = [one.id for one in accepted.inspections]
    finishing.finish(connection, [passed(one) for one in claim(connection, recipe_id, ids)])


def test_an_inspection_calls_where_it_asked_to(engine: Engine, recipe_id: int) -> None:
    own = f"{URL}?order=7"
    with engine.begin() as connection:
        silent = register(connection, wanted=[])
        accepted = enter(connection, own)
        examine(connection, recipe_id, accepted)
        subject = str(accepted.inspections[0].id)
        assert deliveries(connection) == [(silent.id, "inspection.completed", subject, own, "pending")]


def test_a_callback_to_a_subscribed_address_is_one_delivery(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        endpoint = register(connection)
        examine(connection, recipe_id, enter(connection, URL))
        assert [(one[0], one[3]) for one in deliveries(connection)] == [(endpoint.id, None)]
        examine(connection, recipe_id, enter(connection, f"{URL}/2"))
        assert [one[3] for one in deliveries(connection)][1:] in ([None, f"{URL}/2"], [f"{URL}/2", None])


def test_a_burst_calls_once_for_the_batch_and_for_the_inspections_that_asked(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        endpoint = register(connection, wanted=[])
        accepted = enter(connection, None, f"{URL}/one", None, batch_url=f"{URL}/all")
        examine(connection, recipe_id, accepted)
        assert {one[1:4] for one in deliveries(connection)} == {
            ("inspection.completed", str(accepted.inspections[1].id), f"{URL}/one"),
            ("batch.completed", str(accepted.batch_id), f"{URL}/all"),
        }
        assert {one[0] for one in deliveries(connection)} == {endpoint.id}


def test_an_open_batch_calls_when_it_is_completed(engine: Engine) -> None:
    batch_id = uuid4()
    with engine.begin() as connection:
        register(connection, wanted=[])
        callback = endpoints.callback(connection, f"{URL}/all")
        batches.create(connection, batch_id, closed=False, callback=callback)
        assert deliveries(connection) == []
        assert batches.close(connection, batch_id)
        assert [one[1:4] for one in deliveries(connection)] == [("batch.completed", str(batch_id), f"{URL}/all")]


def test_an_endpoint_that_was_disabled_meanwhile_is_not_called_back(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        endpoint = register(connection, wanted=[])
        accepted = enter(connection, URL)
        endpoints.disable(connection, endpoint.id, "why")
        examine(connection, recipe_id, accepted)
        assert deliveries(connection) == []


def test_an_unregistered_callback_is_refused_and_harms_no_other(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        register(connection)

        def one(url: str | None) -> NewInspection:
            return NewInspection(IMAGE, "ring", callback_url=url)

        stranger = "https://stranger.example/"
        results = submission.accept(
            connection,
            [
                Submission([one(URL)]),
                Submission([one(stranger)]),
                Submission([one(URL), one(stranger)], as_batch=True),
                Submission([one(None)], as_batch=True, callback_url=stranger),
                Submission([one(None)]),
            ],
        )
        codes = [result.code if isinstance(result, Refused) else None for result in results]
        refused = Code.CALLBACK_UNREGISTERED
        assert codes == [None, refused, refused, refused, None]
        assert depths.total(connection) == 2
