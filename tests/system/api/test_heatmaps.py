"""Heatmaps of inspections: in the size of the image, upright, scaled by the threshold of the inspection."""

import io
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image

from core.vision.evaluation.heatmap import overlay, scale_to_threshold
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import encoded, part, png, write_bundle
from tests.fixtures.running_system import upload_bundle


def heatmap_of(client: httpx.Client, inspection: dict) -> Image.Image:  # type: ignore[type-arg]
    answer = client.get(f"/v1/inspections/{inspection['id']}/heatmap")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png"), answer.text
    return Image.open(io.BytesIO(answer.content))


def test_a_heatmap_is_the_image_overlaid_with_heat(client: httpx.Client, recipe: str) -> None:
    image = part(21, size=(300, 210), scratched=True)
    result = final(client, submit(client, recipe, encoded(image))["id"])
    drawn = heatmap_of(client, result)
    anomaly_map = np.load(io.BytesIO(client.get(f"/v1/inspections/{result['id']}/anomaly-map").content))
    expected = overlay(image, scale_to_threshold(anomaly_map, result["anomaly_score"], result["threshold"]))
    np.testing.assert_array_equal(np.asarray(drawn), np.asarray(expected))
    assert heatmap_of(client, result).tobytes() == drawn.tobytes()  # now from the store


def test_a_heatmap_is_upright(client: httpx.Client, recipe: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = encoded(part(22, size=(120, 80)), "JPEG", exif=turned)
    accepted = client.post(
        "/v1/inspections", params={"recipe": recipe}, content=data, headers={"Content-Type": "image/jpeg"}
    ).json()
    assert heatmap_of(client, final(client, accepted["id"])).size == (80, 120)


@pytest.mark.parametrize(("share", "calm"), [(10, True), (0.5, False)], ids=["below", "above"])
def test_only_a_score_at_or_above_the_threshold_has_a_contour(
    client: httpx.Client, recipe: str, tmp_path: Path, share: float, calm: bool
) -> None:
    data = png(23)
    score = final(client, submit(client, recipe, data)["id"])["anomaly_score"]
    name = f"recipe-{uuid4().hex[:12]}"
    client.post("/v1/recipes", json={"name": name})
    upload_bundle(client, name, write_bundle(tmp_path / "bundle", threshold=share * score))
    result = final(client, submit(client, name, data)["id"])
    assert result["verdict"] == ("ok" if calm else "ng")
    drawn = np.asarray(heatmap_of(client, result))
    assert (drawn == 255).all(axis=2).any() == (not calm)
    assert (drawn == np.asarray(part(23))).all() == calm


def test_an_inspection_without_a_score_has_no_heatmap(client: httpx.Client, recipe: str) -> None:
    failed = final(client, submit(client, recipe, encoded(part(24, size=(400, 300)))[:9000])["id"])
    client.post("/v1/recipes", json={"name": "unlit", "without_model": "wait"})
    for inspection_id, state in ((failed["id"], "failed"), (submit(client, "unlit", png(25))["id"], "queued")):
        answer = client.get(f"/v1/inspections/{inspection_id}/heatmap")
        assert (answer.status_code, answer.json()["code"]) == (409, "invalid_transition")
        assert state in answer.json()["detail"]
    assert client.get(f"/v1/inspections/{uuid4()}/heatmap").status_code == 404
