"""Model versions over HTTP: upload, activation, rollback, and the same score on every path."""

import io
import json
import tarfile
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from core.vision.bundle.folder import read_folder
from core.vision.bundle.manifest import MANIFEST, digest, verify_bundle
from core.vision.bundle.tar import pack
from core.vision.train import TrainingOptions, train
from tests.fixtures.part_images import encoded, part, png, write_folder
from tests.fixtures.running_system import upload_bundle
from tests.fixtures.training_parts import quick_detectability


def packed(folder: Path) -> bytes:
    out = io.BytesIO()
    pack(folder, out)
    return out.getvalue()


def post_bundle(client: httpx.Client, recipe: str, data: bytes) -> httpx.Response:
    return client.post(
        f"/v1/recipes/{recipe}/model-versions", content=data, headers={"Content-Type": "application/x-tar"}
    )


def score(client: httpx.Client, recipe: str, data: bytes) -> dict:  # type: ignore[type-arg]
    answer = client.post(
        "/v1/inspections", params={"recipe": recipe}, content=data, headers={"Content-Type": "image/png"}
    )
    result = client.get(answer.headers["Location"], params={"wait": 60}).json()
    assert result["status"] == "completed", result
    return result  # type: ignore[no-any-return]


def test_the_same_image_has_the_same_score_on_every_path(
    client: httpx.Client, default_recipe: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "parts", good=40)
    options = TrainingOptions(architecture="feature-gaussian", input_size=64, device="cpu")
    with quick_detectability():
        manifest = train(folder, tmp_path / "bundle", options, lambda _: None)
    version = upload_bundle(client, default_recipe, tmp_path / "bundle")
    before = client.get(f"/v1/recipes/{default_recipe}").json()["active_version"]
    client.post(f"/v1/recipes/{default_recipe}/model-versions/{version}/activate")
    golden = manifest.golden[0]
    image = (tmp_path / "bundle" / golden.file).read_bytes()

    predicted = client.post("/predict", files={"file": ("part.png", image)}).json()
    alone = score(client, default_recipe, image)
    files = [("images", ("golden.png", image)), *(("images", (f"{n}.png", png(n))) for n in range(9))]
    batch = client.post("/v1/batches", data={"recipe": default_recipe}, files=files).json()
    client.get(f"/v1/batches/{batch['id']}", params={"wait": 60})
    among_others = client.get(f"/v1/inspections/{batch['inspections'][0]['id']}").json()
    client.post(f"/v1/recipes/{default_recipe}/model-versions/{before}/activate")

    assert {alone["model"]["version"], among_others["model"]["version"]} == {version}
    scores = [predicted["anomaly_score"], alone["anomaly_score"], among_others["anomaly_score"]]
    np.testing.assert_allclose(scores, golden.score, rtol=1e-5)
    assert {predicted["threshold"], alone["threshold"]} == {manifest.threshold.value}
    assert predicted["is_anomaly"] == alone["is_anomaly"] == (golden.score >= manifest.threshold.value)


def test_an_activation_takes_effect_without_a_restart_and_is_rolled_back(
    client: httpx.Client, recipe: str, another_bundle: Path
) -> None:
    first = score(client, recipe, png(1))
    version = upload_bundle(client, recipe, another_bundle)
    assert score(client, recipe, png(1))["model"]["version"] == first["model"]["version"]
    activated = client.post(f"/v1/recipes/{recipe}/model-versions/{version}/activate").json()
    assert activated["active"]
    second = score(client, recipe, png(1))
    assert (second["model"]["version"], second["threshold"]) == (version, 0.5)
    assert second["anomaly_score"] != first["anomaly_score"]
    back = client.post(f"/v1/recipes/{recipe}/model-versions/rollback")
    assert back.json()["version"] == first["model"]["version"]
    third = score(client, recipe, png(1))
    np.testing.assert_allclose(third["anomaly_score"], first["anomaly_score"], rtol=1e-5)
    answer = client.post(f"/v1/recipes/{recipe}/rollback")
    assert (answer.status_code, answer.json()["code"]) == (409, "invalid_transition")


def test_a_threshold_applies_from_the_next_claim_to_its_station_only(client: httpx.Client, recipe: str) -> None:
    before = score(client, recipe, png(2))
    where = f"/v1/recipes/{recipe}/model-versions/1/threshold"
    limit = before["anomaly_score"] * 2
    review = before["anomaly_score"] / 2
    answer = client.post(where, json={"threshold": limit, "review_threshold": review})
    assert answer.status_code == 201, answer.text
    after = score(client, recipe, png(2))
    assert (after["verdict"], after["is_anomaly"], after["threshold"]) == ("review", False, limit)
    assert score(client, recipe, png(2))["review_threshold"] == review
    client.post(where, json={"threshold": review / 2, "station_id": "st-1"})
    assert score(client, recipe, png(2))["verdict"] == "review"
    answer = client.post(
        "/v1/inspections",
        params={"recipe": recipe, "station_id": "st-1"},
        content=png(2),
        headers={"Content-Type": "image/png"},
    )
    assert client.get(answer.headers["Location"], params={"wait": 60}).json()["verdict"] == "ng"
    stations = [
        threshold["station_id"]
        for threshold in client.get(f"/v1/recipes/{recipe}/model-versions/1").json()["thresholds"]
    ]
    assert stations == [None, "st-1"]


