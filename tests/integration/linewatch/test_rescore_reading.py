"""Results of a run on the command line and with both clients, against a running api."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from linewatch.cli import failures, run
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.mock_system import CLIENTS
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions

RESULT_GROUPS = [
    ResultGroup("ok", "ok", "ng", 2),
    ResultGroup(None, "ng", "ok", 1),
    ResultGroup(None, "ok", "ok", 4),
    ResultGroup(None, None, "failed", 1),
]


@pytest.fixture
def api(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A running api, which commands use."""
    make_versions(engine)
    with running_api(settings) as http:
        monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
        yield http


@pytest.fixture
def run_id(engine: Engine, api: httpx.Client) -> UUID:
    """A run over eight images."""
    return make_completed_run(engine, RESULT_GROUPS)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    """Run a command and return its JSON lines."""
    assert run(["rescore", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("run_id")
def test_results_and_flips_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert [result["number"] for result in printed(capsys, "results", "last")] == list(range(1, 9))
    assert [result["number"] for result in printed(capsys, "results", "last", "--limit", "3")] == [1, 2, 3]
    assert [result["number"] for result in printed(capsys, "results", "last", "--verdict", "ok", "--before", "ng")] == [
        3
    ]
    [failed] = printed(capsys, "results", "last", "--error", "image_missing")
    assert (failed["number"], failed["verdict"], failed["error"]["code"]) == (8, None, "image_missing")
    assert [flip["flip"] for flip in printed(capsys, "flips", "last")] == ["ok_to_ng", "ok_to_ng", "ng_to_ok"]
    assert [flip["number"] for flip in printed(capsys, "flips", "last", "--from", "ng", "--to", "ok")] == [3]
    assert run(["rescore", "flips", "last"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["no", "image", "before", "now"]
    assert [row.split()[:4] for row in rows] == [["1", "–", "ok", "ng"], ["2", "–", "ok", "ng"], ["3", "–", "ng", "ok"]]
    assert [row.split()[-2] for row in rows] == ["ok", "ok", "–"]  # the reviews


def test_the_report_is_printed_or_written(run_id: UUID, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rescore", "report", "last"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["run"]["id"], report["images"], report["agreement"]["new_false_rejects"]) == (str(run_id), 8, 2)
    [output] = printed(capsys, "report", str(run_id), "--out", str(tmp_path / "report.json"))
    assert output["format"] == "json"
    assert json.loads((tmp_path / "report.json").read_text())["images"] == 8


def test_results_are_exported_to_files(run_id: UUID, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rescore", "export", "last", "--out", str(tmp_path / "all.parquet")]) == 0
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 8
    out = str(tmp_path / "flips.csv")
    [output] = printed(capsys, "export", str(run_id), "--flips", "--out", out)
    assert (output["out"], output["format"]) == (out, "csv")
    with (tmp_path / "flips.csv").open(newline="", encoding="utf-8-sig") as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_unknown_runs_are_failures(api: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = "0193e0c8-0000-7000-8000-000000000000"
    for verb in ("show", "results", "flips", "report"):
        assert run(["rescore", verb, unknown]) == failures.FAILED
        output = capsys.readouterr()
        assert (output.out, unknown in output.err, output.err.count("\n")) == ("", True, 1)
        assert run(["rescore", verb, "last"]) == failures.FAILED
        assert "there is no run yet" in capsys.readouterr().err
    assert run(["rescore", "export", unknown, "--out", str(tmp_path / "x.csv")]) == failures.FAILED
    assert list(tmp_path.glob("x.csv*")) == []


@pytest.mark.parametrize("kind", CLIENTS)
def test_both_clients_read_results(api: httpx.Client, run_id: UUID, kind: str) -> None:
    make: Callable[..., Any] = CLIENTS[kind]
    with make(str(api.base_url)) as lw:
        [run_of_it] = lw.rescore_runs(recipe=RECIPE, status="completed")
        assert (run_of_it.id, lw.rescore_run(run_id, wait=5).final) == (run_id, True)
        items = list(lw.rescore_results(run_id, page_size=3))
        assert [item.number for item in items] == list(range(1, 9))
        assert (items[0].before.verdict, items[0].reviewed_verdict, items[7].error.code) == (
            "ok",
            "ok",
            "image_missing",
        )
        assert [result.number for result in lw.rescore_flips(run_id, after="ng", page_size=1)] == [1, 2]
        assert lw.rescore_report(run_id)["changed"] == 3
