"""`linewatch rescore` against a running system."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import Client
from linewatch.cli import run
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System, upload_bundle

IMAGES = 6


@pytest.fixture
def inspected(system: System, recipe: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe with some inspections; commands use the running system."""
    monkeypatch.setenv("LINEWATCH_URL", system.url)
    with Client(system.url) as lw:
        batch = lw.submit_batch(
            {f"{seed}.png": png(seed) for seed in range(IMAGES)}, recipe=recipe, lot_id="L-1", wait=60
        )
    assert batch.counts["completed"] == IMAGES
    return recipe


def rescored(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """Run a command that creates a run and follows it, and return the final run."""
    capsys.readouterr()
    assert run(["rescore", *arguments, "--json"]) == 0
    finished_run: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert finished_run["status"] == "completed"
    return finished_run


def test_all_inspections_are_scored_and_judged_again(
    client: httpx.Client, inspected: str, another_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = str(upload_bundle(client, inspected, another_bundle))
    assert run(["rescore", "--recipe", inspected, "--model", version, "--all"]) == 0
    output = capsys.readouterr()
    header, row = output.out.splitlines()
    assert header.split() == ["completed", "failed", "ok", "ng", "review", "ok→ng", "ng→ok"]
    counts = dict(zip(header.split(), map(int, row.split()), strict=True))
    assert (counts["completed"], counts["failed"]) == (IMAGES, 0)
    assert "Ctrl-C does not stop it" in output.err
    assert "linewatch rescore report" in output.err

    page = tmp_path / "report.html"
    assert run(["rescore", "report", "last", "--out", str(page)]) == 0
    assert "<html" in page.read_text()
    assert run(["rescore", "flips", "last", "--json"]) == 0
    flips = [json.loads(line)["flip"] for line in capsys.readouterr().out.splitlines()]
    assert (flips.count("ok_to_ng"), flips.count("ng_to_ok")) == (counts["ok→ng"], counts["ng→ok"])

    # The first version with another threshold: its stored scores are judged again, and all exceed it.
    stored = rescored(capsys, "--recipe", inspected, "--model", "1", "--where", "lot=L-1", "--threshold", "0")
    before_ok = sum(
        inspection["verdict"] == "ok"
        for inspection in client.get(f"/v1/inspections?recipe={inspected}").json()["items"]
    )
    assert (stored["counts"]["ng"], stored["counts"]["ok_to_ng"]) == (IMAGES, before_ok)
    none = rescored(capsys, "--recipe", inspected, "--model", "1", "--where", "lot=L-2")
    assert (none["counts"]["total"], none["counts"]["completed"]) == (0, 0)


def test_images_that_were_never_uploaded_are_scored(
    inspected: str, system: System, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = system.data / "archive" / "lot-7"
    archive.mkdir(parents=True)
    for seed in range(3):
        (archive / f"{seed}.png").write_bytes(png(seed))
    (archive / "broken.png").write_bytes(b"no image")
    monkeypatch.chdir(archive)
    archive_run = rescored(capsys, "--recipe", inspected, "--model", "1", "--folder", ".", "--max-failure-rate", "0.5")
    assert (archive_run["counts"]["completed"], archive_run["counts"]["failed"]) == (3, 1)
    assert run(["rescore", "--recipe", inspected, "--model", "1", "--folder", ".", "--json"]) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["status"] == "failed"
    assert "1 of 4 images failed" in output.err
