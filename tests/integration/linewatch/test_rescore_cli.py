"""`linewatch rescore` against a running api. No worker is there."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from linewatch.cli import failures, run
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.part_images import png
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions

ASKED = ["rescore", "--recipe", RECIPE, "--model", "2"]


@pytest.fixture
def api(engine: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    """A running api, which commands find; archives lie below this test's folder."""
    make_versions(engine)
    with running_api(settings, LINEWATCH_ARCHIVE_ROOTS=str(tmp_path)) as http:
        monkeypatch.setenv("LINEWATCH_URL", str(http.base_url))
        yield http


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command that does its work prints as JSON."""
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_is_started_found_and_steered(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--where", "lot=L-1", "--where", "max_age=2d", "--threshold", "0.5", "--window", "22:00-05:00"]
    assert run([*ASKED, *own, "--time-zone", "Europe/Berlin", "--detach"]) == 0
    run_id = capsys.readouterr().out.strip()
    made = api.get(f"/v1/rescore-runs/{run_id}").json()
    assert (made["threshold"], made["window"], made["time_zone"]) == (0.5, "22:00-05:00", "Europe/Berlin")
    assert (made["source"]["where"]["lot_id"], "since" in made["source"]["where"]) == ("L-1", True)
    assert said(capsys, "rescore", "show", "last") == made
    assert said(capsys, "rescore", "pause", run_id)["status"] == "paused"
    assert said(capsys, "rescore", "resume", "last")["status"] == "queued"
    assert run(["rescore", "list", "--status", "queued"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert (header.split()[:3], row.split()[2:6]) == (["made", "recipe", "version"], [RECIPE, "2", "queued", "0"])
    assert row.split()[-1] == run_id
    assert run(["rescore", "cancel", run_id]) == 0
    assert f"Run {run_id} is cancelled" in capsys.readouterr().err
    assert run(["rescore", "attach", "last"]) == failures.FAILED
    assert f"run {run_id} was cancelled" in capsys.readouterr().err
    assert run(["rescore", "pause", run_id]) == failures.FAILED


def test_all_and_folders_and_manifests_are_sources(
    api: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lot").mkdir()
    (tmp_path / "lot" / "one.png").write_bytes(png(1))
    (tmp_path / "lot.csv").write_text("path\nlot/one.png\n")
    monkeypatch.chdir(tmp_path / "lot")
    assert said(capsys, *ASKED, "--all", "--detach")["source"] == {"where": {}}
    assert said(capsys, *ASKED, "--folder", "../lot", "--detach")["source"]["folder"].endswith(f"{tmp_path}/lot")
    source = said(capsys, *ASKED, "--manifest", "../lot.csv", "--detach")["source"]
    assert source["manifest"].endswith(f"{tmp_path}/lot.csv")
    assert run([*ASKED, "--folder", "/", "--detach"]) == failures.FAILED
    assert run([*ASKED, "--folder", "s3://elsewhere/lots", "--detach"]) == failures.FAILED
    assert "s3://elsewhere/lots" in capsys.readouterr().err


def test_what_came_of_a_run_is_told(engine: Engine, api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = make_completed_run(engine, [ResultGroup(None, "ok", "ng", 3), ResultGroup(None, None, "failed", 2)])
    assert run(["rescore", "attach", "last"]) == 0
    told = capsys.readouterr()
    header, row = told.out.splitlines()
    counts = dict(zip(header.split(), row.split(), strict=True))
    assert (counts["completed"], counts["failed"], counts["ok→ng"]) == ("3", "2", "3")
    assert f"linewatch rescore report {run_id}" in told.err
    assert said(capsys, "rescore", "attach", str(run_id))["status"] == "completed"
    assert said(capsys, "rescore", "activate", "last", "--max-failures", "0.5")["activated"] is True
    assert said(capsys, "rescore", "rollback", "last")["activated"] is False


def test_the_last_run_is_none_of_a_challenger(api: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    api.put(f"/v1/recipes/{RECIPE}/challenger", json={"model_version": 2, "share": 0.5})
    assert run(["rescore", "show", "last"]) == failures.FAILED
    assert "there is no run yet" in capsys.readouterr().err
    assert run(["rescore", "list"]) == 0
    assert "queued (challenger)" in capsys.readouterr().out


def test_a_run_that_is_cancelled_while_it_is_followed_is_a_failure(
    api: httpx.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    following = threading.Thread(target=lambda: codes.append(run([*ASKED, "--all", "--json"])))
    following.start()
    cancel_first(api)
    following.join(30)
    told = capsys.readouterr()
    assert (codes, json.loads(told.out)["status"]) == ([failures.FAILED], "cancelled")


def cancel_first(api: httpx.Client) -> None:
    """Cancel the one run as soon as it is there."""
    deadline = time.monotonic() + 30
    while not (found := api.get("/v1/rescore-runs", params={"status": "queued"}).json()["items"]):
        assert time.monotonic() < deadline
    assert api.post(f"/v1/rescore-runs/{found[0]['id']}/cancel").status_code == 200


def test_an_interrupt_detaches(api: httpx.Client) -> None:
    command = subprocess.Popen(
        [sys.executable, "-m", "linewatch.cli", *ASKED, "--all"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        assert command.stderr is not None
        run_id = command.stderr.readline().split()[1].rstrip(";")
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=30)
    finally:
        command.kill()
        command.wait()
    assert (command.returncode, out) == (failures.INTERRUPTED, "")
    assert err == f"linewatch: run {run_id} goes on; `linewatch rescore attach {run_id}` follows it again\n"
    assert api.get(f"/v1/rescore-runs/{run_id}").json()["status"] == "queued"
