"""What commands make of a system's answers, which are played."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import Client
from linewatch.cli import run
from linewatch.cli.options import WaitNotice
from tests.fixtures.mock_system import BATCH, DELIVERY, ENDPOINT, INSPECTION, problem

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
Play = Callable[[Answers], list[httpx.Request]]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays a system that answers by method and path; returns the requests that it will have got."""

    def played(answers: Answers) -> list[httpx.Request]:
        asked: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            request.read()
            asked.append(request)
            return answers[f"{request.method} {request.url.path}"](request)

        def client(*_: object, follows: bool = False) -> Client:
            tell = WaitNotice(follows=follows).tell
            return Client("http://system.test", transport=httpx.MockTransport(answer), on_wait=tell)

        for module in ("results", "inspections", "parts", "status", "submit", "webhooks"):
            monkeypatch.setattr(f"linewatch.cli.commands.{module}.client", client)
        return asked

    return played


def page(*numbers: int, following: str) -> httpx.Response:
    items = [{**COMPLETED, "external_id": f"{number}.png", "cursor": f"c{number}"} for number in numbers]
    return httpx.Response(200, json={"items": items, "next_cursor": following})


def test_results_are_lines_as_they_come(play: Play, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "cursor"
    pages = [page(1, 2, following="c2"), page(following="c2")]
    play({"GET /v1/results": lambda _: pages.pop(0)})
    assert run(["results", "--cursor-file", str(file)]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["finished", "result", "score", "part", "image", "id", "cursor"]
    assert first.split()[2:6] == ["ng", "0.250000", "SN-1", "1.png"]
    assert second.endswith("c2")
    assert file.read_text() == "c2\n"


def test_results_of_nothing_print_nothing(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play({"GET /v1/results": lambda _: page(following="c0")})
    assert run(["results"]) == 0
    assert run(["results", "--json"]) == 0
    assert capsys.readouterr().out == ""


def test_following_goes_on_where_the_place_was_lost(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        match request.url.params.get("after"):
            case "old":
                return problem(410, "cursor_expired", resume_after="c6")
            case "c6":
                return page(7, following="c7")
            case _:
                raise KeyboardInterrupt

    asked = play({"GET /v1/results": answer})
    assert run(["results", "--follow", "--after", "old", "--recipe", "r", "--reviews", "--json"]) == 130
    told = capsys.readouterr()
    assert [json.loads(line)["cursor"] for line in told.out.splitlines()] == ["c7"]
    remark, _ = told.err.splitlines()
    assert "cursor_expired" in remark
    assert "--after c6" in remark
    assert [(one.url.params["recipe"], one.url.params["include"]) for one in asked] == [("r", "reviews")] * 3


def test_without_following_a_lost_place_is_a_failure(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    play({"GET /v1/results": lambda _: problem(410, "cursor_expired", resume_after="c6")})
    assert run(["results", "--after", "old"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "(cursor_expired); resume_after is --after c6" in told


def test_the_secret_of_an_endpoint_is_printed_once(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    made = {**ENDPOINT, "secret": "whsec_made"}
    rotated = {**ENDPOINT, "secret": "whsec_new", "previous_secret_until": "2026-01-02T00:00:00Z"}
    asked = play(
        {
            "POST /v1/webhook-endpoints": lambda _: httpx.Response(201, json=made),
            "GET /v1/webhook-endpoints/x": lambda _: httpx.Response(200, json=ENDPOINT),
            "POST /v1/webhook-endpoints/x/rotate-secret": lambda _: httpx.Response(200, json=rotated),
        }
    )
    options = ["--event", "batch.completed", "--recipe", "r", "--max-group-size", "9"]
    assert run(["webhooks", "create", "https://mes.test/hook", *options]) == 0
    told = capsys.readouterr()
    assert told.out == "whsec_made\n"
    assert "not shown again" in told.err
    assert json.loads(asked[0].content) == {
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
    told = capsys.readouterr()
    assert told.out == "whsec_new\n"
    assert "The one before signs too until" in told.err


def test_an_update_names_what_it_changes(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    asked = play({"PATCH /v1/webhook-endpoints/x": lambda _: httpx.Response(200, json=ENDPOINT)})
    assert run(["webhooks", "update", "x", "--to", "https://mes.test/new", "--all-recipes", "--state", "enabled"]) == 0
    assert run(["webhooks", "update", "x", "--endpoint-url", "https://mes.test/newer"]) == 0
    events = ["--event", "batch.completed", "--event", "model.activated"]
    assert run(["webhooks", "update", "x", *events, "--max-group-delay-ms", "0"]) == 0
    assert run(["webhooks", "update", "x", "--url", "https://mes.test/new"]) == 2
    assert "--endpoint-url" in capsys.readouterr().err
    assert [json.loads(one.content) for one in asked] == [
        {"url": "https://mes.test/new", "recipes": None, "state": "enabled"},
        {"url": "https://mes.test/newer"},
        {"events": ["batch.completed", "model.activated"], "max_group_delay_ms": 0},
    ]


@pytest.mark.parametrize(
    ("delivery", "expected", "said"),
    [
        ({"state": "delivered", "attempts": [TRIED]}, 0, "took it: delivered 204 in 12 ms"),
        (
            {"attempts": [{**TRIED, "outcome": "refused_status", "status": 500, "answer": "no\nroom"}]},
            1,
            "did not take it: refused_status 500 in 12 ms: no room",
        ),
        ({}, 1, "nothing was sent"),
    ],
)
def test_the_outcome_of_a_test_is_told(
    play: Play, capsys: pytest.CaptureFixture[str], delivery: dict[str, Any], expected: int, said: str
) -> None:
    play({"POST /v1/webhook-endpoints/x/test": lambda _: httpx.Response(202, json={**DELIVERY, **delivery})})
    assert run(["webhooks", "test", "x", "--wait", "0"]) == expected
    told = capsys.readouterr()
    assert said in told.out + told.err


def test_endpoints_and_deliveries_are_tables(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    failing = {**ENDPOINT, "failing_since": "2026-01-01T00:00:00Z", "recipes": ["r"]}
    endpoints = {"items": [ENDPOINT, failing]}
    deliveries = {"items": [{**DELIVERY, "attempts": [TRIED], "tries": 1}, DELIVERY], "next_cursor": "more"}
    asked = play(
        {
            "GET /v1/webhook-endpoints": lambda _: httpx.Response(200, json=endpoints),
            "GET /v1/webhook-endpoints/x/deliveries": lambda _: httpx.Response(200, json=deliveries),
        }
    )
    assert run(["webhooks", "list"]) == 0
    told = capsys.readouterr().out
    assert "enabled" in told
    assert "failing since" in told
    assert run(["webhooks", "deliveries", "x", "--state", "pending", "--limit", "2"]) == 0
    assert "delivered 204 in 12 ms" in capsys.readouterr().out
    assert dict(asked[1].url.params) == {"state": "pending", "limit": "2"}


def test_status_names_who_is_behind_and_who_is_not_told(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    moments = {"created_at": "2026-01-01T00:00:00Z", "acknowledged_at": "2026-01-01T00:00:00Z"}
    consumers = [
        {"name": name, "cursor": "c1", "behind": behind, **moments} for name, behind in (("mes", 7), ("bi", 0))
    ]
    disabled = {**ENDPOINT, "state": "disabled", "disabled_because": "it answered 410"}
    lists: dict[str, list[Any]] = {"recipes": [], "results/consumers": consumers}
    lists["webhook-endpoints"] = [ENDPOINT, disabled, {**ENDPOINT, "failing_since": "2026-01-01T00:00:00Z"}]

    def items(name: str) -> Callable[[httpx.Request], httpx.Response]:
        return lambda _: httpx.Response(200, json={"items": lists[name]})

    play(
        {
            "GET /readyz": lambda _: httpx.Response(200, json={"status": "ready"}),
            **{f"GET /v1/{name}": items(name) for name in lists},
        }
    )
    assert run(["status"]) == 0
    _, mes, gone, failing = capsys.readouterr().out.splitlines()
    assert mes.startswith("Consumer mes is 7 behind")
    assert gone.endswith("is disabled: it answered 410.")
    assert "is failing since" in failing
    assert run(["status", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told["consumers_behind"]] == ["mes"]
    assert len(told["silent_endpoints"]) == 2
    assert "secret" not in told["silent_endpoints"][0]


@pytest.mark.parametrize("foreign", [httpx.Response(200, text="It works!"), httpx.Response(404), httpx.Response(401)])
def test_status_of_something_else_says_so(
    play: Play, capsys: pytest.CaptureFixture[str], foreign: httpx.Response
) -> None:
    play({"GET /readyz": lambda _: foreign})
    assert run(["status"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "does something else listen there?" in told.err


def test_a_part_is_told_by_its_views(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    views = [{"view": view, "recipe": "bottle", "inspection": COMPLETED} for view in ("top", None)]
    found = {"part_id": "SN-1", "status": "completed", "verdict": "ng", "effective_verdict": "ng"}
    play({"GET /v1/parts/SN-1": lambda _: httpx.Response(200, json={**found, "counts": {"total": 2}, "views": views})})
    assert run(["part", "SN-1"]) == 0
    first, _, top, unnamed = capsys.readouterr().out.splitlines()
    assert first == "SN-1 is ng"
    assert top.split()[:4] == ["top", "bottle", "ng", "0.250000"]
    assert unnamed.split()[0] == "–"


def test_an_export_takes_the_filters_of_the_list(
    play: Play, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = play(
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
    exported, listed = (dict(one.url.params) for one in asked)
    assert exported.pop("format") == "parquet"
    assert listed.pop("limit") == "20"
    assert exported == listed
    assert len(listed) == 11
    assert "out.parquet: 3 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "kind"),
    [("x.parquet", "parquet"), ("x.Parquet", "parquet"), ("x.csv", "csv"), ("x.txt", "csv"), ("-", "csv")],
)
def test_an_export_is_written_as_its_name_ends(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: str, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = play({"GET /v1/inspections/export": lambda _: httpx.Response(200, content=b"id\n")})
    assert run(["export", "--out", out]) == 0
    assert asked[0].url.params["format"] == kind
    printed = capsys.readouterr().out
    assert printed == "id\n" if out == "-" else (tmp_path / out).read_bytes() == b"id\n"


def test_waiting_is_told_after_a_second_and_once(
    play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch.http.executors.time.sleep", lambda _: None)
    busy = [problem(503, "queue_full", retry_after="2"), problem(429, "rate_limited", retry_after="2")]
    answers = [*busy, httpx.Response(200, json={"items": [], "next_cursor": None})]
    play({"GET /v1/inspections": lambda _: answers.pop(0)})
    assert run(["list"]) == 0
    assert capsys.readouterr().err == "Waiting: No. (queue_full); it is tried again.\n"
    answers = [problem(503, "timeout"), httpx.Response(200, json={"items": [], "next_cursor": None})]
    assert run(["list"]) == 0
    assert capsys.readouterr().err == ""


def test_a_reader_that_follows_says_when_it_waits_and_when_it_goes_on(
    play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("linewatch.http.executors.time.sleep", lambda _: None)
    away = [problem(503, "database_unavailable", retry_after="2")] * 3

    def answer(_: httpx.Request) -> httpx.Response:
        if not answers:
            raise KeyboardInterrupt
        return answers.pop(0)

    answers = [*away, page(1, following="c1"), *away, page(2, following="c2")]
    play({"GET /v1/results": answer})
    assert run(["results", "--follow", "--json"]) == 130
    told = capsys.readouterr()
    assert [json.loads(line)["cursor"] for line in told.out.splitlines()] == ["c1", "c2"]
    assert [line.split()[0] for line in told.err.splitlines()] == ["Waiting:", "It", "Waiting:", "It", "linewatch:"]


def test_who_may_only_submit_is_told_what_was_accepted(
    play: Play, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "1.png").write_bytes(b"image")
    burst = {**BATCH, "inspections": [{**INSPECTION, "external_id": "1.png", "batch_id": BATCH["id"]}]}
    asked = play(
        {
            "POST /v1/batches": lambda _: httpx.Response(202, json=burst),
            f"GET /v1/batches/{BATCH['id']}": lambda _: problem(403, "forbidden"),
        }
    )
    submit = ["submit", str(folder), "--recipe", "r", "--wait"]
    assert run(submit) == 1
    told = capsys.readouterr()
    first, batch, last = told.err.splitlines()
    assert first.startswith("1 images were accepted")
    assert batch.strip() == f"linewatch list --batch {BATCH['id']}"
    assert "needs a key with the scope read" in last
    assert run(submit[:-1]) == 0  # it goes on where it was, though the key may not ask for the batch
    assert [one.method for one in asked] == ["POST", "GET", "GET"]


def test_a_review_says_whose_verdict_counts(play: Play, capsys: pytest.CaptureFixture[str]) -> None:
    reviewed = {**COMPLETED, "effective_verdict": "ok"}
    asked = play({"POST /v1/inspections/x/reviews": lambda _: httpx.Response(201, json=reviewed)})
    assert run(["review", "x", "--verdict", "ok", "--reviewer", "m", "--reason", "dust"]) == 0
    assert "is ok; the machine's verdict was ng." in capsys.readouterr().err
    assert json.loads(asked[0].content) == {"verdict": "ok", "reviewer": "m", "reason": "dust"}
