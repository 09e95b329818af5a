"""Verification of webhooks, compared with another implementation of the standard."""

import datetime as dt
import json
import subprocess
import sys
from typing import Any

import pytest
from standardwebhooks import Webhook

from linewatch import Batch, Inspection, ModelVersion, RescoreRun, WebhookInvalid, verify_webhook
from tests.fixtures.mock_system import BATCH, INSPECTION, RUN, VERSION

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - used only in these tests
OTHER_SECRET = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"  # noqa: S105 - used only in these tests
EVENT: dict[str, Any] = {"type": "inspection.completed", "timestamp": "2026-01-01T00:00:00Z", "data": INSPECTION}


def sent(payload: object, *, secret: str = SECRET, ago: float = 0) -> tuple[bytes, dict[str, str]]:
    """Return the body and headers of a webhook signed by another implementation."""
    body = json.dumps(payload)
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago)
    signature = Webhook(secret).sign("msg_1", at, body)
    headers = {
        "Webhook-Id": "msg_1",
        "WEBHOOK-TIMESTAMP": str(int(at.timestamp())),
        "webhook-signature": signature,
    }
    return body.encode(), headers


def test_webhooks_signed_by_another_implementation_are_verified_and_typed() -> None:
    event = verify_webhook(*sent(EVENT), SECRET)
    assert (event.id, event.type, event.timestamp.year) == ("msg_1", "inspection.completed", 2026)
    assert isinstance(event.data, Inspection)
    assert event.data.recipe == "bottle"
    assert event.events == [event]


def test_each_type_has_its_data() -> None:
    batch = verify_webhook(*sent({**EVENT, "type": "batch.completed", "data": BATCH}), SECRET)
    assert isinstance(batch.data, Batch)
    without_manifest = {name: value for name, value in VERSION.items() if name != "manifest"}  # webhooks omit it
    activated = verify_webhook(*sent({**EVENT, "type": "model.activated", "data": without_manifest}), SECRET)
    assert isinstance(activated.data, ModelVersion)
    for event_type in ("rescore_run.progress", "rescore_run.completed", "rescore_run.failed"):
        of_run = verify_webhook(*sent({**EVENT, "type": event_type, "data": RUN}), SECRET)
        assert isinstance(of_run.data, RescoreRun)
    unknown = verify_webhook(*sent({**EVENT, "type": "endpoint.test", "data": {"new": 1}}), SECRET)
    assert unknown.data == {"new": 1}


def test_a_group_is_parsed_into_its_events() -> None:
    members = [{**EVENT, "id": f"delivery-{number}"} for number in range(3)]
    group = verify_webhook(*sent({"type": "group", "timestamp": EVENT["timestamp"], "data": members}), SECRET)
    assert [event.id for event in group.events] == ["delivery-0", "delivery-1", "delivery-2"]
    assert all(isinstance(event.data, Inspection) for event in group.events)


def test_one_of_several_signatures_is_enough() -> None:
    body, headers = sent(EVENT)
    of_another = sent(EVENT, secret=OTHER_SECRET)[1]["webhook-signature"]
    headers["webhook-signature"] = f"v1a,x {of_another} nonsense {headers['webhook-signature']}"
    assert verify_webhook(body, headers, SECRET).type == "inspection.completed"


def test_the_prefix_of_the_secret_is_optional() -> None:
    assert verify_webhook(*sent(EVENT), SECRET.removeprefix("whsec_")).id == "msg_1"


@pytest.mark.parametrize("missing", ["Webhook-Id", "WEBHOOK-TIMESTAMP", "webhook-signature"])
def test_a_missing_header_is_refused(missing: str) -> None:
    body, headers = sent(EVENT)
    del headers[missing]
    with pytest.raises(WebhookInvalid, match=f"no header {missing.lower()}"):
        verify_webhook(body, headers, SECRET)


@pytest.mark.parametrize(
    "changed",
    [
        {"Webhook-Id": "msg_2"},
        {"WEBHOOK-TIMESTAMP": "1"},
        {"webhook-signature": "v1,"},
        {"webhook-signature": "v1,ä"},
        {"webhook-signature": "v1"},
    ],
)
def test_a_changed_header_is_refused(changed: dict[str, str]) -> None:
    body, headers = sent(EVENT)
    with pytest.raises(WebhookInvalid, match="no signature"):
        verify_webhook(body, {**headers, **changed}, SECRET)


def test_a_changed_body_or_another_secret_is_refused() -> None:
    body, headers = sent(EVENT)
    for changed in (body + b" ", body.replace(b"bottle", b"battle"), b"\xff", b""):
        with pytest.raises(WebhookInvalid, match="no signature"):
            verify_webhook(changed, headers, SECRET)
    with pytest.raises(WebhookInvalid, match="no signature"):
        verify_webhook(*sent(EVENT, secret=OTHER_SECRET), SECRET)
    only_v2 = headers | {"webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}
    with pytest.raises(WebhookInvalid, match="no signature"):
        verify_webhook(body, only_v2, SECRET)


@pytest.mark.parametrize(("ago", "message"), [(400, "s ago"), (-400, "in the future")])
def test_a_timestamp_outside_the_tolerance_is_refused(ago: float, message: str) -> None:
    request = sent(EVENT, ago=ago)
    with pytest.raises(WebhookInvalid, match=message):
        verify_webhook(*request, SECRET)
    assert verify_webhook(*request, SECRET, tolerance=500).id == "msg_1"


@pytest.mark.parametrize(
    "payload",
    [
        1,
        [],
        {},
        {"type": "inspection.completed"},
        {**EVENT, "data": {}},
        {**EVENT, "type": "group"},
        {**EVENT, "type": []},
    ],
)
def test_a_signed_body_that_is_not_an_event_is_refused(payload: object) -> None:
    with pytest.raises(WebhookInvalid, match="cannot be read"):
        verify_webhook(*sent(payload), SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_ä", "whsec_!!"])
def test_an_invalid_secret_is_an_error_of_the_caller(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify_webhook(*sent(EVENT), secret)


def test_a_receiver_needs_no_http_client() -> None:
    code = "import sys, linewatch.webhooks; print('httpx' in sys.modules, 'core' in sys.modules)"
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert completed.stdout.split() == ["False", "False"]
