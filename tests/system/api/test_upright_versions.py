"""A version that brings parts upright: images without a part need review, and maps lie on the images as sent."""

import io
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image

from core.vision.bundle.folder import read_folder, write_folder
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import MANIFEST, verify_bundle
from core.vision.evaluation.heatmap import overlay, scale_to_threshold
from core.vision.input.map_placement import place_map
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Upright
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import encoded
from tests.fixtures.posed_parts import Placement, draw_part, wedge
from tests.fixtures.running_system import upload_bundle

PART = draw_part(wedge, Placement(70, 0.45, 0.55), defect=(-0.5, 0.0))


@pytest.fixture(scope="module")
def upright_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with the pose of wedges, and no ranges of other inputs."""
    files = read_folder(bundle)
    manifest = verify_bundle(files)
    pose = Upright(length=0.56, width=0.18, size=0.27, axis="area", lopsided=True, inside=True, shadow=False)
    preprocessing = manifest.preprocessing.model_copy(update={"upright": pose})
    upright = manifest.model_copy(update={"preprocessing": preprocessing})
    files = {**files, MANIFEST: upright.to_json()}
    detector = load_detector(files, device="cpu", max_pixels=10**6)
    scores = detector.score([detector.prepare(files[golden.file]) for golden in manifest.golden]).scores.tolist()
    golden = [each.model_copy(update={"score": score}) for each, score in zip(manifest.golden, scores, strict=True)]
    folder = tmp_path_factory.mktemp("bundles") / "upright"
    write_folder(folder, {**files, MANIFEST: upright.model_copy(update={"golden": golden}).to_json()})
    return folder


@pytest.fixture
def upright_recipe(client: httpx.Client, upright_bundle: Path) -> str:
    name = f"recipe-{uuid4().hex[:12]}"
    client.post("/v1/recipes", json={"name": name})
    upload_bundle(client, name, upright_bundle)
    return name


def anomaly_map_of(client: httpx.Client, inspection: dict) -> np.ndarray:  # type: ignore[type-arg]
    answer = client.get(f"/v1/inspections/{inspection['id']}/anomaly-map")
    assert answer.status_code == 200, answer.text
    return np.asarray(np.load(io.BytesIO(answer.content), allow_pickle=False))


def test_an_image_without_a_whole_part_needs_review(client: httpx.Client, upright_recipe: str) -> None:
    expected = {
        "part.png": (encoded(PART), []),
        "turned.png": (encoded(draw_part(wedge, Placement(250, 0.52, 0.46))), []),
        "empty.png": (encoded(Image.new("RGB", (240, 200), (200, 200, 200))), ["input_pose"]),
        "cut-off.png": (encoded(draw_part(wedge, Placement(0, 0.85))), ["input_pose"]),
        "far-away.png": (encoded(draw_part(wedge, Placement(30, scale=30))), ["input_pose"]),
    }
    answer = client.post(
        "/v1/batches",
        data={"recipe": upright_recipe},
        files=[("images", (name, image)) for name, (image, _) in expected.items()],
    )
    assert answer.status_code == 202, answer.text
    results = [final(client, inspection["id"]) for inspection in answer.json()["inspections"]]
    assert {result["external_id"]: result["reasons"] for result in results} == {
        name: reasons for name, (_, reasons) in expected.items()
    }
    for result in results:
        assert result["status"] == "completed"
        judged = "ng" if result["is_anomaly"] else "ok"
        assert result["verdict"] == ("review" if result["reasons"] else judged)


def test_the_anomaly_map_covers_the_image_as_sent(
    client: httpx.Client, upright_recipe: str, upright_bundle: Path
) -> None:
    result = final(client, submit(client, upright_recipe, encoded(PART))["id"])
    anomaly_map = anomaly_map_of(client, result)
    detector = load_detector(read_folder(upright_bundle), device="cpu", max_pixels=10**6)
    prepared = prepare(encoded(PART), detector.preprocessing, max_pixels=10**6)
    of_part = detector.score([prepared.pixels]).maps[0]
    np.testing.assert_allclose(anomaly_map, place_map(of_part, prepared), rtol=1e-4, atol=1e-7)
    rows, columns = anomaly_map.shape
    assert columns / rows == pytest.approx(240 / 200, rel=0.05)
    for corner in (anomaly_map[0, 0], anomaly_map[0, -1], anomaly_map[-1, 0], anomaly_map[-1, -1]):
        assert corner == 0
    assert 0 < (anomaly_map > 0).mean() < 0.2  # the part, turned, with its margin


def test_the_heatmap_is_drawn_on_the_image_as_sent(client: httpx.Client, upright_recipe: str) -> None:
    result = final(client, submit(client, upright_recipe, encoded(PART))["id"])
    answer = client.get(f"/v1/inspections/{result['id']}/heatmap")
    assert answer.status_code == 200, answer.text
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)))
    heat = scale_to_threshold(anomaly_map_of(client, result), result["anomaly_score"], result["threshold"])
    np.testing.assert_array_equal(drawn, np.asarray(overlay(PART, heat)))
    assert drawn.shape == (200, 240, 3)
    np.testing.assert_array_equal(drawn[:20], np.asarray(PART)[:20])  # no heat beside the part


def test_an_image_without_a_part_has_a_heatmap_too(client: httpx.Client, upright_recipe: str) -> None:
    empty = encoded(Image.new("RGB", (240, 200), (200, 200, 200)))
    result = final(client, submit(client, upright_recipe, empty)["id"])
    assert Image.open(io.BytesIO(client.get(f"/v1/inspections/{result['id']}/heatmap").content)).size == (240, 200)
