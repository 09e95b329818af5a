"""Webhooks on the side that receives them, against another implementation of the same standard."""

import datetime as dt
import json
import subprocess
import sys
from typing import Any

import pytest
from standardwebhooks import Webhook

from linewatch import Batch, Inspection, ModelVersion, RescoreRun, WebhookInvalid, verify_webhook
from tests.fixtures.mock_system import BATCH, INSPECTION, RUN, VERSION

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 - signs nothing but these tests
ANOTHER = "whsec_QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB"
SAID: dict[str, Any] = {"type": "inspection.completed", "timestamp": "2026-01-01T00:00:00Z", "data": INSPECTION}


def sent(said: object, *, secret: str = SECRET, ago: float = 0) -> tuple[bytes, dict[str, str]]:
    """A request as another implementation of the standard makes it."""
    body = json.dumps(said)
    at = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago)
    signature = Webhook(secret).sign("msg_1", at, body)
    headers = {
        "Webhook-Id": "msg_1",
        "WEBHOOK-TIMESTAMP": str(int(at.timestamp())),
        "webhook-signature": signature,
    }
    return body.encode(), headers


def test_what_another_implementation_signs_is_verified_and_typed() -> None:
    event = verify_webhook(*sent(SAID), SECRET)
    assert (event.id, event.type, event.timestamp.year) == ("msg_1", "inspection.completed", 2026)
    assert isinstance(event.data, Inspection)
    assert event.data.recipe == "bottle"
    assert event.events == [event]


def test_each_type_has_its_data() -> None:
    batch = verify_webhook(*sent({**SAID, "type": "batch.completed", "data": BATCH}), SECRET)
    assert isinstance(batch.data, Batch)
    without_manifest = {name: value for name, value in VERSION.items() if name != "manifest"}  # as it is sent
    activated = verify_webhook(*sent({**SAID, "type": "model.activated", "data": without_manifest}), SECRET)
    assert isinstance(activated.data, ModelVersion)
    for type_ in ("rescore_run.progress", "rescore_run.completed", "rescore_run.failed"):
        of_run = verify_webhook(*sent({**SAID, "type": type_, "data": RUN}), SECRET)
        assert isinstance(of_run.data, RescoreRun)
    unknown = verify_webhook(*sent({**SAID, "type": "endpoint.test", "data": {"new": 1}}), SECRET)
    assert unknown.data == {"new": 1}


def test_a_group_is_as_many_events() -> None:
    members = [{**SAID, "id": f"delivery-{number}"} for number in range(3)]
    group = verify_webhook(*sent({"type": "group", "timestamp": SAID["timestamp"], "data": members}), SECRET)
    assert [event.id for event in group.events] == ["delivery-0", "delivery-1", "delivery-2"]
    assert all(isinstance(event.data, Inspection) for event in group.events)


def test_one_of_several_signatures_is_enough() -> None:
    body, headers = sent(SAID)
    of_another = sent(SAID, secret=ANOTHER)[1]["webhook-signature"]
    headers["webhook-signature"] = f"v1a,x {of_another} nonsense {headers['webhook-signature']}"
    assert verify_webhook(body, headers, SECRET).type == "inspection.completed"


def test_the_prefix_of_the_secret_may_be_left_out() -> None:
    assert verify_webhook(*sent(SAID), SECRET.removeprefix("whsec_")).id == "msg_1"


@pytest.mark.parametrize("missing", ["Webhook-Id", "WEBHOOK-TIMESTAMP", "webhook-signature"])
def test_a_header_that_is_missing(missing: str) -> None:
    body, headers = sent(SAID)
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
def test_what_was_not_signed_so_is_refused(changed: dict[str, str]) -> None:
    body, headers = sent(SAID)
    with pytest.raises(WebhookInvalid, match="no signature"):
        verify_webhook(body, {**headers, **changed}, SECRET)


def test_a_body_that_was_changed_or_signed_by_another_is_refused() -> None:
    body, headers = sent(SAID)
    for changed in (body + b" ", body.replace(b"bottle", b"battle"), b"\xff", b""):
        with pytest.raises(WebhookInvalid, match="no signature"):
            verify_webhook(changed, headers, SECRET)
    with pytest.raises(WebhookInvalid, match="no signature"):
        verify_webhook(*sent(SAID, secret=ANOTHER), SECRET)
    only_v2 = headers | {"webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}
    with pytest.raises(WebhookInvalid, match="no signature"):
        verify_webhook(body, only_v2, SECRET)


@pytest.mark.parametrize(("ago", "said"), [(400, "s ago"), (-400, "in the future")])
def test_another_time_is_refused_unless_it_is_tolerated(ago: float, said: str) -> None:
    request = sent(SAID, ago=ago)
    with pytest.raises(WebhookInvalid, match=said):
        verify_webhook(*request, SECRET)
    assert verify_webhook(*request, SECRET, tolerance=500).id == "msg_1"


@pytest.mark.parametrize(
    "said",
    [
        1,
        [],
        {},
        {"type": "inspection.completed"},
        {**SAID, "data": {}},
        {**SAID, "type": "group"},
        {**SAID, "type": []},
    ],
)
def test_what_is_signed_and_makes_no_sense_is_said_to_be_so(said: object) -> None:
    with pytest.raises(WebhookInvalid, match="cannot be read"):
        verify_webhook(*sent(said), SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_ä", "whsec_!!"])
def test_what_is_no_secret_is_an_error_of_the_caller(secret: str) -> None:
    with pytest.raises(ValueError, match="secret"):
        verify_webhook(*sent(SAID), secret)


def test_a_receiver_needs_no_http_client() -> None:
    code = "import sys, linewatch.webhooks; print('httpx' in sys.modules, 'core' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]
