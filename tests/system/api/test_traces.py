"""One trace from an upload to its webhook, through the real processes, as a collector receives it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.fixtures.http_inspections import final
from tests.fixtures.otlp_receiver import Collector, ReceivedSpan, running_collector
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System, upload_bundle
from tests.fixtures.servers import free_port
from tests.fixtures.webhook_receivers import Receiver, Reply, Request, running_receiver

IMAGE = ("queue", "inspect", "load", "decode", "score", "finish")
UPLOAD = ("POST /v1/inspections", "store", "commit", "enqueue live", *IMAGE)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(collector: Collector, reachable_folder: Path, bundle: Path) -> Iterator[System]:
    """A system that traces, with a model version."""
    variables = {**collector.variables, "LINEWATCH_WEBHOOK_ALLOW": f"127.0.0.1:{free_port()}"}
    folder = reachable_folder / "traced"
    folder.mkdir()
    with System.running(folder, "--no-training", **variables, LINEWATCH_WEBHOOK_RETRY_SECONDS="0.1") as system:
        with httpx.Client(base_url=system.url, timeout=70) as http:
            http.post("/v1/recipes", json={"name": "default"})
            upload_bundle(http, "default", bundle)
        yield system


@contextmanager
def receiving(
    system: System, *events: str, statuses: tuple[int, ...] = (200,)
) -> Iterator[tuple[httpx.Client, Receiver]]:
    """A client, and a receiver of these events that answers with these statuses, and then with the last one again."""

    def answer(number: int, _: Request) -> Reply:
        return Reply(statuses[min(number, len(statuses) - 1)])

    with (
        running_receiver(answer, port=system.webhook_port) as (receiver, url),
        httpx.Client(base_url=system.url, timeout=70) as http,
    ):
        endpoint = http.post("/v1/webhook-endpoints", json={"url": url, "events": events}).json()
        yield http, receiver
        http.delete(f"/v1/webhook-endpoints/{endpoint['id']}")


def traceparent(*, sampled: bool = True) -> tuple[str, str, str]:
    """The header of a caller, its trace id and its span id."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace}-{span}-0{sampled:d}", trace, span


def upload(http: httpx.Client, seed: int, **headers: str) -> str:
    answer = http.post("/v1/inspections", content=png(seed), headers={"Content-Type": "image/png", **headers})
    assert answer.status_code == 202, answer.text
    assert not {"traceparent", "tracestate"} & set(answer.headers)  # W3C Trace Context has no response headers
    inspection_id: str = answer.json()["id"]
    return inspection_id


def by_name(spans: list[ReceivedSpan]) -> dict[str, ReceivedSpan]:
    return {span.name: span for span in spans}


def test_one_trace_leads_from_the_caller_to_the_receiver_of_the_webhook(traced: System, collector: Collector) -> None:
    header, trace_id, caller = traceparent()
    with receiving(traced, "inspection.completed", statuses=(500, 200)) as (http, receiver):
        inspection_id = upload(http, 1, traceparent=header, tracestate="mes=line-2")
        requests = receiver.wait(2)
        spans = collector.wait(trace_id, *UPLOAD, "POST webhook", "POST webhook")
    first, second = [span for span in spans if span.name == "POST webhook"]
    names = by_name(spans)
    request, inspect = names["POST /v1/inspections"], names["inspect"]
    assert request.parent == caller
    for name in ("store", "commit", "enqueue live", "queue", "inspect"):
        assert names[name].parent == request.id, name
    for name in ("load", "decode", "score", "finish"):
        assert names[name].parent == inspect.id, name
    assert (first.parent, second.parent) == (inspect.id, inspect.id)
    for sent, attempt in zip(requests, (first, second), strict=True):
        assert sent.headers["traceparent"] == f"00-{trace_id}-{attempt.id}-01"
        assert sent.headers["tracestate"] == "mes=line-2"
    assert {span.trace_state for span in spans} == {"mes=line-2"}
    assert {span.service for span in spans} == {"linewatch-api", "linewatch-scoring", "linewatch-io"}
    assert (first.failed, second.failed) == (True, False)
    assert first.attributes["http.response.status_code"] == 500
    assert second.attributes["http.request.resend_count"] == 1
    assert inspect.attributes["linewatch.inspection.id"] == inspection_id
    kinds = {span.name: span.kind for span in spans if span.kind != "internal"}
    assert kinds == {
        "POST /v1/inspections": "server",
        "enqueue live": "producer",
        "inspect": "consumer",
        "POST webhook": "client",
    }
    assert request.attributes.items() >= {"http.request.method": "POST", "http.response.status_code": 202}.items()
    for name in (*IMAGE, "store", "commit"):
        assert request.begun <= names[name].begun <= names[name].ended, name
    assert names["queue"].ended <= names["load"].begun <= names["decode"].begun <= names["score"].begun
    assert names["finish"].ended <= inspect.ended <= first.ended


def test_an_upload_that_is_not_sampled_is_recorded_nowhere(traced: System, collector: Collector) -> None:
    header, trace_id, _ = traceparent(sampled=False)
    with receiving(traced, "inspection.completed") as (http, receiver):
        final(http, upload(http, 2, traceparent=header))
        [unsampled] = receiver.wait()
        assert not {"traceparent", "tracestate"} & set(unsampled.headers)
        marker, marked, _ = traceparent()
        upload(http, 3, traceparent=marker)
        collector.wait(marked, *UPLOAD, "POST webhook")  # by then, the others would be here, too
    assert collector.trace(trace_id) == []


def test_a_batch_is_one_trace_up_to_its_completion(traced: System, collector: Collector) -> None:
    header, trace_id, _ = traceparent()
    with receiving(traced, "batch.completed") as (http, receiver):
        files = [("images", (f"{seed}.png", png(seed), "image/png")) for seed in range(4, 8)]
        answer = http.post("/v1/batches", files=files, headers={"traceparent": header})
        assert answer.status_code == 202, answer.text
        [request] = receiver.wait()
        names = ("POST /v1/batches", "store", "commit", "enqueue live", *IMAGE * 4, "POST webhook")
        spans = collector.wait(trace_id, *names)
    [webhook] = [span for span in spans if span.name == "POST webhook"]
    assert request.headers["traceparent"] == f"00-{trace_id}-{webhook.id}-01"
    inspected = {span.id for span in spans if span.name == "inspect"}
    assert webhook.parent in inspected
    assert {span.attributes["linewatch.batch.id"] for span in spans if span.name == "inspect"} == {answer.json()["id"]}
    assert {span.parent for span in spans if span.name == "score"} == inspected


def test_what_a_request_changes_at_once_goes_on_from_it(traced: System, collector: Collector) -> None:
    header, trace_id, _ = traceparent()
    with receiving(traced, "inspection.reviewed") as (http, receiver):
        inspection_id = upload(http, 9)
        final(http, inspection_id)
        review = {"verdict": "ok", "reviewer": "Ada", "reason": "dust"}
        path = f"/v1/inspections/{inspection_id}/reviews"
        assert http.post(path, json=review, headers={"traceparent": header}).status_code == 201
        receiver.wait()
        spans = collector.wait(trace_id, "POST /v1/inspections/{inspection_id}/reviews", "POST webhook")
    names = by_name(spans)
    assert names["POST webhook"].parent == names["POST /v1/inspections/{inspection_id}/reviews"].id
