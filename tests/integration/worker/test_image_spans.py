"""The spans of a scoring pipeline and of a webhook sender, as a collector receives them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from core.feed.events import EventType
from core.settings import Settings
from core.storage.image_store import image_key
from core.tracing import traces
from tests.fixtures.otlp_receiver import Collector, running_collector
from tests.fixtures.scoring_queue import DAY, Queue
from tests.fixtures.webhook_receivers import Request, running_receiver
from tests.fixtures.webhook_sending import register, sending
from worker.pipeline.loaded_models import LoadedModel


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, to which this process exports."""
    with running_collector() as collector:
        for name, value in collector.variables.items():
            monkeypatch.setenv(name, value)
        traces.start("test")
        yield collector
        traces.stop()


@pytest.fixture
def queue(settings: Settings, engine: Engine, bundle: Path) -> Iterator[Queue]:
    queue = Queue(settings, engine, bundle)
    yield queue
    queue.close()


def trace(number: int) -> str:
    return f"{number:032x}"


def upload(queue: Queue, number: int, *, untraced: Sequence[int] = ()) -> list[UUID]:
    """Queue images, each with a trace of its own: 1, 2 and so on, but not those in `untraced`."""
    ids = queue.upload(number)
    with queue.engine.begin() as connection:
        for position, id_ in enumerate(ids, start=1):
            if position not in untraced:
                connection.execute(
                    text("UPDATE work SET trace_context = :context WHERE id = :id"),
                    {"id": id_, "context": f"00-{trace(position)}-00000000000000aa-01"},
                )
    return ids


def test_each_image_is_in_its_own_trace_and_its_minibatch_is_linked(queue: Queue, collector: Collector) -> None:
    queue.score(upload(queue, 4, untraced=[3]))
    traces.stop()
    assert {span.trace_id for span in collector.spans} == {trace(1), trace(2), trace(4)}
    spans = [{span.name: span for span in collector.trace(trace(number))} for number in (1, 2, 4)]
    for names in spans:
        assert names.keys() == {"queue", "inspect", "load", "decode", "score", "finish"}
        assert names["score"].attributes["linewatch.minibatch.images"] == 4
        assert names["inspect"].attributes["linewatch.status"] == "completed"
        assert names["queue"].begun < names["queue"].ended <= names["load"].begun
    inspected = {names["inspect"].id for names in spans}
    [leader] = [names for names in spans if len(names["score"].links) == 2]
    assert leader["score"].links == inspected - {leader["inspect"].id}
    assert {link for names in spans if names is not leader for link in names["score"].links} == {leader["score"].id}


def test_an_image_that_fails_ends_its_trace_with_the_reason(queue: Queue, collector: Collector) -> None:
    [id_] = upload(queue, 1)
    [row] = queue_images(queue)
    queue.parts.store.put(image_key(DAY, row), b"not the image")
    queue.score([id_])
    traces.stop()
    names = {span.name: span for span in collector.trace(trace(1))}
    assert names.keys() == {"queue", "inspect", "finish"}
    assert names["inspect"].failed
    assert (
        names["inspect"].attributes.items()
        >= {
            "error.type": "image_checksum_mismatch",
            "linewatch.status": "failed",
        }.items()
    )


def queue_images(queue: Queue) -> Sequence[bytes]:
    with queue.engine.begin() as connection:
        return connection.execute(text("SELECT image_sha256 FROM work")).scalars().all()


def test_a_released_claim_ends_its_span_and_the_next_one_begins_another(
    queue: Queue, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("the store is away")

    ids = upload(queue, 1)
    with monkeypatch.context() as patched:
        patched.setattr("worker.pipeline.preparing.read_stored", fail)
        with pytest.raises(OSError, match="away"):
            queue.score(ids)
    queue.score(ids)
    traces.stop()
    first, second = [span for span in collector.trace(trace(1)) if span.name == "inspect"]
    assert (first.failed, first.attributes["error.type"], first.attributes["linewatch.attempt"]) == (True, "OSError", 1)
    assert (second.failed, second.attributes["linewatch.attempt"]) == (False, 2)


def test_a_lost_claim_does_not_show_a_result(
    queue: Queue, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = LoadedModel.score_each

    def lose(self: LoadedModel, images: Sequence[object]) -> object:
        with queue.engine.begin() as connection:
            connection.execute(text("UPDATE work SET attempt = attempt + 1"))
        return score(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(LoadedModel, "score_each", lose)
    queue.score(upload(queue, 1))
    traces.stop()
    [inspect] = [span for span in collector.trace(trace(1)) if span.name == "inspect"]
    assert (inspect.failed, inspect.attributes["error.type"]) == (True, "claim_lost")
    assert "linewatch.status" not in inspect.attributes


def test_a_worker_that_does_not_trace_passes_the_trace_on(queue: Queue, engine: Engine) -> None:
    register(engine, "http://127.0.0.1:9/hook", events=[EventType.INSPECTION_COMPLETED])
    queue.score(upload(queue, 2, untraced=[2]))
    with engine.begin() as connection:
        contexts = connection.execute(text("SELECT trace_context FROM deliveries ORDER BY subject_id")).scalars().all()
    assert contexts == [f"00-{trace(1)}-00000000000000aa-01", None]


def test_a_group_of_events_goes_on_from_the_first_and_links_to_the_others(
    queue: Queue, engine: Engine, settings: Settings, collector: Collector
) -> None:
    with running_receiver() as (receiver, url):
        register(engine, url, events=[EventType.INSPECTION_COMPLETED], max_group_size=3, max_group_delay_ms=60_000)
        queue.score(upload(queue, 3, untraced=[2]))
        with sending(settings, url):
            [request] = receiver.wait()
            assert_signed(request)
    traces.stop()
    [attempt] = [span for span in collector.spans if span.name == "POST webhook"]
    inspected = {span.trace_id: span.id for span in collector.spans if span.name == "inspect"}
    first, other = trace(1), trace(3)
    assert (attempt.trace_id, attempt.parent, attempt.links) == (first, inspected[first], frozenset({inspected[other]}))
    assert request.headers["traceparent"] == f"00-{first}-{attempt.id}-01"
    assert attempt.attributes["linewatch.events"] == 3


def assert_signed(request: Request) -> None:
    assert request.verified()["type"] == "group"
