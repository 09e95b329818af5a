"""The command and the client against a running system."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import torch

from core.vision.detectors.autoencoder import Autoencoder, AutoencoderSettings
from linewatch import Client, Refused
from linewatch.cli import run
from tests.fixtures.part_images import png, write_folder
from tests.fixtures.running_system import System
from tests.fixtures.training_parts import quick_detectability

GOOD = 30
QUICK = ["--architecture", "feature-gaussian", "--input-size", "32"]


@pytest.fixture
def lw(system: System) -> Iterator[Client]:
    with Client(system.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _url(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_URL", system.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of images; one is not an image, one is truncated."""
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for number in range(5):
        (folder / "deeper" / f"{number}.png").write_bytes(png(500 + number))
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, expected: int = 0) -> list[Any]:
    """Run a command and return the JSON objects on its standard output."""
    assert run([*arguments, "--json"]) == expected
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_from_a_folder_of_good_parts_to_verdicts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path, lw: Client
) -> None:
    recipe = f"trained-{uuid4().hex[:8]}"
    folder = write_folder(tmp_path / "parts", good=GOOD, defective=4)
    with quick_detectability():
        [version] = answer(capsys, "train", "--recipe", recipe, "--data", str(folder), *QUICK, "--activate")
    assert (version["version"], version["state"], version["active"]) == (1, "ready", True)
    assert version["manifest"]["metrics"]["controls"]
    assert version["report"] == f"{recipe}-v1.html"
    assert "<h1>Training on parts</h1>" in (tmp_path / version["report"]).read_text()

    [calibrated] = answer(capsys, "calibrate", "--recipe", recipe, "--data", str(folder / "train" / "good"))
    assert calibrated["calibration"]["sample_size"] == GOOD
    assert lw.model_version(recipe, 1).threshold.threshold == calibrated["threshold"]

    verdicts = answer(capsys, "submit", str(images), "--recipe", recipe, "--lot", "L-1", "--wait")
    assert [inspection["external_id"] for inspection in verdicts] == [f"deeper/{number}.png" for number in range(5)]
    assert {inspection["verdict"] for inspection in verdicts} <= {"ok", "ng"}
    assert {inspection["threshold"] for inspection in verdicts} == {calibrated["threshold"]}
    assert {inspection["lot_id"] for inspection in verdicts} == {"L-1"}

    [shown] = answer(capsys, "show", verdicts[0]["id"])
    assert shown == verdicts[0]
    assert len(answer(capsys, "list", "--recipe", recipe, "--limit", "3")) == 3
    [status] = answer(capsys, "status")
    assert [entry["active_version"] for entry in status["recipes"] if entry["name"] == recipe] == [1]


def test_a_written_bundle_can_be_registered_later(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "parts", good=GOOD)
    out = tmp_path / "bundle"
    training = ["train", "--data", str(folder), *QUICK, "--out", str(out)]
    with quick_detectability():
        [written] = answer(capsys, *training)
    assert written["manifest"]["threshold"]["calibration"]["sample_size"] == GOOD
    assert written["manifest"]["training"]["parts"] == {"training": GOOD, "calibration": GOOD}
    recipe = f"entered-{uuid4().hex[:8]}"
    [version] = answer(capsys, "models", "import", str(out), "--recipe", recipe)
    assert version["state"] == "ready"
    assert version["manifest"] == written["manifest"]
    assert run(training) == 1
    assert "exists already" in capsys.readouterr().err


def test_weights_of_the_demo_are_imported_activated_and_rolled_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: str
) -> None:
    weights = tmp_path / "net.pth"
    torch.manual_seed(7)
    torch.save(Autoencoder(AutoencoderSettings(width=64, height=64)).state_dict(), weights)
    options = ["--threshold", "0.02", "--input-size", "64", "--recipe", recipe]
    [version] = answer(capsys, "models", "import", str(weights), *options, "--activate")
    assert (version["version"], version["active"]) == (2, True)
    assert version["thresholds"][0]["calibration"] is None
    [listed] = answer(capsys, "models", "list", "--recipe", recipe)
    assert [entry["version"] for entry in listed] == [2, 1]
    [shown] = answer(capsys, "models", "show", "--recipe", recipe)
    assert shown["version"] == 2
    [before] = answer(capsys, "models", "rollback", "--recipe", recipe)
    assert before["version"] == 1
    [after] = answer(capsys, "models", "activate", "--recipe", recipe, "--version", "2")
    assert after["active"] is True
    for words in (["models", "show"], ["models", "list"]):
        assert run([*words, "--recipe", recipe]) == 0
    assert "set by hand, so its false-reject rate is not known" in capsys.readouterr().out