@pytest.mark.parametrize(
    "body",
    [{}, {"threshold": "high"}, {"threshold": 1, "review_threshold": 2}, {"threshold": 1, "station_id": ""},
     {"threshold": 1, "calibration": {"sample_size": 3}}],
)  # fmt: skip
def test_an_invalid_threshold_is_refused(client: httpx.Client, recipe: str, body: dict[str, object]) -> None:
    answer = client.post(f"/v1/recipes/{recipe}/model-versions/1/threshold", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")


def test_the_same_bundle_twice_is_one_version_and_can_be_downloaded(
    client: httpx.Client, recipe: str, bundle: Path
) -> None:
    answer = post_bundle(client, recipe, packed(bundle))
    assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert client.get(f"/v1/recipes/{recipe}/model-versions/1/bundle").content == packed(bundle)
    [version] = client.get(f"/v1/recipes/{recipe}/model-versions").json()["items"]
    assert (version["sha256"], version["bundle_bytes"]) == (digest(read_folder(bundle)[MANIFEST]), len(packed(bundle)))


def test_a_bundle_whose_golden_score_is_not_reproduced_is_rejected(
    client: httpx.Client, recipe: str, another_bundle: Path, tmp_path: Path
) -> None:
    files = read_folder(another_bundle)
    manifest = json.loads(files[MANIFEST])
    manifest["golden"][0]["score"] *= 1.01
    forged = tmp_path / "forged"
    for name, data in files.items():
        (forged / name).parent.mkdir(parents=True, exist_ok=True)
        (forged / name).write_bytes(data)
    (forged / MANIFEST).write_text(json.dumps(manifest))
    verify_bundle(read_folder(forged))  # only the golden score is wrong

    answer = post_bundle(client, recipe, packed(forged))
    assert (answer.status_code, answer.json()["state"]) == (201, "uploaded")
    where = answer.headers["Location"]
    deadline = time.monotonic() + 60
    while (version := client.get(where).json())["state"] == "uploaded":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert version["state"] == "rejected"
    assert "golden" in version["rejection"]
    refused = client.post(f"{where}/activate")
    assert (refused.status_code, refused.json()["code"]) == (409, "model_not_ready")
    assert score(client, recipe, png(3))["model"]["version"] == 1


def test_a_body_that_is_not_a_bundle_is_refused(client: httpx.Client, recipe: str) -> None:
    strange = io.BytesIO()
    with tarfile.open(fileobj=strange, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escape"))
    for data in (b"not a tar", strange.getvalue()):
        answer = post_bundle(client, recipe, data)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_bundle"), answer.text
    assert post_bundle(client, recipe, b"").json()["code"] == "empty_body"
    assert post_bundle(client, "nobody", b"x").json()["code"] == "recipe_unknown"
    for name in ("999", "x", "99999999999"):
        assert client.get(f"/v1/recipes/{recipe}/model-versions/{name}").json()["code"] == "not_found"


def test_predict_responds_like_the_demo(client: httpx.Client, default_recipe: str) -> None:
    answer = client.post("/predict", files={"file": ("part.jpg", encoded(part(4), "JPEG"), "image/jpeg")})
    assert answer.status_code == 200
    assert answer.json().keys() == {"anomaly_score", "threshold", "is_anomaly"}
    assert answer.json()["is_anomaly"] == (answer.json()["anomaly_score"] >= answer.json()["threshold"])
    assert client.get("/health").json() == {"status": "ok"}


def test_heatmap_responds_with_a_grey_png(client: httpx.Client, default_recipe: str) -> None:
    answer = client.post("/heatmap", files={"file": ("part.png", png(5))})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/png")
    image = Image.open(io.BytesIO(answer.content))
    assert (image.mode, image.format, image.size) == ("L", "PNG", (128, 128))
    assert np.asarray(image).max() > 0


@pytest.mark.parametrize("path", ["/predict", "/heatmap"])
@pytest.mark.parametrize(
    "data",
    [b"", b"text", encoded(part(6), "BMP"), encoded(part(6), "WEBP"), encoded(part(6, size=(300, 300)))[:9000]],
    ids=["empty", "text", "bmp", "webp", "cut"],
)
def test_other_formats_are_400_as_in_the_demo(
    client: httpx.Client, default_recipe: str, path: str, data: bytes
) -> None:
    answer = client.post(path, files={"file": ("part.png", data, "image/png")})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request"), answer.text


@pytest.mark.parametrize("path", ["/predict", "/heatmap"])
def test_a_request_without_the_file_is_400(client: httpx.Client, default_recipe: str, path: str) -> None:
    assert client.post(path).status_code == 400
    assert client.post(path, files={"picture": ("part.png", png(7))}).status_code == 400
