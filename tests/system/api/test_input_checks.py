"""A wrongly taken image needs review regardless of its score; the response contains the reasons."""

from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from PIL import Image

from core.vision.bundle.folder import read_folder, write_folder
from core.vision.bundle.manifest import MANIFEST, verify_bundle
from core.vision.input.input_checks import learn_input_ranges, measure_image
from core.vision.input.preprocessing import prepare
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
    name = f"recipe-{uuid4().hex[:12]}"
    client.post("/v1/recipes", json={"name": name})
    upload_bundle(client, name, checking_bundle)
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
