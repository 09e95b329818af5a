"""The command and the client against the running system, as a person and a script use them."""

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

GOOD = 30


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
    """A folder of images, one of them no image, one of them cut off."""
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for number in range(5):
        (folder / "deeper" / f"{number}.png").write_bytes(png(500 + number))
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, expected: int = 0) -> list[Any]:
    """The JSON objects of standard output, where there must be nothing else."""
    assert run([*arguments, "--json"]) == expected
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_from_a_folder_of_good_parts_to_verdicts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path, lw: Client
) -> None:
    recipe = f"trained-{uuid4().hex[:8]}"
    folder = write_folder(tmp_path / "parts", good=GOOD, defective=4)
    training = ["train", "--recipe", recipe, "--data", str(folder), "--epochs", "1", "--input-size", "32"]
    [version] = answer(capsys, *training, "--activate")
    assert (version["version"], version["state"], version["active"]) == (1, "ready", True)
    assert version["manifest"]["metrics"]["controls"]
    assert version["report"] == f"{recipe}-v1.html"
    assert "<h1>Training on parts</h1>" in (tmp_path / version["report"]).read_text()

    [made] = answer(capsys, "calibrate", "--recipe", recipe, "--data", str(folder / "train" / "good"))
    assert made["calibration"]["sample_size"] == GOOD
    assert lw.model_version(recipe, 1).threshold.threshold == made["threshold"]

    verdicts = answer(capsys, "submit", str(images), "--recipe", recipe, "--lot", "L-1", "--wait")
    assert [one["external_id"] for one in verdicts] == [f"deeper/{number}.png" for number in range(5)]
    assert {one["verdict"] for one in verdicts} <= {"ok", "ng"}
    assert {one["threshold"] for one in verdicts} == {made["threshold"]}
    assert {one["lot_id"] for one in verdicts} == {"L-1"}

    [shown] = answer(capsys, "show", verdicts[0]["id"])
    assert shown == verdicts[0]
    assert len(answer(capsys, "list", "--recipe", recipe, "--limit", "3")) == 3
    [status] = answer(capsys, "status")
    assert [one["active_version"] for one in status["recipes"] if one["name"] == recipe] == [1]


def test_a_bundle_that_was_only_written_can_be_entered_later(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "parts", good=GOOD)
    out = tmp_path / "bundle"
    training = ["train", "--data", str(folder), "--epochs", "1", "--input-size", "32", "--out", str(out)]
    [written] = answer(capsys, *training)
    assert written["manifest"]["threshold"]["calibration"]["sample_size"] >= 19
    recipe = f"entered-{uuid4().hex[:8]}"
    [version] = answer(capsys, "models", "import", str(out), "--recipe", recipe)
    assert version["state"] == "ready"
    assert version["manifest"] == written["manifest"]
    assert run(training) == 1
    assert "exists already" in capsys.readouterr().err


def test_weights_of_the_demo_move_over_and_versions_go_forth_and_back(
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
    assert [one["version"] for one in listed] == [2, 1]
    [shown] = answer(capsys, "models", "show", "--recipe", recipe)
    assert shown["version"] == 2
    [before] = answer(capsys, "models", "rollback", "--recipe", recipe)
    assert before["version"] == 1
    [after] = answer(capsys, "models", "activate", "--recipe", recipe, "--version", "2")
    assert after["active"] is True
    for words in (["models", "show"], ["models", "list"]):
        assert run([*words, "--recipe", recipe]) == 0
    assert "set by hand, so its false-reject rate is not known" in capsys.readouterr().out


def test_a_bad_image_is_told_and_harms_no_other(capsys: pytest.CaptureFixture[str], images: Path, recipe: str) -> None:
    (images / "none.png").write_text("no image")
    (images / "cut.png").write_bytes(png(1)[:900])
    assert run(["submit", str(images), "--recipe", recipe, "--wait", "--json"]) == 1
    told = capsys.readouterr()
    found = {one["external_id"]: one for one in map(json.loads, told.out.splitlines())}
    assert found["none.png"]["status"] == "refused"
    assert found["cut.png"]["error"]["code"] == "image_undecodable"
    assert sum(one["status"] == "completed" for one in found.values()) == 5
    assert "rejected none.png" in told.err
    assert "1 of 7 images were rejected and 1 failed" in told.err


def test_verdicts_of_images_that_were_sent_before_are_printed_as_well(
    capsys: pytest.CaptureFixture[str], images: Path, recipe: str
) -> None:
    submission = ["submit", str(images), "--recipe", recipe, "--wait"]
    first = answer(capsys, *submission)
    (images / "deeper" / "0a.png").write_bytes(png(600))
    second = answer(capsys, *submission)
    assert [one["external_id"] for one in second] == [f"deeper/{name}.png" for name in ("0", "0a", "1", "2", "3", "4")]
    assert [second[0], *second[2:]] == first
    assert second[1]["status"] == "completed"


def test_without_a_single_good_image_each_is_told_its_own_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, recipe: str
) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    assert run(["submit", str(tmp_path / "text.png"), str(tmp_path / "empty.png"), "--recipe", recipe]) == 1
    told = capsys.readouterr().err
    assert "rejected text.png" in told
    assert "(unsupported_media_type)" in told
    assert "rejected empty.png" in told
    assert "(empty_body)" in told


