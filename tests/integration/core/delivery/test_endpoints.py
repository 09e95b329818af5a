"""Webhook endpoints: callbacks, secrets, and pending deliveries."""

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
from tests.fixtures.queued_work import IMAGE, claim, passed

URL = "https://mes.plant.example/hook"
COMPLETED = ["inspection.completed"]


def register(connection: Connection, url: str = URL, events: list[str] = COMPLETED, **settings: Any) -> Endpoint:
    return endpoints.create(connection, url, events=events, actor="test", **settings)


def record_event(connection: Connection, callback: Callback | None = None) -> None:
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


def test_an_endpoint_is_registered_and_read_back(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = register(connection, recipes=["ring", "not-yet-there"], description="the MES", max_group_size=50)
        assert (endpoint.url, endpoint.events, endpoint.recipes) == (URL, COMPLETED, ["ring", "not-yet-there"])
        assert (endpoint.state, endpoint.disabled_because, endpoint.failing_since) == ("enabled", None, None)
        assert (endpoint.max_group_size, endpoint.max_group_delay_ms, endpoint.description) == (50, 0, "the MES")
        second = register(connection, "https://second.example/")
        assert endpoints.list_all(connection) == [endpoint, second]
        assert endpoints.get(connection, endpoint.id) == endpoint


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


def test_an_update_changes_only_the_given_fields(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = register(connection, recipes=["ring"], max_group_size=7)
    with engine.begin() as connection:
        changed = endpoints.change(connection, endpoint.id, actor="test", recipes=None, max_group_delay_ms=200)
        assert (changed.recipes, changed.max_group_delay_ms) == (None, 200)
        assert (changed.url, changed.max_group_size, changed.secret) == (endpoint.url, 7, endpoint.secret)
        assert changed.updated_at > endpoint.updated_at == endpoint.created_at


def test_disabling_an_endpoint_ends_its_pending_deliveries(engine: Engine) -> None:
    with engine.begin() as connection:
        mine, other = register(connection), register(connection, "https://other.example/")
        record_event(connection)
        connection.execute(text("UPDATE deliveries SET state = 'delivered' WHERE endpoint_id = :id"), {"id": mine.id})
        record_event(connection)
        assert endpoints.disable(connection, mine.id, "it answered 410 Gone")
        assert not endpoints.disable(connection, mine.id, "again")
        assert states(connection, mine) == ["delivered", "cancelled"]
        assert states(connection, other) == ["pending", "pending"]
        endpoint = endpoints.get(connection, mine.id)
        assert (endpoint.state, endpoint.disabled_because) == ("disabled", "it answered 410 Gone")
        record_event(connection)
        assert len(states(connection, mine)) == 2
        unfinished = "SELECT count(*) FROM deliveries WHERE state = 'cancelled' AND finished_at IS NULL"
        assert connection.execute(text(unfinished)).scalar_one() == 0


def test_enabling_an_endpoint_resets_its_failures(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = register(connection)
        connection.execute(text("UPDATE webhook_endpoints SET failing_since = now()"))
        endpoints.disable(connection, endpoint.id, "it failed for five days")
        enabled = endpoints.enable(connection, endpoint.id, actor="test")
        assert (enabled.state, enabled.disabled_because, enabled.failing_since) == ("enabled", None, None)
        assert endpoints.enable(connection, endpoint.id, actor="test") == enabled
        record_event(connection)
        assert states(connection, endpoint) == ["pending"]


def test_deliveries_written_while_an_endpoint_is_disabled_are_not_sent_later(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = register(connection)
    with engine.begin() as late:
        record_event(late)  # this transaction has read the endpoint as enabled
        with engine.begin() as connection:
            endpoints.disable(connection, endpoint.id, "why")
    with engine.begin() as connection:
        assert states(connection, endpoint) == ["pending"]
        endpoints.enable(connection, endpoint.id, actor="test")
        record_event(connection)
        assert states(connection, endpoint) == ["cancelled", "pending"]


def test_deleting_an_endpoint_keeps_its_history(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = register(connection)
        record_event(connection)
        endpoints.delete(connection, endpoint.id, actor="test")
        assert states(connection, endpoint) == ["cancelled"]
        assert endpoints.list_all(connection) == []
        assert connection.execute(text("SELECT secret FROM webhook_endpoints")).scalar_one() == ""
        record_event(connection)
        assert states(connection, endpoint) == ["cancelled"]
        for again in (endpoints.delete, endpoints.enable, endpoints.rotate_secret):
            with pytest.raises(Refused):
                again(connection, endpoint.id, actor="test")


def test_each_endpoint_has_its_own_long_random_secret(engine: Engine) -> None:
    with engine.begin() as connection:
        secrets = [endpoints.signing_secrets(register(connection)) for _ in range(20)]
    assert len({secret for [secret] in secrets}) == 20
    for [secret] in secrets:
        assert secret.startswith("whsec_")
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64


def test_after_a_rotation_both_secrets_sign_for_a_day(engine: Engine) -> None:
    with engine.begin() as connection:
        endpoint = register(connection)
        rotated = endpoints.rotate_secret(connection, endpoint.id, actor="test")
    [first] = endpoints.signing_secrets(endpoint)
    newest, previous = endpoints.signing_secrets(rotated)
    assert previous == first != newest
    until = rotated.previous_secret_until
    assert until is not None
    assert until - rotated.updated_at == dt.timedelta(hours=24)
    with engine.begin() as connection:
        again = endpoints.rotate_secret(connection, endpoint.id, actor="test")
        assert endpoints.signing_secrets(again)[1] == newest
        connection.execute(text("UPDATE webhook_endpoints SET previous_secret_until = now() - interval '1 second'"))
        assert endpoints.signing_secrets(endpoints.get(connection, endpoint.id)) == [again.secret.get_secret_value()]


def test_no_secret_is_in_a_repr_an_error_a_log_or_the_audit(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    engine.echo = True
    with caplog.at_level(logging.DEBUG), engine.begin() as connection:
        endpoint = register(connection)
        rotated = endpoints.rotate_secret(connection, endpoint.id, actor="test")
        endpoints.change(connection, endpoint.id, actor="test", description="x")
        endpoints.disable(connection, endpoint.id, "why", actor="test")
        endpoints.enable(connection, endpoint.id, actor="test")
        endpoints.delete(connection, endpoint.id, actor="test")
        trail = audited(connection)
    with engine.begin() as connection, pytest.raises(DBAPIError) as failed:
        register(connection, max_group_size=2**40)
    actions = ["created", "secret_rotated", "changed", "disabled", "enabled", "deleted"]
    assert [action for action, _ in trail] == [f"webhook_endpoint.{verb}" for verb in actions]
    assert trail[0][1]["url"] == URL
    output = f"{endpoint!r} {rotated} {dataclasses.asdict(rotated)} {trail} {failed.value} {caplog.text}"
    assert "INSERT INTO webhook_endpoints" in caplog.text
    for secret in endpoints.signing_secrets(rotated):
        assert secret.removeprefix("whsec_") not in output


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
        unregistered = ["https://mes.plant.example:8443/a", "https://gone.example/", "https://plant.example/", "no url"]
        callbacks = endpoints.callbacks(connection, [*registered, *unregistered])
        assert callbacks == {url: Callback(endpoint.id, url) for url, endpoint in registered.items()}
        for url in unregistered:
            with pytest.raises(Refused) as refused:
                endpoints.callback(connection, url)
            assert refused.value.code is Code.CALLBACK_UNREGISTERED


def enter(connection: Connection, *callback_urls: str | None, batch_url: str | None = None) -> Accepted:
    new = [NewInspection(IMAGE, "ring", callback_url=url) for url in callback_urls]
    [accepted] = submission.accept(connection, [Submission(new, len(new) > 1, batch_url)])
    assert isinstance(accepted, Accepted), accepted
    return accepted


def finish_all(connection: Connection, recipe_id: int, accepted: Accepted) -> None:
    ids = [inspection.id for inspection in accepted.inspections]
    finishing.finish(connection, [passed(claimed) for claimed in claim(connection, recipe_id, ids)])


def test_an_inspection_is_delivered_to_its_callback_url(engine: Engine, recipe_id: int) -> None:
    callback_url = f"{URL}?order=7"
    with engine.begin() as connection:
        silent = register(connection, events=[])
        accepted = enter(connection, callback_url)
        finish_all(connection, recipe_id, accepted)
        subject = str(accepted.inspections[0].id)
        assert deliveries(connection) == [(silent.id, "inspection.completed", subject, callback_url, "pending")]


def test_a_callback_to_a_subscribed_address_is_one_delivery(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        endpoint = register(connection)
        finish_all(connection, recipe_id, enter(connection, URL))
        assert [(delivery[0], delivery[3]) for delivery in deliveries(connection)] == [(endpoint.id, None)]
        finish_all(connection, recipe_id, enter(connection, f"{URL}/2"))
        assert [delivery[3] for delivery in deliveries(connection)][1:] in ([None, f"{URL}/2"], [f"{URL}/2", None])


def test_a_burst_is_delivered_once_for_the_batch_and_per_requested_inspection(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        endpoint = register(connection, events=[])
        accepted = enter(connection, None, f"{URL}/one", None, batch_url=f"{URL}/all")
        finish_all(connection, recipe_id, accepted)
        assert {delivery[1:4] for delivery in deliveries(connection)} == {
            ("inspection.completed", str(accepted.inspections[1].id), f"{URL}/one"),
            ("batch.completed", str(accepted.batch_id), f"{URL}/all"),
        }
        assert {delivery[0] for delivery in deliveries(connection)} == {endpoint.id}


def test_an_open_batch_is_delivered_when_it_completes(engine: Engine) -> None:
    batch_id = uuid4()
    with engine.begin() as connection:
        register(connection, events=[])
        callback = endpoints.callback(connection, f"{URL}/all")
        batches.create(connection, batch_id, closed=False, callback=callback)
        assert deliveries(connection) == []
        assert batches.close(connection, batch_id)
        assert [delivery[1:4] for delivery in deliveries(connection)] == [
            ("batch.completed", str(batch_id), f"{URL}/all")
        ]


def test_a_disabled_endpoint_gets_no_callback(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        endpoint = register(connection, events=[])
        accepted = enter(connection, URL)
        endpoints.disable(connection, endpoint.id, "why")
        finish_all(connection, recipe_id, accepted)
        assert deliveries(connection) == []


def test_an_unregistered_callback_does_not_affect_other_submissions(engine: Engine, recipe_id: int) -> None:
    with engine.begin() as connection:
        register(connection)

        def new_inspection(url: str | None) -> NewInspection:
            return NewInspection(IMAGE, "ring", callback_url=url)

        stranger = "https://stranger.example/"
        results = submission.accept(
            connection,
            [
                Submission([new_inspection(URL)]),
                Submission([new_inspection(stranger)]),
                Submission([new_inspection(URL), new_inspection(stranger)], as_batch=True),
                Submission([new_inspection(None)], as_batch=True, callback_url=stranger),
                Submission([new_inspection(None)]),
            ],
        )
        codes = [result.code if isinstance(result, Refused) else None for result in results]
        refused = Code.CALLBACK_UNREGISTERED
        assert codes == [None, refused, refused, refused, None]
        assert depths.total(connection) == 2
