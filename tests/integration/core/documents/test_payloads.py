"""Payloads of webhooks."""

import datetime as dt
from uuid import UUID

from sqlalchemy import Engine, event

from core.delivery.sending import Claim
from core.documents import payloads
from core.feed.events import EventType
from core.intake import submission
from core.intake.submission import Accepted, NewInspection, Submission
from tests.fixtures.queued_work import IMAGE
from tests.fixtures.webhook_sending import (
    Inspect,
)


def test_payloads_of_many_events_are_read_in_one_query(engine: Engine, inspect: Inspect) -> None:
    with engine.begin() as connection:
        new = Submission([NewInspection(IMAGE, "ring")], as_batch=True)
        accepted = submission.accept(connection, [new] * 20)
    ids = [str(outcome.batch_id) for outcome in accepted if isinstance(outcome, Accepted)]
    now = dt.datetime.now(dt.UTC)
    claims = [Claim(UUID(int=n), 1, EventType.BATCH_COMPLETED, batch_id, now) for n, batch_id in enumerate(ids)]
    statements: list[str] = []
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
        documents = payloads.load_documents(connection, claims, payloads.LOADERS)
    assert [documents[UUID(int=number)]["id"] for number in range(20)] == ids
    assert len(statements) == 1