def test_a_recipe_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str], images: Path) -> None:
    assert run(["submit", str(images), "--recipe", "nonsense"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "nonsense" in told.err


def test_a_client_hands_in_and_reads_back(lw: Client, recipe: str, tmp_path: Path) -> None:
    data = png(900)
    inspection = lw.submit(data, recipe=recipe, part_id="SN-1", metadata={"shift": 2}, wait=30)
    assert inspection.status == "completed"
    assert (inspection.part_id, inspection.metadata, inspection.external_id) == ("SN-1", {"shift": 2}, None)
    assert lw.image(inspection.id) == data
    heights = np.load(io.BytesIO(lw.anomaly_map(inspection.id)))
    assert heights.shape == (128, 128)
    assert heights.dtype == np.float32
    assert [one.id for one in lw.inspections(recipe=recipe, part_id="SN-1")] == [inspection.id]

    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(png(910 + number))
    batch = lw.submit_batch(paths, recipe=recipe, items={"1.png": {"part_id": "SN-2"}}, wait=30)
    assert (batch.status, batch.done) == ("completed", 3)
    assert {one.external_id: one.part_id for one in batch.inspections} == {
        "0.png": None,
        "1.png": "SN-2",
        "2.png": None,
    }


def test_a_client_moves_bundles_and_thresholds(lw: Client, recipe: str, another_bundle: Path, tmp_path: Path) -> None:
    assert lw.ready()
    assert lw.create_recipe(recipe, exist_ok=True).active_version == 1
    with pytest.raises(Refused, match="recipe_exists"):
        lw.create_recipe(recipe)
    second = lw.upload_bundle(recipe, another_bundle)
    assert (second.version, second.state, second.active) == (2, "ready", False)
    tar = lw.download_bundle(recipe, 2, tmp_path / "second.tar")
    assert lw.upload_bundle(recipe, tar).version == 2
    lw.activate(recipe, 2)
    made = lw.set_threshold(recipe, 2, 0.25, review_threshold=0.2, station_id="st-1")
    assert (made.threshold, made.review_threshold, made.station_id) == (0.25, 0.2, "st-1")
    assert lw.model_version(recipe, 2).threshold.threshold == 0.5
    assert lw.rollback(recipe).version == 1


def test_results_are_read_once_and_reviews_come_through_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, lw: Client, recipe: str
) -> None:
    ids = [str(lw.submit(png(920 + number), recipe=recipe, wait=60).id) for number in range(3)]
    reading = ["results", "--recipe", recipe, "--reviews", "--cursor-file", str(tmp_path / "mes.cursor")]
    assert [one["id"] for one in answer(capsys, *reading)] == ids
    assert answer(capsys, *reading) == []
    [reviewed] = answer(capsys, "review", ids[1], "--verdict", "ng", "--reviewer", "m", "--reason", "scratch")
    assert reviewed["effective_verdict"] == "ng"
    assert [(one["id"], one["feed_event"]) for one in answer(capsys, *reading)] == [(ids[1], "reviewed")]
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
        _, told = following.communicate(timeout=30)
        assert following.returncode == 130
        assert told.count("\n") == 1


def test_a_webhook_endpoint_from_its_creation_to_its_end(
    capsys: pytest.CaptureFixture[str], system: System, recipe: str
) -> None:
    url = f"http://127.0.0.1:{system.webhook_port}/mes"  # nobody listens there
    assert run(["webhooks", "create", url, "--event", "inspection.completed", "--recipe", recipe]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("whsec_")
    [listed] = answer(capsys, "webhooks", "list")
    [made] = [one for one in listed if one["recipes"] == [recipe]]
    assert made["id"] in told.err
    assert run(["webhooks", "test", made["id"], "--wait", "30"]) == 1
    assert "did not take it: unreachable" in capsys.readouterr().err
    [sent] = answer(capsys, "webhooks", "deliveries", made["id"])
    assert (sent["event"], sent["state"]) == ("endpoint.test", "pending")
    assert run(["status"]) == 0
    assert f"({made['id']}) is failing since" in capsys.readouterr().out.replace("\n", " ")
    [replayed] = answer(capsys, "webhooks", "replay", sent["id"])
    assert replayed["id"] == sent["id"]
    [changed] = answer(capsys, "webhooks", "update", made["id"], "--state", "disabled", "--all-recipes")
    assert (changed["state"], changed["recipes"]) == ("disabled", None)
    [rotated] = answer(capsys, "webhooks", "rotate-secret", made["id"])
    assert rotated["secret"] != told.out.strip()
    assert rotated["previous_secret_until"]
    assert answer(capsys, "webhooks", "delete", made["id"]) == [{"id": made["id"], "deleted": True}]
    assert run(["webhooks", "show", made["id"]]) == 1


def test_an_address_that_may_not_be_called_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["webhooks", "create", "http://127.0.0.1:1/mes", "--event", "inspection.completed"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1


def test_views_of_a_part_and_an_export(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, images: Path, recipe: str
) -> None:
    part = f"SN-{uuid4().hex[:8]}"
    for view, image in (("top", "0.png"), ("side", "1.png")):
        path = str(images / "deeper" / image)
        [one] = answer(capsys, "submit", path, "--recipe", recipe, "--part", part, "--view", view, "--wait")
        assert one["view"] == view
    [found] = answer(capsys, "part", part)
    assert (found["status"], sorted(one["view"] for one in found["views"])) == ("completed", ["side", "top"])
    out = tmp_path / "out.csv"
    [exported] = answer(capsys, "export", "--format", "csv", "--out", str(out), "--part", part)
    assert exported["bytes"] == out.stat().st_size
    assert out.read_text().count(part) == 2
