"""`linewatch explain` prints the verdict of an image and draws an explanation."""

import json
from pathlib import Path

import httpx
import pytest
from PIL import Image

from linewatch.cli import failures, run
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image in the current folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "part.png"
    path.write_bytes(png(41, scratched=True))
    return path


def drawn(path: str) -> Image.Image:
    with Image.open(path, formats=["PNG"]) as image:
        image.load()
        return image


def test_explain_agrees_with_the_line(
    client: httpx.Client,
    system: System,
    recipe: str,
    image: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    limit = {"threshold": 0.01, "review_threshold": 0.005}
    assert client.post(f"/v1/recipes/{recipe}/model-versions/1/threshold", json=limit).status_code in (200, 201)
    result = final(client, submit(client, recipe, image.read_bytes())["id"])
    assert run(["explain", str(image), "--recipe", recipe, "--url", system.url, "--json"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["anomaly_score"] == pytest.approx(result["anomaly_score"], rel=1e-5)
    for name in ("threshold", "review_threshold", "verdict", "is_anomaly", "reasons"):
        assert explained[name] == result[name]
    assert (explained["version"], explained["png"]) == (1, "part.explained.png")
    assert drawn("part.explained.png").size[0] >= 900


def test_explaining_with_a_bundle_folder_needs_no_server(
    image: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["explain", image.name, "--bundle", str(bundle), "--out", "deeper/why.png", "--device", "cpu"]
    assert run([*arguments, "--url", "http://127.0.0.1:9"]) == 0
    verdict, png_line = capsys.readouterr().out.splitlines()
    assert verdict.startswith("part.png: ok: score ")
    assert "× the threshold), threshold 0.05" in verdict
    assert png_line == "Explanation: deeper/why.png"
    assert drawn("deeper/why.png").mode == "RGB"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["part.png"], failures.WRONG_USE, id="no model"),
        pytest.param(["part.png", "--bundle", "b", "--version", "2"], failures.WRONG_USE, id="two models"),
        pytest.param(["part.png", "--bundle", "b", "--out", "part.png"], failures.WRONG_USE, id="overwriting"),
        pytest.param(["missing.png", "--bundle", "b"], failures.FAILED, id="no image"),
        pytest.param(["part.png", "--bundle", "b"], failures.FAILED, id="no bundle"),
    ],
)
def test_usage_errors_are_one_line(
    image: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    assert run(["explain", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert image.read_bytes() == png(41, scratched=True)


def test_a_file_that_is_not_an_image_is_a_one_line_error(
    bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image.write_bytes(b"no image")
    assert run(["explain", image.name, "--bundle", str(bundle)]) == failures.FAILED
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not Path("part.explained.png").exists()