def test_a_bad_image_is_reported_and_affects_no_other(
    capsys: pytest.CaptureFixture[str], images: Path, recipe: str
) -> None:
    (images / "none.png").write_text("no image")
    (images / "cut.png").write_bytes(png(1)[:900])
    assert run(["submit", str(images), "--recipe", recipe, "--wait", "--json"]) == 1
    output = capsys.readouterr()
    by_name = {inspection["external_id"]: inspection for inspection in map(json.loads, output.out.splitlines())}
    assert by_name["none.png"]["status"] == "refused"
    assert by_name["cut.png"]["error"]["code"] == "image_undecodable"
    assert sum(inspection["status"] == "completed" for inspection in by_name.values()) == 5
    assert "rejected none.png" in output.err
    assert "1 of 7 images were rejected and 1 failed" in output.err


def test_verdicts_of_earlier_images_are_printed_too(
    capsys: pytest.CaptureFixture[str], images: Path, recipe: str
) -> None:
    submission = ["submit", str(images), "--recipe", recipe, "--wait"]
    first = answer(capsys, *submission)
    (images / "deeper" / "0a.png").write_bytes(png(600))
    second = answer(capsys, *submission)
    assert [inspection["external_id"] for inspection in second] == [
        f"deeper/{name}.png" for name in ("0", "0a", "1", "2", "3", "4")
    ]
    assert [second[0], *second[2:]] == first
    assert second[1]["status"] == "completed"


def test_if_every_image_is_refused_each_reason_is_printed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: str
) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    assert run(["submit", str(tmp_path / "text.png"), str(tmp_path / "empty.png"), "--recipe", recipe]) == 1
    stderr = capsys.readouterr().err
    assert "rejected text.png" in stderr
    assert "(unsupported_media_type)" in stderr
    assert "rejected empty.png" in stderr
    assert "(empty_body)" in stderr


