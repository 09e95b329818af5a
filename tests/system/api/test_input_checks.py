"""A wrongly taken image needs review regardless of its score; the response contains the reasons."""

import io
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image

from core.vision.bundle.folder import read_folder, write_folder
from core.vision.bundle.manifest import MANIFEST, verify_bundle
from core.vision.input.input_checks import learn_input_ranges, measure_image
from core.vision.input.preprocessing import prepare
from tests.fixtures.deep_images import deep_levels, deep_png, deep_tiff, packed_tiff
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import encoded, part, png
from tests.fixtures.running_system import upload_bundle


@pytest.fixture(scope="module")
def checking_bundle(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with the input ranges of twenty good parts."""
    files = read_folder(bundle)
    manifest = verify_bundle(files)
    measured = [measure_image(prepare(png(seed), manifest.preprocessing, max_pixels=10**6)) for seed in range(20)]
    checking_recipe = manifest.model_copy(update={"inputs": learn_input_ranges(measured)})
    folder = tmp_path_factory.mktemp("bundles") / "checking"
    write_folder(folder, {**files, MANIFEST: checking_recipe.to_json()})
    return folder


@pytest.fixture
def checking_recipe(client: httpx.Client, checking_bundle: Path) -> str:
    """A recipe whose version checks its inputs."""
    return recipe_with(client, checking_bundle)


@pytest.fixture
def deep_recipe(client: httpx.Client, bundle: Path, tmp_path: Path) -> str:
    """A recipe whose version was trained on 12 bits, and has no ranges of other inputs."""
    files = read_folder(bundle)
    manifest = verify_bundle(files)
    preprocessing = manifest.preprocessing.model_copy(update={"bit_depth": 12})
    deep = manifest.model_copy(update={"preprocessing": preprocessing})
    write_folder(tmp_path / "deep", {**files, MANIFEST: deep.to_json()})
    return recipe_with(client, tmp_path / "deep")


def recipe_with(client: httpx.Client, bundle: Path) -> str:
    """Create a recipe with a version from a bundle, and return its name."""
    name = f"recipe-{uuid4().hex[:12]}"
    client.post("/v1/recipes", json={"name": name})
    upload_bundle(client, name, bundle)
    return name


def test_a_black_image_needs_review_and_a_part_is_judged(client: httpx.Client, checking_recipe: str) -> None:
    black = encoded(Image.new("RGB", (96, 64)))
    answer = client.post(
        "/v1/batches",
        data={"recipe": checking_recipe},
        files=[("images", ("black.png", black)), ("images", ("part.png", png(31)))],
    )
    assert answer.status_code == 202, answer.text
    batch = client.get(f"/v1/batches/{answer.json()['id']}", params={"wait": 60}).json()
    assert batch["status"] == "completed"
    dark, fine = (final(client, inspection["id"]) for inspection in answer.json()["inspections"])
    assert (dark["status"], dark["verdict"], dark["reasons"]) == ("completed", "review", ["input_dark"])
    assert dark["is_anomaly"] == (dark["anomaly_score"] >= dark["threshold"])
    assert (fine["verdict"], fine["reasons"]) == ("ng" if fine["is_anomaly"] else "ok", [])
    assert batch["counts"]["review"] == 1
    assert batch["counts"]["ok"] + batch["counts"]["ng"] == 1
    listed = client.get("/v1/inspections", params={"recipe": checking_recipe, "verdict": "review"}).json()["items"]
    assert [inspection["id"] for inspection in listed] == [dark["id"]]


def test_the_size_of_the_uploaded_image_is_checked(client: httpx.Client, checking_recipe: str) -> None:
    result = final(client, submit(client, checking_recipe, encoded(part(32, size=(96, 96))))["id"])
    assert (result["verdict"], result["reasons"]) == ("review", ["input_size"])


def test_a_version_without_input_ranges_checks_nothing(client: httpx.Client, recipe: str) -> None:
    result = final(client, submit(client, recipe, encoded(Image.new("RGB", (96, 64))))["id"])
    assert result["reasons"] == []
    assert result["verdict"] != "review"


def test_an_image_of_another_depth_than_trained_on_needs_review(client: httpx.Client, deep_recipe: str) -> None:
    levels = deep_levels(1)
    expected = {
        "12-bits.png": (deep_png(levels), []),
        "12-bits-named.png": (deep_png(levels, significant_bits=12), []),
        "12-bits-big-endian.tif": (deep_tiff(levels, big_endian=True), []),
        "12-bits-packed.tif": (packed_tiff(levels), []),
        "8-bits.png": (png(1), ["input_depth"]),
        "10-bits-named.png": (deep_png(deep_levels(1, 10), significant_bits=10), ["input_depth"]),
        "above-the-depth.png": (deep_png(deep_levels(1, 16)), ["input_depth"]),
    }
    answer = client.post(
        "/v1/batches",
        data={"recipe": deep_recipe},
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
    scores = [result["anomaly_score"] for result in results if not result["reasons"]]
    assert len(set(scores)) == 1  # whatever the container


def test_the_heatmap_of_a_deep_image_is_drawn_on_a_visible_image(client: httpx.Client, deep_recipe: str) -> None:
    result = final(client, submit(client, deep_recipe, deep_png(deep_levels(1)))["id"])
    drawn = client.get(f"/v1/inspections/{result['id']}/heatmap")
    assert drawn.status_code == 200, drawn.text
    pixels = np.asarray(Image.open(io.BytesIO(drawn.content)))
    assert pixels.dtype == np.uint8
    assert pixels.mean() > 60  # of 255: without the bit depth it would be almost black
