"""The output of commands for scripted responses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import Client
from linewatch.cli import run
from linewatch.cli.options import WaitNotice
from tests.fixtures.mock_system import BATCH, DELIVERY, ENDPOINT, INSPECTION, SYSTEM, problem

COMPLETED = {
    **INSPECTION,
    "status": "completed",
    "external_id": "cam3.png",
    "part_id": "SN-1",
    "anomaly_score": 0.25,
    "verdict": "ng",
    "effective_verdict": "ng",
    "finished_at": "2026-01-01T00:00:00Z",
    "feed_event": "final",
}
TRIED = {"at": "2026-01-01T00:00:00Z", "outcome": "delivered", "status": 204, "duration_ms": 12.4, "answer": ""}

Answers = dict[str, Callable[[httpx.Request], httpx.Response]]
Script = Callable[[Answers], list[httpx.Request]]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """`script(answers)` replaces the system by answers per method and path; returns the list of requests."""

    def use(answers: Answers) -> list[httpx.Request]:
        requests: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            request.read()
            requests.append(request)
            return answers[f"{request.method} {request.url.path}"](request)

        def client(*_: object, follows: bool = False) -> Client:
            notify = WaitNotice(follows=follows).notify
            return Client("http://system.test", transport=httpx.MockTransport(answer), on_wait=notify)

        for module in ("results", "inspections", "parts", "status", "submit", "webhooks"):
            monkeypatch.setattr(f"linewatch.cli.commands.{module}.client", client)
        return requests

    return use


def page(*numbers: int, following: str) -> httpx.Response:
    items = [{**COMPLETED, "external_id": f"{number}.png", "cursor": f"c{number}"} for number in numbers]
    return httpx.Response(200, json={"items": items, "next_cursor": following})


def test_results_are_printed_as_they_arrive(script: Script, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    pages = [page(1, 2, following="c2"), page(following="c2")]
    script({"GET /v1/results": lambda _: pages.pop(0)})
    assert run(["results", "--cursor-file", str(file)]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["finished", "result", "score", "part", "image", "id", "cursor"]
    assert first.split()[2:6] == ["ng", "0.250000", "SN-1", "1.png"]
    assert second.endswith("c2")
    assert file.read_text() == "c2\n"


def test_an_empty_feed_prints_nothing(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script({"GET /v1/results": lambda _: page(following="c0")})
    assert run(["results"]) == 0
    assert run(["results", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_following_resumes_after_a_lost_cursor(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        match request.url.params.get("after"):
            case "old":
                return problem(410, "cursor_expired", resume_after="c6")
            case "c6":
                return page(7, following="c7")
            case _:
                raise KeyboardInterrupt

    requests = script({"GET /v1/results": answer})
    assert run(["results", "--follow", "--after", "old", "--recipe", "r", "--reviews", "--json"]) == 130
    output = capsys.readouterr()
    assert [json.loads(line)["cursor"] for line in output.out.splitlines()] == ["c7"]
    remark, _ = output.err.splitlines()
    assert "cursor_expired" in remark
    assert "--after c6" in remark
    assert [(request.url.params["recipe"], request.url.params["include"]) for request in requests] == [
        ("r", "reviews")
    ] * 3


def test_without_following_a_lost_cursor_is_a_failure(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script({"GET /v1/results": lambda _: problem(410, "cursor_expired", resume_after="c6")})
    assert run(["results", "--after", "old"]) == 1
    stderr = capsys.readouterr().err
    assert stderr.count("\n") == 1
    assert "(cursor_expired); to continue, use --after c6" in stderr


def test_the_secret_of_an_endpoint_is_printed_once(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    created = {**ENDPOINT, "secret": "whsec_made"}
    rotated = {**ENDPOINT, "secret": "whsec_new", "previous_secret_until": "2026-01-02T00:00:00Z"}
    requests = script(
        {
            "POST /v1/webhook-endpoints": lambda _: httpx.Response(201, json=created),
            "GET /v1/webhook-endpoints/x": lambda _: httpx.Response(200, json=ENDPOINT),
            "POST /v1/webhook-endpoints/x/rotate-secret": lambda _: httpx.Response(200, json=rotated),
        }
    )
    options = ["--event", "batch.completed", "--recipe", "r", "--max-group-size", "9"]
    assert run(["webhooks", "create", "https://mes.test/hook", *options]) == 0
    output = capsys.readouterr()
    assert output.out == "whsec_made\n"
    assert "not shown again" in output.err
    assert json.loads(requests[0].content) == {
        "url": "https://mes.test/hook",
        "events": ["batch.completed"],
        "recipes": ["r"],
        "description": "",
        "max_group_size": 9,
        "max_group_delay_ms": 0,
    }
    assert run(["webhooks", "show", "x", "--json"]) == 0
    assert "secret" not in capsys.readouterr().out
    assert run(["webhooks", "rotate-secret", "x"]) == 0
    output = capsys.readouterr()
    assert output.out == "whsec_new\n"
    assert "The previous secret also signs requests until" in output.err


def test_an_update_prints_what_it_changes(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    requests = script({"PATCH /v1/webhook-endpoints/x": lambda _: httpx.Response(200, json=ENDPOINT)})
    assert run(["webhooks", "update", "x", "--to", "https://mes.test/new", "--all-recipes", "--state", "enabled"]) == 0
    assert run(["webhooks", "update", "x", "--endpoint-url", "https://mes.test/newer"]) == 0
    events = ["--event", "batch.completed", "--event", "model.activated"]
    assert run(["webhooks", "update", "x", *events, "--max-group-delay-ms", "0"]) == 0
    assert run(["webhooks", "update", "x", "--url", "https://mes.test/new"]) == 2
    assert "--endpoint-url" in capsys.readouterr().err
    assert [json.loads(request.content) for request in requests] == [
        {"url": "https://mes.test/new", "recipes": None, "state": "enabled"},
        {"url": "https://mes.test/newer"},
        {"events": ["batch.completed", "model.activated"], "max_group_delay_ms": 0},
    ]


@pytest.mark.parametrize(
    ("delivery", "expected", "message"),
    [
        ({"state": "delivered", "attempts": [TRIED]}, 0, "accepted the test event: delivered 204 in 12 ms"),
        (
            {"attempts": [{**TRIED, "outcome": "refused_status", "status": 500, "answer": "no\nroom"}]},
            1,
            "did not accept the test event: refused_status 500 in 12 ms: no room",
        ),
        ({}, 1, "nothing was sent"),
    ],
)
def test_the_outcome_of_a_test_delivery_is_printed(
    script: Script, capsys: pytest.CaptureFixture[str], delivery: dict[str, Any], expected: int, message: str
) -> None:
    script({"POST /v1/webhook-endpoints/x/test": lambda _: httpx.Response(202, json={**DELIVERY, **delivery})})
    assert run(["webhooks", "test", "x", "--wait", "0"]) == expected
    output = capsys.readouterr()
    assert message in output.out + output.err


def test_endpoints_and_deliveries_are_printed_as_tables(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    failing = {**ENDPOINT, "failing_since": "2026-01-01T00:00:00Z", "recipes": ["r"]}
    endpoints = {"items": [ENDPOINT, failing]}
    deliveries = {"items": [{**DELIVERY, "attempts": [TRIED], "tries": 1}, DELIVERY], "next_cursor": "more"}
    requests = script(
        {
            "GET /v1/webhook-endpoints": lambda _: httpx.Response(200, json=endpoints),
            "GET /v1/webhook-endpoints/x/deliveries": lambda _: httpx.Response(200, json=deliveries),
        }
    )
    assert run(["webhooks", "list"]) == 0
    stdout = capsys.readouterr().out
    assert "enabled" in stdout
    assert "failing since" in stdout
    assert run(["webhooks", "deliveries", "x", "--state", "pending", "--limit", "2"]) == 0
    assert "delivered 204 in 12 ms" in capsys.readouterr().out
    assert dict(requests[1].url.params) == {"state": "pending", "limit": "2"}


def test_status_names_lagging_consumers_and_disabled_or_failing_endpoints(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    moments = {"created_at": "2026-01-01T00:00:00Z", "acknowledged_at": "2026-01-01T00:00:00Z"}
    consumers = [
        {"name": name, "cursor": "c1", "behind": behind, **moments} for name, behind in (("mes", 7), ("bi", 0))
    ]
    disabled = {**ENDPOINT, "state": "disabled", "disabled_because": "it answered 410"}
    lists: dict[str, list[Any]] = {"recipes": [], "results/consumers": consumers}
    lists["webhook-endpoints"] = [ENDPOINT, disabled, {**ENDPOINT, "failing_since": "2026-01-01T00:00:00Z"}]

    def items(name: str) -> Callable[[httpx.Request], httpx.Response]:
        return lambda _: httpx.Response(200, json={"items": lists[name]})

    answers: Answers = {
        "GET /readyz": lambda _: httpx.Response(200, json={"status": "ready"}),
        "GET /v1/system": lambda _: httpx.Response(200, json=SYSTEM),
        **{f"GET /v1/{name}": items(name) for name in lists},
    }
    script(answers)
    assert run(["status"]) == 0
    _, health, mes, gone, failing = capsys.readouterr().out.splitlines()
    assert health == "Health: degraded. No dispatcher is running. One worker is lost."
    assert mes.startswith("Consumer mes is 7 behind")
    assert gone.endswith("is disabled: it answered 410.")
    assert "is failing since" in failing
    assert run(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["health"] == SYSTEM["health"]
    assert [consumer["name"] for consumer in status["consumers_behind"]] == ["mes"]
    assert len(status["silent_endpoints"]) == 2
    assert "secret" not in status["silent_endpoints"][0]
    script({**answers, "GET /v1/system": lambda _: problem(404, "not_found")})  # an earlier version of the system
    assert run(["status"]) == 0
    assert "Health" not in capsys.readouterr().out


@pytest.mark.parametrize("foreign", [httpx.Response(200, text="It works!"), httpx.Response(404), httpx.Response(401)])
def test_status_reports_that_the_url_is_not_linewatch(
    script: Script, capsys: pytest.CaptureFixture[str], foreign: httpx.Response
) -> None:
    script({"GET /readyz": lambda _: foreign})
    assert run(["status"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "does another program listen there?" in output.err


def test_a_part_is_printed_with_its_views(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    views = [{"view": view, "recipe": "bottle", "inspection": COMPLETED} for view in ("top", None)]
    part = {"part_id": "SN-1", "status": "completed", "verdict": "ng", "effective_verdict": "ng"}
    script({"GET /v1/parts/SN-1": lambda _: httpx.Response(200, json={**part, "counts": {"total": 2}, "views": views})})
    assert run(["part", "SN-1"]) == 0
    first, _, top, unnamed = capsys.readouterr().out.splitlines()
    assert first == "SN-1 is ng"
    assert top.split()[:4] == ["top", "bottle", "ng", "0.250000"]
    assert unnamed.split()[0] == "–"


def test_an_export_accepts_the_filters_of_the_list(
    script: Script, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    requests = script(
        {
            "GET /v1/inspections/export": lambda _: httpx.Response(200, content=b"id\n"),
            "GET /v1/inspections": lambda _: httpx.Response(200, json={"items": [], "next_cursor": None}),
        }
    )
    filters = ["--recipe", "r", "--lot", "L", "--part", "P", "--line", "l", "--station", "s", "--batch", "b"]
    filters += ["--verdict", "ng", "--effective-verdict", "review", "--status", "completed"]
    filters += ["--since", "2026-01-01T00:00:00+0100", "--until", "2026-02-01T00:00:00+0100"]
    assert run(["export", "--format", "parquet", "--out", str(tmp_path / "out.parquet"), *filters]) == 0
    assert (tmp_path / "out.parquet").read_bytes() == b"id\n"
    assert run(["list", *filters, "--json"]) == 0
    exported, listed = (dict(request.url.params) for request in requests)
    assert exported.pop("format") == "parquet"
    assert listed.pop("limit") == "20"
    assert exported == listed
    assert len(listed) == 11
    assert "out.parquet: 3 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "kind"),
    [("x.parquet", "parquet"), ("x.Parquet", "parquet"), ("x.csv", "csv"), ("x.txt", "csv"), ("-", "csv")],
)
def test_the_suffix_selects_the_export_format(
    script: Script,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str,
    kind: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    requests = script({"GET /v1/inspections/export": lambda _: httpx.Response(200, content=b"id\n")})
    assert run(["export", "--out", out]) == 0
    assert requests[0].url.params["format"] == kind
    printed = capsys.readouterr().out
    assert printed == "id\n" if out == "-" else (tmp_path / out).read_bytes() == b"id\n"


def test_a_wait_is_reported_once_and_after_a_second(
    script: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch.http.executors.time.sleep", lambda _: None)
    busy = [problem(503, "queue_full", retry_after="2"), problem(429, "rate_limited", retry_after="2")]
    answers = [*busy, httpx.Response(200, json={"items": [], "next_cursor": None})]
    script({"GET /v1/inspections": lambda _: answers.pop(0)})
    assert run(["list"]) == 0
    assert capsys.readouterr().err == "Waiting: No. (queue_full); retrying.\n"
    answers = [problem(503, "timeout"), httpx.Response(200, json={"items": [], "next_cursor": None})]
    assert run(["list"]) == 0
    assert capsys.readouterr().err == ""


def test_following_reports_the_start_and_the_end_of_an_outage(
    script: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch.http.executors.time.sleep", lambda _: None)
    outage = [problem(503, "database_unavailable", retry_after="2")] * 3

    def answer(_: httpx.Request) -> httpx.Response:
        if not answers:
            raise KeyboardInterrupt
        return answers.pop(0)

    answers = [*outage, page(1, following="c1"), *outage, page(2, following="c2")]
    script({"GET /v1/results": answer})
    assert run(["results", "--follow", "--json"]) == 130
    output = capsys.readouterr()
    assert [json.loads(line)["cursor"] for line in output.out.splitlines()] == ["c1", "c2"]
    assert [line.split()[0] for line in output.err.splitlines()] == [
        "Waiting:",
        "Back",
        "Waiting:",
        "Back",
        "linewatch:",
    ]


def test_a_key_that_may_only_submit_prints_what_was_accepted(
    script: Script, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"image")
    burst = {**BATCH, "inspections": [{**INSPECTION, "external_id": "1.png", "batch_id": BATCH["id"]}]}
    requests = script(
        {
            "POST /v1/batches": lambda _: httpx.Response(202, json=burst),
            f"GET /v1/batches/{BATCH['id']}": lambda _: problem(403, "forbidden"),
        }
    )
    submit = ["submit", str(folder), "--recipe", "r", "--wait"]
    assert run(submit) == 1
    output = capsys.readouterr()
    first, batch, last = output.err.splitlines()
    assert first.startswith("1 images were accepted")
    assert batch.strip() == f"linewatch list --batch {BATCH['id']}"
    assert "needs a key with the scope read" in last
    assert run(submit[:-1]) == 0  # continues although the key may not read the batch
    assert [request.method for request in requests] == ["POST", "GET", "GET"]


def test_a_review_prints_the_effective_verdict(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    reviewed = {**COMPLETED, "effective_verdict": "ok"}
    requests = script({"POST /v1/inspections/x/reviews": lambda _: httpx.Response(201, json=reviewed)})
    assert run(["review", "x", "--verdict", "ok", "--reviewer", "m", "--reason", "dust"]) == 0
    assert "is ok; the machine's verdict was ng." in capsys.readouterr().err
    assert json.loads(requests[0].content) == {"verdict": "ok", "reviewer": "m", "reason": "dust"}