def test_an_unknown_recipe_is_a_one_line_error(capsys: pytest.CaptureFixture[str], images: Path) -> None:
    assert run(["submit", str(images), "--recipe", "nonsense"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "nonsense" in output.err


def test_a_client_submits_and_reads_inspections(lw: Client, recipe: str, tmp_path: Path) -> None:
    data = png(900)
    inspection = lw.submit(data, recipe=recipe, part_id="SN-1", metadata={"shift": 2}, wait=30)
    assert inspection.status == "completed"
    assert (inspection.part_id, inspection.metadata, inspection.external_id) == ("SN-1", {"shift": 2}, None)
    assert lw.image(inspection.id) == data
    heights = np.load(io.BytesIO(lw.anomaly_map(inspection.id)))
    assert heights.shape == (128, 128)
    assert heights.dtype == np.float32
    assert [inspection.id for inspection in lw.inspections(recipe=recipe, part_id="SN-1")] == [inspection.id]

    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(png(910 + number))
    batch = lw.submit_batch(paths, recipe=recipe, items={"1.png": {"part_id": "SN-2"}}, wait=30)
    assert (batch.status, batch.done) == ("completed", 3)
    assert {inspection.external_id: inspection.part_id for inspection in batch.inspections} == {
        "0.png": None,
        "1.png": "SN-2",
        "2.png": None,
    }


def test_a_client_manages_bundles_and_thresholds(lw: Client, recipe: str, another_bundle: Path, tmp_path: Path) -> None:
    assert lw.ready()
    assert lw.create_recipe(recipe, exist_ok=True).active_version == 1
    with pytest.raises(Refused, match="recipe_exists"):
        lw.create_recipe(recipe)
    second = lw.upload_bundle(recipe, another_bundle)
    assert (second.version, second.state, second.active) == (2, "ready", False)
    tar = lw.download_bundle(recipe, 2, tmp_path / "second.tar")
    assert lw.upload_bundle(recipe, tar).version == 2
    lw.activate(recipe, 2)
    threshold = lw.set_threshold(recipe, 2, 0.25, review_threshold=0.2, station_id="st-1")
    assert (threshold.threshold, threshold.review_threshold, threshold.station_id) == (0.25, 0.2, "st-1")
    assert lw.model_version(recipe, 2).threshold.threshold == 0.5
    assert lw.rollback(recipe).version == 1


def test_results_and_reviews_are_read_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, lw: Client, recipe: str
) -> None:
    ids = [str(lw.submit(png(920 + number), recipe=recipe, wait=60).id) for number in range(3)]
    reading = ["results", "--recipe", recipe, "--reviews", "--cursor-file", str(tmp_path / "mes.cursor")]
    assert [item["id"] for item in answer(capsys, *reading)] == ids
    assert answer(capsys, *reading) == []
    [reviewed] = answer(capsys, "review", ids[1], "--verdict", "ng", "--reviewer", "m", "--reason", "scratch")
    assert reviewed["effective_verdict"] == "ng"
    assert [(item["id"], item["feed_event"]) for item in answer(capsys, *reading)] == [(ids[1], "reviewed")]
    assert run(["list", "--recipe", recipe, "--effective-verdict", "ng"]) == 0
    assert ids[1] in capsys.readouterr().out

    name = f"mes-{uuid4().hex[:8]}"
    assert len(answer(capsys, "results", "--recipe", recipe, "--consumer", name)) == 3
    assert answer(capsys, "results", "--recipe", recipe, "--consumer", name, "--after", "now") == []
    lw.submit(png(930), recipe=recipe, wait=60)
    assert run(["status"]) == 0
    assert f"Consumer {name} is" in capsys.readouterr().out
    lw.forget_consumer(name)


def test_results_are_followed_until_interrupted(system: System, lw: Client, recipe: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "linewatch.cli", "results", "--follow", "--recipe", recipe, "--json"]
    environment = os.environ | {"LINEWATCH_URL": system.url}
    with subprocess.Popen(
        [*command, "--cursor-file", str(tmp_path / "mes.cursor")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    ) as following:
        assert following.stdout is not None
        for number in range(3):
            inspection = lw.submit(png(940 + number), recipe=recipe, wait=60)
            assert json.loads(following.stdout.readline())["id"] == str(inspection.id)
        following.send_signal(signal.SIGINT)
        _, stderr = following.communicate(timeout=30)
        assert following.returncode == 130
        assert stderr.count("\n") == 1


def test_a_webhook_endpoint_is_created_tested_changed_and_deleted(
    capsys: pytest.CaptureFixture[str], system: System, recipe: str
) -> None:
    url = f"http://127.0.0.1:{system.webhook_port}/mes"  # no process listens there
    assert run(["webhooks", "create", url, "--event", "inspection.completed", "--recipe", recipe]) == 0
    output = capsys.readouterr()
    assert output.out.startswith("whsec_")
    [listed] = answer(capsys, "webhooks", "list")
    [endpoint] = [entry for entry in listed if entry["recipes"] == [recipe]]
    assert endpoint["id"] in output.err
    assert run(["webhooks", "test", endpoint["id"], "--wait", "30"]) == 1
    assert "did not accept the test event: unreachable" in capsys.readouterr().err
    [sent] = answer(capsys, "webhooks", "deliveries", endpoint["id"])
    assert (sent["event"], sent["state"]) == ("endpoint.test", "pending")
    assert run(["status"]) == 0
    assert f"({endpoint['id']}) is failing since" in capsys.readouterr().out.replace("\n", " ")
    [replayed] = answer(capsys, "webhooks", "replay", sent["id"])
    assert replayed["id"] == sent["id"]
    [changed] = answer(capsys, "webhooks", "update", endpoint["id"], "--state", "disabled", "--all-recipes")
    assert (changed["state"], changed["recipes"]) == ("disabled", None)
    [rotated] = answer(capsys, "webhooks", "rotate-secret", endpoint["id"])
    assert rotated["secret"] != output.out.strip()
    assert rotated["previous_secret_until"]
    assert answer(capsys, "webhooks", "delete", endpoint["id"]) == [{"id": endpoint["id"], "deleted": True}]
    assert run(["webhooks", "show", endpoint["id"]]) == 1


def test_a_url_that_is_not_allowed_is_a_one_line_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["webhooks", "create", "http://127.0.0.1:1/mes", "--event", "inspection.completed"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1


def test_views_of_a_part_and_an_export(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path, recipe: str
) -> None:
    part = f"SN-{uuid4().hex[:8]}"
    for view, image in (("top", "0.png"), ("side", "1.png")):
        path = str(images / "deeper" / image)
        [inspection] = answer(capsys, "submit", path, "--recipe", recipe, "--part", part, "--view", view, "--wait")
        assert inspection["view"] == view
    [shown_part] = answer(capsys, "part", part)
    assert (shown_part["status"], sorted(view["view"] for view in shown_part["views"])) == (
        "completed",
        ["side", "top"],
    )
    out = tmp_path / "out.csv"
    [exported] = answer(capsys, "export", "--format", "csv", "--out", str(out), "--part", part)
    assert exported["bytes"] == out.stat().st_size
    assert out.read_text().count(part) == 2
