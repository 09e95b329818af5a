"""The clients against a running system: many images, the feed and its cursors, parts and exports."""

import asyncio
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.feed.feed import Cursor
from linewatch import (
    AsyncClient,
    Batch,
    Client,
    CursorLost,
    FeedItem,
    Inspection,
    NotSubmitted,
    Refused,
    Submitted,
    WebhookEvent,
    verify_webhook,
)
from linewatch.operations.inspections import Outcome
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System
from tests.fixtures.webhook_receivers import Receiver, running_receiver


@pytest.fixture
def lw(system: System) -> Iterator[Client]:
    with Client(system.url) as client:
        yield client


@pytest.fixture
def consumer(lw: Client) -> Iterator[str]:
    """The name of a new consumer."""
    name = f"mes-{uuid4().hex[:8]}"
    yield name
    if any(reader.name == name for reader in lw.consumers()):
        lw.forget_consumer(name)


def test_an_image_sent_twice_with_one_key_is_one_inspection(lw: Client, recipe: str) -> None:
    key = uuid4().hex
    first = lw.submit(png(1), recipe=recipe, idempotency_key=key)
    assert lw.submit(png(1), recipe=recipe, idempotency_key=key).id == first.id
    assert lw.submit(png(1), recipe=recipe).id != first.id
    with pytest.raises(Refused, match="idempotency_mismatch"):
        lw.submit(png(2), recipe=recipe, idempotency_key=key)
    batch = lw.submit_batch({"1.png": png(3)}, recipe=recipe, idempotency_key=uuid4().hex)
    assert batch.inspections[0].id not in (first.id, None)


