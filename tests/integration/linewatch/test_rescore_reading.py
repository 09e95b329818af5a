"""What a run has found, at the command line and with both clients, from a running api."""

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
from tests.fixtures.mock_system import FACES
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions

SEEN = [
    ResultGroup("ok", "ok", "ng", 2),
    ResultGroup(None, "ng", "ok", 1),
    ResultGroup(None, "ok", "ok", 4),
    ResultGroup(None, None, "failed", 1),
]


@pytest.fixture
def api(engine: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A running api, which commands find."""
    make_versions(engine)
    with running_api(settings) as http:
        monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
        yield http


@pytest.fixture
def run_id(engine: Engine, api: httpx.Client) -> UUID:
    """A run over eight images."""
    return make_completed_run(engine, SEEN)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    """The JSON lines of a command."""
    assert run(["rescore", *arguments, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("run_id")
def test_results_and_flips_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert [one["number"] for one in printed(capsys, "results", "last")] == list(range(1, 9))
    assert [one["number"] for one in printed(capsys, "results", "last", "--limit", "3")] == [1, 2, 3]
    assert [one["number"] for one in printed(capsys, "results", "last", "--verdict", "ok", "--before", "ng")] == [3]
    [failed] = printed(capsys, "results", "last", "--error", "image_missing")
    assert (failed["number"], failed["verdict"], failed["error"]["code"]) == (8, None, "image_missing")
    assert [one["flip"] for one in printed(capsys, "flips", "last")] == ["ok_to_ng", "ok_to_ng", "ng_to_ok"]
    assert [one["number"] for one in printed(capsys, "flips", "last", "--from", "ng", "--to", "ok")] == [3]
    assert run(["rescore", "flips", "last"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["no", "image", "before", "now"]
    assert [row.split()[:4] for row in rows] == [["1", "–", "ok", "ng"], ["2", "–", "ok", "ng"], ["3", "–", "ng", "ok"]]
    assert [row.split()[-2] for row in rows] == ["ok", "ok", "–"]  # what people said


def test_the_report_is_printed_or_written(run_id: UUID, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rescore", "report", "last"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["run"]["id"], report["pictures"], report["agreement"]["new_false_rejects"]) == (str(run_id), 8, 2)
    [told] = printed(capsys, "report", str(run_id), "--out", str(tmp_path / "report.json"))
    assert told["format"] == "json"
    assert json.loads((tmp_path / "report.json").read_text())["pictures"] == 8


def test_results_become_files(run_id: UUID, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rescore", "export", "last", "--out", str(tmp_path / "all.parquet")]) == 0
    assert pq.read_table(tmp_path / "all.parquet").num_rows == 8
    out = str(tmp_path / "flips.csv")
    [told] = printed(capsys, "export", str(run_id), "--flips", "--out", out)
    assert (told["out"], told["format"]) == (out, "csv")
    with (tmp_path / "flips.csv").open(newline="", encoding="utf-8-sig") as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_what_is_not_there_is_a_failure(api: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = "0193e0c8-0000-7000-8000-000000000000"
    for verb in ("show", "results", "flips", "report"):
        assert run(["rescore", verb, unknown]) == failures.FAILED
        told = capsys.readouterr()
        assert (told.out, unknown in told.err, told.err.count("\n")) == ("", True, 1)
        assert run(["rescore", verb, "last"]) == failures.FAILED
        assert "there is no run yet" in capsys.readouterr().err
    assert run(["rescore", "export", unknown, "--out", str(tmp_path / "x.csv")]) == failures.FAILED
    assert list(tmp_path.glob("x.csv*")) == []


@pytest.mark.parametrize("face", FACES)
def test_both_clients_read_it(api: httpx.Client, run_id: UUID, face: str) -> None:
    make: Callable[..., Any] = FACES[face]
    with make(str(api.base_url)) as lw:
        [run_of_it] = lw.rescore_runs(recipe=RECIPE, status="completed")
        assert (run_of_it.id, lw.rescore_run(run_id, wait=5).final) == (run_id, True)
        found = list(lw.rescore_results(run_id, page_size=3))
        assert [one.number for one in found] == list(range(1, 9))
        assert (found[0].before.verdict, found[0].reviewed_verdict, found[7].error.code) == (
            "ok",
            "ok",
            "image_missing",
        )
        assert [one.number for one in lw.rescore_flips(run_id, after="ng", page_size=1)] == [1, 2]
        assert lw.rescore_report(run_id)["changed"] == 3
