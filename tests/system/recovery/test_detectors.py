"""One worker scores recipes with different detectors, each with the same scores as alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.train import TrainingOptions, train
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png, write_folder
from tests.fixtures.running_system import System, upload_bundle
from tests.fixtures.training_parts import quick_detectability

PARTS = 4


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One bundle per detector, by name, all trained on the same twenty parts."""
    root = tmp_path_factory.mktemp("detectors")
    folder = write_folder(root / "parts", good=20)
    settings: dict[str, dict[str, Any]] = {
        "conv-autoencoder": {"score_method": "mse", "input_size": 32},
        "feature-gaussian": {"input_size": 64},
        "feature-autoencoder": {"input_size": 64},
        "memory-bank": {"input_size": 64},
        "combined-maximum": {"input_size": 64, "pooling": 0.05},
    }
    written = {}
    with quick_detectability():
        for name, detector_options in settings.items():
            written[name] = root / name
            options = TrainingOptions(architecture=name, epochs=1, device="cpu", **detector_options)
            train(folder, written[name], options, lambda _: None)
    return written


@pytest.fixture
def create_recipe(client: httpx.Client) -> Callable[[Path], str]:
    """`create_recipe(bundle)` creates a recipe with the bundle and returns its name."""

    def make(bundle: Path) -> str:
        name = f"recipe-{uuid4().hex[:12]}"
        client.post("/v1/recipes", json={"name": name})
        upload_bundle(client, name, bundle)
        return name

    return make


def scoring_workers(system: System) -> list[int]:
    return [child.pid for child in system.children("worker.scoring")]


def test_one_worker_scores_with_every_detector(
    system: System, client: httpx.Client, bundles: dict[str, Path], create_recipe: Callable[[Path], str]
) -> None:
    before = scoring_workers(system)
    assert len(before) == 1
    recipes = {
        create_recipe(folder): load_detector(read_folder(folder), device="cpu", max_pixels=10**6)
        for folder in bundles.values()
    }
    parts = [png(7000 + number, scratched=number % 2 == 1) for number in range(PARTS)]
    sent = [(recipe, data, submit(client, recipe, data)["id"]) for data in parts for recipe in recipes]
    for recipe, data, inspection_id in sent:
        detector, result = recipes[recipe], final(client, inspection_id)
        expected = float(detector.score([detector.prepare(data)]).scores[0])
        assert result["anomaly_score"] == pytest.approx(expected, rel=1e-5), detector.architecture.name
    for _, _, inspection_id in sent[: len(recipes)]:
        assert client.get(f"/v1/inspections/{inspection_id}/heatmap").headers["Content-Type"] == "image/png"
    assert scoring_workers(system) == before
