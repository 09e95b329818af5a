"""Signatures, retry pauses, and the stored part of a response."""

import datetime as dt
import time
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from core.delivery import signing
from core.delivery.retries import JITTER, retry_pause
from core.settings import Settings
from worker.delivery.http_sender import KEPT_CHARACTERS, parse_retry_after, printable

SCHEDULE = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)
FIRST = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECOND = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


def test_the_signature_equals_the_example_of_the_specification() -> None:
    headers = signing.headers([FIRST], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.text(st.characters(exclude_categories=["Cs"])), st.uuids())
def test_each_secret_alone_verifies(text: str, message_id: object) -> None:
    body = text.encode()
    headers = signing.headers([FIRST, SECOND], str(message_id), int(time.time()), body)
    for secret in (FIRST, SECOND):
        Webhook(secret).verify(body, headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body + b" ", headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, {**headers, "webhook-id": "another"}, json_parse=False)


def test_the_retry_schedule_is_the_documented_one() -> None:
    assert Settings().webhook_retry_seconds == SCHEDULE


@given(st.integers(1, 7), st.floats(0, 1), st.floats(0, 1e9))
def test_pauses_follow_the_schedule_jitter_and_retry_after(tries: int, jitter: float, retry_after: float) -> None:
    pause = retry_pause(tries, SCHEDULE, retry_after=retry_after, jitter=jitter)
    assert pause is not None
    planned = SCHEDULE[tries - 1]
    assert planned <= pause
    assert min(retry_after, 86_400) <= pause <= max(planned * (1 + JITTER), min(retry_after, 86_400))


def test_no_pause_follows_the_last_attempt() -> None:
    assert retry_pause(len(SCHEDULE) + 1, SCHEDULE, retry_after=10, jitter=0) is None


def test_pauses_can_be_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_WEBHOOK_RETRY_SECONDS", "0.5, 1,2")
    assert Settings().webhook_retry_seconds == (0.5, 1, 2)
    for wrong in ("", "1,", "soon", "-1", "nan", "inf"):
        monkeypatch.setenv("LINEWATCH_WEBHOOK_RETRY_SECONDS", wrong)
        with pytest.raises(ValidationError, match="webhook_retry_seconds"):
            Settings()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("120", 120),
        ("-5", 0),
        ("soon", 0),
        ("1e5", 0),
        ("²", 0),
        ("9" * 400, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 99999 07:28:00 GMT", 0),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert parse_retry_after(header) == seconds


def test_retry_after_a_date() -> None:
    moment = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert 3590 < parse_retry_after(format_datetime(moment, usegmt=True)) <= 3600


@given(st.text())
def test_a_stored_response_contains_no_control_characters(text: str) -> None:
    kept = printable(text)
    assert len(kept) <= KEPT_CHARACTERS
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in kept)
    kept.encode()