def test_outcomes_of_many_images_are_in_order_despite_a_bad_one(lw: Client, recipe: str, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(png(100 + number))
    paths[5].write_text("no image")
    outcomes = list(lw.submit_many(paths, concurrency=4, wait=60, recipe=recipe, lot_id="L-many"))
    assert [outcome.number for outcome in outcomes] == list(range(12))
    bad = outcomes.pop(5)
    assert isinstance(bad, NotSubmitted)
    assert isinstance(bad.error, Refused)
    assert (bad.image, bad.error.code) == (paths[5], "unsupported_media_type")
    submitted = [outcome.inspection for outcome in outcomes if isinstance(outcome, Submitted)]
    assert [inspection.external_id for inspection in submitted] == [path.name for path in paths if path != paths[5]]
    assert {inspection.status for inspection in submitted} == {"completed"}
    assert len(list(lw.inspections(recipe=recipe, lot_id="L-many"))) == 11


def test_images_are_submitted_and_followed_in_one_event_loop(system: System, recipe: str) -> None:
    """One async client submits images and follows their results."""
    number = 20

    async def follow(lw: AsyncClient) -> list[FeedItem]:
        items = []
        async with aclosing(lw.results(recipe=recipe, follow=True)) as results:
            async for item in results:
                items.append(item)
                if len(items) == number:
                    break
        return items

    async def submit_all(lw: AsyncClient) -> list[Outcome]:
        images = [png(200 + seed) for seed in range(number)]
        return [outcome async for outcome in lw.submit_many(images, concurrency=5, recipe=recipe)]

    async def main() -> tuple[list[Outcome], list[FeedItem]]:
        async with AsyncClient(system.url) as lw, asyncio.timeout(120):
            return await asyncio.gather(submit_all(lw), follow(lw))

    outcomes, items = asyncio.run(main())
    ids = [outcome.inspection.id for outcome in outcomes if isinstance(outcome, Submitted)]
    assert len(set(ids)) == number
    assert {item.id for item in items} == set(ids)
    assert all(item.verdict in ("ok", "ng") for item in items)


def test_the_feed_resumes_where_its_reader_stopped(lw: Client, recipe: str, consumer: str, tmp_path: Path) -> None:
    file = tmp_path / "mes.cursor"
    ids = [lw.submit(png(300 + number), recipe=recipe, wait=60).id for number in range(5)]
    items = lw.results(recipe=recipe, consumer=consumer, cursor_file=file, page_size=2)
    assert [next(items).id for _ in range(3)] == ids[:3]
    items.close()  # as if killed while processing the third
    assert [item.id for item in lw.results(recipe=recipe, cursor_file=file)] == ids[2:]
    assert [item.id for item in lw.results(recipe=recipe, consumer=consumer)] == ids[2:]
    assert [reader.behind for reader in lw.consumers() if reader.name == consumer] == [0]
    assert list(lw.results("now", recipe=recipe, consumer=consumer)) == []
    again = lw.submit(png(305), recipe=recipe, wait=60)
    assert [item.id for item in lw.results("now", recipe=recipe, consumer=consumer)] == [again.id]
    with pytest.raises(CursorLost) as lost:
        next(lw.results(str(Cursor(epoch=999_999, number=1, numbered_at=1))))
    assert lost.value.code == "cursor_epoch"


def test_a_review_overrules_the_verdict_and_is_in_the_feed(lw: Client, recipe: str) -> None:
    inspection = lw.submit(png(400), recipe=recipe, wait=60)
    reviewed = lw.review(inspection.id, "ok", reviewer="quality desk", reason="dust on the lens")
    assert (reviewed.verdict, reviewed.effective_verdict) == (inspection.verdict, "ok")
    assert [(review.verdict, review.reviewer, review.reason) for review in reviewed.reviews] == [
        ("ok", "quality desk", "dust on the lens")
    ]
    events = [(item.id, item.feed_event) for item in lw.results(recipe=recipe, include_reviews=True)]
    assert events == [(inspection.id, "final"), (inspection.id, "reviewed")]
    assert [item.feed_event for item in lw.results(recipe=recipe)] == ["final"]
    assert [inspection.id for inspection in lw.inspections(recipe=recipe, effective_verdict="ok")] == [inspection.id]


def test_an_open_batch_is_filled_closed_and_cancelled(lw: Client, recipe: str) -> None:
    batch = lw.open_batch()
    assert batch.status == "open"
    lw.submit(png(1), recipe=recipe, batch_id=batch.id, wait=60)
    assert lw.close_batch(batch.id).status == "completed"
    lw.create_recipe(name := f"never-{uuid4().hex[:8]}")
    with pytest.raises(Refused, match="recipe_without_model"):
        lw.submit(png(1), recipe=name)
    assert lw.cancel_batch(lw.open_batch().id).status == "cancelled"
    final = lw.submit(png(2), recipe=recipe, wait=60)
    with pytest.raises(Refused, match="invalid_transition"):
        lw.cancel(final.id)


def test_the_views_of_a_part_give_one_verdict(lw: Client, recipe: str) -> None:
    part_id = f"SN/{uuid4().hex[:8]}"
    for view in ("top", "side", "top"):
        newest = lw.submit(png(1), recipe=recipe, part_id=part_id, view=view, wait=60)
        assert newest.view == view
    part = lw.part(part_id, recipe=recipe)
    assert (part.part_id, part.status, part.counts["total"]) == (part_id, "completed", 2)
    assert [(view.view, view.recipe) for view in part.views] == [("side", recipe), ("top", recipe)]
    assert part.views[1].inspection.id == newest.id
    with pytest.raises(Refused, match="not_found"):
        lw.part(f"{part_id}/none")


def test_an_export_contains_what_a_listing_returns(lw: Client, recipe: str, tmp_path: Path) -> None:
    ids = [str(lw.submit(png(number), recipe=recipe, lot_id="L-7", wait=60).id) for number in range(3)]
    lw.submit(png(4), recipe=recipe, lot_id="L-8", wait=60)
    rows: list[dict[str, Any]] = list(
        csv.DictReader(io.StringIO(lw.export(tmp_path / "out.csv", recipe=recipe, lot_id="L-7").read_text()))
    )
    assert [row["id"] for row in rows] == ids[::-1]
    parquet = lw.export(tmp_path / "out.parquet", format="parquet", recipe=recipe).read_bytes()
    assert (parquet[:4], parquet[-4:]) == (b"PAR1", b"PAR1")


def received_events(
    receiver: Receiver, secret: str, enough: Callable[[Sequence[WebhookEvent]], bool]
) -> Sequence[WebhookEvent]:
    """Wait until the received events are enough, and return them in order."""
    events: list[WebhookEvent] = []
    for number in count(1):
        if enough(events):
            break
        request = receiver.wait(number)[number - 1]
        events += verify_webhook(request.body, request.headers, secret).events
    return events


def test_a_receiver_verifies_and_parses_webhooks(lw: Client, system: System, recipe: str) -> None:
    events = ["inspection.completed", "inspection.reviewed", "batch.completed", "model.activated"]
    with running_receiver(port=system.webhook_port) as (receiver, url):
        endpoint = lw.create_endpoint(url, events, recipes=[recipe])
        try:
            secret = str(endpoint.secret)
            assert lw.endpoint(endpoint.id).secret is None
            sent = lw.test_endpoint(endpoint.id, wait=30)
            assert (sent.state, [attempt.status for attempt in sent.attempts]) == ("delivered", [200])
            inspection = lw.submit(png(1), recipe=recipe, wait=60)
            lw.review(inspection.id, "ng", reviewer="m", reason="scratch")
            batch = lw.submit_batch({"1.png": png(2)}, recipe=recipe, wait=60)
            lw.activate(recipe, 1)
            types = {"inspection.completed", "inspection.reviewed", "batch.completed"}
            received = received_events(receiver, secret, lambda events: types <= {event.type for event in events})
            of_type = {event.type: event.data for event in received}
            assert isinstance(of_type["inspection.completed"], Inspection)
            assert isinstance(of_type["batch.completed"], Batch)
            assert of_type["batch.completed"].id == batch.id
            assert isinstance(of_type["inspection.reviewed"], Inspection)
            assert of_type["inspection.reviewed"].effective_verdict == "ng"

            rotated = lw.rotate_secret(endpoint.id)
            assert rotated.secret != secret
            [delivery] = [
                sent_delivery
                for sent_delivery in lw.deliveries(endpoint.id)
                if sent_delivery.event == "inspection.reviewed"
            ]
            lw.replay(delivery.id)
            message_id = str(delivery.message_id)
            received_events(receiver, secret, lambda events: [event.id for event in events].count(message_id) == 2)
            replayed = [request for request in receiver.requests if request.headers["webhook-id"] == message_id][1]
            assert (
                verify_webhook(replayed.body, replayed.headers, str(rotated.secret)).id == message_id
            )  # valid with either secret

            lw.change_endpoint(endpoint.id, events=["inspection.completed"], max_group_size=9, max_group_delay_ms=500)
            burst = lw.submit_batch({f"{number}.png": png(number) for number in range(3)}, recipe=recipe, wait=60)
            ids = {inspection.id for inspection in burst.inspections}
            received_events(
                receiver,
                secret,
                lambda events: ids <= {event.data.id for event in events if isinstance(event.data, Inspection)},
            )
        finally:
            lw.delete_endpoint(endpoint.id)
    with pytest.raises(Refused, match="not_found"):
        lw.endpoint(endpoint.id)
