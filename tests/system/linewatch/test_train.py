"""`linewatch train --out`: its files, and resuming after a kill. Needs no server."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.vision.bundle.manifest import Manifest
from linewatch.cli import run
from tests.fixtures.part_images import write_folder
from tests.fixtures.training_parts import quick_detectability

SMALL = ["--architecture", "conv-autoencoder", "--score-method", "mse", "--input-size", "32", "--device", "cpu"]
SMALL += ["--alignment", "off"]


@pytest.fixture(autouse=True)
def _empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of child processes
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def _quick_detectability() -> Iterator[None]:
    with quick_detectability():
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("train") / "parts", good=30, defective=3)


def trained(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the command; return the JSON on standard output, and standard error."""
    assert run(["train", *arguments, "--json"]) == 0
    output = capfd.readouterr()
    result: dict[str, Any] = json.loads(output.out)
    return result, output.err


def test_the_report_is_written_beside_the_bundle(
    capfd: pytest.CaptureFixture[str], parts: Path, tmp_path: Path
) -> None:
    options = ["--epochs", "2", "--seed", "5", "--false-reject-rate", "0.1", "--review-rate", "0.3"]
    options += ["--group-by", r"(\d+)\.png", "--out", "made/ring"]
    written, _ = trained(capfd, "--data", str(parts), *SMALL, *options)
    assert (written["out"], written["report"]) == ("made/ring", "made/ring.html")
    assert sorted(path.name for path in Path("made").iterdir()) == ["ring", "ring.html"]
    manifest = Manifest.model_validate_json(Path("made/ring/manifest.json").read_bytes())
    assert manifest.model_dump(mode="json") == written["manifest"]
    assert manifest.score_method == "mse"
    assert manifest.training is not None
    chosen = {"seed": 5, "epochs": 2, "false_reject_rate": 0.1, "input_size": 32, "architecture": "conv-autoencoder"}
    assert manifest.training.options.items() >= chosen.items()
    assert manifest.training.groups == 30
    assert manifest.training.parts == {"training": 30, "calibration": 30}
    assert manifest.review_threshold is not None
    assert f"review from {manifest.review_threshold:.4g}</text>" in Path("made/ring.html").read_text()
    assert not list((tmp_path / "cache" / "linewatch" / "training").iterdir())

    assert run(["train", "--data", str(parts), *SMALL, "--epochs", "1", "--out", "named", "--report", "page.html"]) == 0
    stdout = capfd.readouterr().out
    assert "The report is in page.html." in stdout
    assert "linewatch models import named" in stdout
    assert "<!doctype html>" in Path("page.html").read_text()
    assert not Path("named.html").exists()


def test_notes_are_printed_once(capfd: pytest.CaptureFixture[str], parts: Path, tmp_path: Path) -> None:
    odd = write_folder(tmp_path / "odd", good=30, defective=2)
    (odd / "train" / "good" / "0007.png").write_bytes(b"no image")
    (odd / "train" / "scratch").mkdir()
    (odd / "test" / "good" / "0000.png").write_bytes((odd / "train" / "good" / "0000.png").read_bytes())
    _, remarks = trained(capfd, "--data", str(odd), *SMALL, "--epochs", "1", "--out", "bundle")
    for reason in ("only train/good is used", "1 of 30 images cannot be read", "1 of the 4 test images"):
        assert remarks.count(reason) == 1


def test_a_detector_is_chosen_within_a_budget(capfd: pytest.CaptureFixture[str], parts: Path) -> None:
    options = ["--architecture", "auto", "--input-size", "32", "--budget", "1s", "--choose-by", "test"]
    written, remarks = trained(capfd, "--data", str(parts), *options, "--device", "cpu", "--out", "chosen")
    trials = json.loads(Path("chosen/trials.json").read_bytes())
    assert f"of {len(trials)} candidates, {trials[0]['description']} was chosen" in remarks
    manifest = written["manifest"]
    assert manifest["architecture"]["name"] == trials[0]["architecture"]
    assert manifest["training"]["options"].items() >= {"choose_by": "test", "budget_seconds": 1.0}.items()
    assert "What was tried" in Path("chosen.html").read_text()


@pytest.mark.parametrize(
    ("good", "options", "code", "reason"),
    [
        (9, [*SMALL], 1, "9 good parts are too few: at least 10 are needed"),
        (12, [*SMALL, "--false-reject-rate", "0.05"], 1, "false-reject rate of 0.05: at least 19 are needed"),
        (12, ["--architecture", "auto", "--choose-by", "test"], 2, "there are no images to choose by: add test/good"),
        (12, [*SMALL, "--pooling", "0.02"], 2, "conv-autoencoder has no pooling"),
        (12, [*SMALL, "--backbone", "efficientnet-lite2"], 2, "conv-autoencoder has no backbone"),
    ],
    ids=["nine", "rate", "no-test", "pooling", "backbone"],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, good: int, options: list[str], code: int, reason: str
) -> None:
    folder = write_folder(tmp_path / "few", good=good)
    assert run(["train", "--data", str(folder), *options, "--out", "bundle"]) == code
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("linewatch: ")]
    assert reason in line
    assert not Path("bundle").exists()


def test_ten_parts_are_enough_and_the_remarks_say_what_that_costs(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "few", good=10)
    written, remarks = trained(capfd, "--data", str(folder), *SMALL, "--epochs", "1", "--out", "bundle")
    assert "10 good parts are few" in remarks
    assert "They allow a false-reject rate of 9.1% at best, not 5%" in remarks
    calibration = written["manifest"]["threshold"]["calibration"]
    assert calibration["false_reject_rate"] == pytest.approx(1 / 11)
    assert calibration["sample_size"] == 10


def test_the_same_command_continues_after_a_kill(parts: Path) -> None:
    command = ["--data", str(parts), *SMALL, "--epochs", "3"]
    program = [sys.executable, "-m", "linewatch.cli", "train", *command, "--out", "bundle", "--checkpoint", "kept"]

    def written() -> list[Path]:
        return [path for path in Path("kept").glob("*.checkpoint") if len(path.stem) == 64]  # no temporary files

    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
        while not written():
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert not Path("bundle").exists()
    completed = subprocess.run([*program, "--json"], capture_output=True, text=True, check=True)
    assert "training continues" in completed.stderr
    assert not written()
    # In a child process too, because equal weights need an equal number of threads.
    uninterrupted = [*program[: program.index("--out")], "--out", "whole", "--checkpoint", "kept", "--json"]
    whole = subprocess.run(uninterrupted, capture_output=True, text=True, check=True)
    assert "training continues" not in whole.stderr
    assert json.loads(completed.stdout)["manifest"]["files"] == json.loads(whole.stdout)["manifest"]["files"]
