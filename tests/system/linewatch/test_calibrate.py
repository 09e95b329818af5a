"""`linewatch calibrate`: thresholds, review bands, stations and expected false-reject rates."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from core.vision.train import TrainingOptions, train
from linewatch import Client
from linewatch.cli import run
from tests.fixtures.deep_images import deep_levels, deep_png
from tests.fixtures.part_images import png, write_folder
from tests.fixtures.running_system import System
from tests.fixtures.training_parts import quick_detectability


@pytest.fixture
def lw(system: System) -> Iterator[Client]:
    with Client(system.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _url(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEWATCH_URL", system.url)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a quick detector."""
    folder = tmp_path_factory.mktemp("trained")
    options = TrainingOptions(
        architecture="conv-autoencoder",
        score_method="mse",
        input_size=32,
        epochs=1,
        alignment="off",
        review_rate=0.2,
        device="cpu",
    )
    with quick_detectability():
        train(write_folder(folder / "parts", good=40), folder / "bundle", options, lambda _: None)
    return folder / "bundle"


@pytest.fixture
def recipe(lw: Client, trained: Path) -> str:
    name = f"calibrated-{uuid4().hex[:8]}"
    lw.create_recipe(name)
    lw.upload_bundle(name, trained)
    return name


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of new good parts with two shots each."""
    folder = tmp_path_factory.mktemp("fresh")
    for number in range(40):
        (folder / f"part{number // 2:02}_{number % 2}.png").write_bytes(png(900 + number))
    return folder


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, expected: int = 0) -> dict[str, Any]:
    """Run a command and return the JSON object on its standard output."""
    assert run(["calibrate", *arguments, "--json"]) == expected
    [line] = capsys.readouterr().out.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result


def test_training_seeds_the_review_threshold(lw: Client, recipe: str) -> None:
    version = lw.model_version(recipe, 1)
    assert (version.manifest["training"]["groups"], version.manifest["training"]["near_duplicates"]) == (40, 0)
    seeded = version.threshold
    assert seeded.calibration is not None
    assert seeded.review_threshold == seeded.calibration["review"]["threshold"] < seeded.threshold


def test_a_preview_lists_flips_and_sets_nothing(
    capsys: pytest.CaptureFixture[str], lw: Client, recipe: str, fresh: Path
) -> None:
    before = lw.model_version(recipe, 1).thresholds
    scored = [lw.submit(path, recipe=recipe, wait=60) for path in sorted(fresh.iterdir())[:3]]
    low = min(inspection.anomaly_score or 0 for inspection in scored) / 2
    lw.set_threshold(recipe, 1, low)
    shown = answer(capsys, "--recipe", recipe, "--data", str(fresh), "--preview", "--false-reject-rate", "0.1")
    assert shown["preview"]["inspections"] == 3
    assert lw.model_version(recipe, 1).threshold.threshold == low
    preview = lw.preview_threshold(recipe, 1, low)
    kept = [inspection for inspection in scored if inspection.verdict != "ng" and not inspection.reasons]
    assert sum(flip.count for flip in preview.flips) == len(kept)
    assert {inspection.id for flip in preview.flips for inspection in flip.examples} == {
        inspection.id for inspection in kept
    }
    assert before[0].threshold != low

    assert run(["calibrate", "--recipe", recipe, "--data", str(fresh), "--false-reject-rate", "0.1", "--preview"]) == 0
    output = capsys.readouterr().out
    assert "The new threshold would be" in output
    assert "Nothing was set." in output


def test_a_station_gets_its_own_threshold_with_a_review_band(
    capsys: pytest.CaptureFixture[str], lw: Client, recipe: str, fresh: Path
) -> None:
    rates = ["--false-reject-rate", "0.1", "--review-rate", "0.3"]
    where = ["--station", "st-1", "--group-by", r"part(\d+)_"]
    result = answer(capsys, "--recipe", recipe, "--data", str(fresh), *rates, *where, "--reason", "new light")
    assert (result["station_id"], result["reason"]) == ("st-1", "new light")
    expected = lw.preview_threshold(recipe, 1, result["threshold"], station_id="st-1").expected_false_reject_rate
    assert expected is not None
    assert expected["rate"] == pytest.approx(result["calibration"]["expected_false_reject_rate"])
    assert (expected["sample_size"], expected["effective_sample_size"]) == (40, 20)
    assert (result["calibration"]["sample_size"], result["calibration"]["groups"]) == (40, 20)
    assert result["review_threshold"] == result["calibration"]["review"]["threshold"] <= result["threshold"]
    version = lw.model_version(recipe, 1)
    assert version.threshold.threshold != result["threshold"]
    assert version.threshold_at("st-1").threshold == result["threshold"]
    assert version.threshold_at("st-2") == version.threshold

    lw.set_threshold(recipe, 1, 1e9)
    image = sorted(fresh.iterdir())[0]
    at_st_1 = lw.submit(image, recipe=recipe, station_id="st-1", wait=60)
    at_st_2 = lw.submit(image, recipe=recipe, station_id="st-2", wait=60)
    assert (at_st_1.threshold, at_st_1.review_threshold) == (result["threshold"], result["review_threshold"])
    assert (at_st_2.threshold, at_st_2.review_threshold) == (1e9, None)


def test_the_expected_rate_is_confirmed_by_good_parts_and_rejected_by_others(
    capsys: pytest.CaptureFixture[str], lw: Client, recipe: str, fresh: Path, tmp_path: Path
) -> None:
    data = ["--recipe", recipe, "--data", str(fresh)]
    answer(capsys, *data, "--false-reject-rate", "0.1")
    kept = answer(capsys, *data, "--check")
    assert (kept["verdict"], kept["of"]) == ("kept", 40)
    assert kept["expected"][0] <= kept["rejected"] <= kept["expected"][1]
    assert len(kept["worst"]) == 5
    in_force = lw.model_version(recipe, 1).thresholds

    for number in range(20):
        (tmp_path / f"{number}.png").write_bytes(png(2000 + number, scratched=True))
    broken = answer(capsys, "--recipe", recipe, "--data", str(tmp_path), "--check", expected=1)
    assert (broken["verdict"], broken["rejected"]) == ("broken", 20)
    assert run(["calibrate", "--recipe", recipe, "--data", str(tmp_path), "--check"]) == 1
    output = capsys.readouterr()
    assert "20 of 20 good parts are rejected" in output.out
    [line] = [row for row in output.err.splitlines() if row.startswith("linewatch: ")]
    assert "the false-reject rate is not as expected" in line
    assert lw.model_version(recipe, 1).thresholds == in_force


def test_a_threshold_set_by_hand_has_no_expected_rate(
    capsys: pytest.CaptureFixture[str], lw: Client, recipe: str, fresh: Path
) -> None:
    lw.set_threshold(recipe, 1, 0.5)
    assert run(["calibrate", "--recipe", recipe, "--data", str(fresh), "--check"]) == 1
    assert "was set by hand and has no expected false-reject rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--false-reject-rate", "0.01"], 1, "40 good parts are too few for a false-reject rate of 0.01: at least 99"),
        (["--review-rate", "0.05"], 2, "--review-rate must be between the false-reject rate, 0.05, and 1"),
        (["--group-by", "part("], 2, "is not a valid regular expression"),
        (["--group-by", r"lot(\d+)"], 2, "gives the part or lot of none of the 40 images"),
        (["--check", "--preview"], 2, "--check tests the threshold in force"),
    ],
    ids=["few", "review", "pattern", "groups", "check"],
)
def test_invalid_calibration_options_are_refused(
    capsys: pytest.CaptureFixture[str], recipe: str, fresh: Path, options: list[str], code: int, reason: str
) -> None:
    assert run(["calibrate", "--recipe", recipe, "--data", str(fresh), *options]) == code
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize("body", [{"preview": True, "since": "2026-01-01T00:00:00"}, {"since": "2026-01-01T00:00:00Z"}])
def test_an_invalid_preview_is_refused(lw: Client, system: System, recipe: str, body: dict[str, object]) -> None:
    response = httpx.post(f"{system.url}/v1/recipes/{recipe}/model-versions/1/threshold", json={"threshold": 1, **body})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_field")


def test_the_preview_is_in_the_openapi_document(system: System, recipe: str) -> None:
    described = httpx.get(f"{system.url}/openapi.json").json()
    path = "/v1/recipes/{name}/model-versions/{version}/threshold"
    answers = described["paths"][path]["post"]["responses"]
    assert answers["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/ThresholdPreview")
    assert set(described["components"]["schemas"]["Flip"]["properties"]) == {"from", "to", "count", "examples"}
    shown = httpx.post(
        f"{system.url}/v1/recipes/{recipe}/model-versions/1/threshold", json={"threshold": 1, "preview": True}
    )
    assert (shown.status_code, shown.json()["flips"], shown.json()["inspections"]) == (200, [], 0)


def test_good_parts_of_another_bit_depth_are_refused(
    capsys: pytest.CaptureFixture[str], lw: Client, recipe: str, tmp_path: Path
) -> None:
    for seed in range(20):
        (tmp_path / f"{seed:02}.png").write_bytes(deep_png(deep_levels(seed)))
    assert lw.model_version(recipe, 1).manifest["preprocessing"]["bit_depth"] == 8
    assert run(["calibrate", "--recipe", recipe, "--data", str(tmp_path)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "20 of the 20 images do not have the bit depth that the version was trained on, 8" in error
