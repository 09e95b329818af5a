"""A worker keeps the most recently used versions loaded, and releases the memory of others."""

import gc
import itertools
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest
import torch
from sqlalchemy import Engine

from core.models import recipes
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.vision.bundle.loading import load_detector
from core.vision.bundle.tar import unpack
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.detectors.compiled_network import CompiledNetwork
from core.vision.detectors.detector import Detector
from core.vision.errors import InvalidBundle
from tests.fixtures.bundles import register_bundle
from tests.fixtures.part_images import png, write_bundle
from worker.pipeline import loaded_models
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.loaded_models import LoadedModel, Models, ModelUnavailable

ROUNDS = 6
SWITCHES = 20
"""In each round. The first one is the warm-up."""
MEGABYTE = 1_000_000
A_LEAK = 2 * MEGABYTE
"""A seventh of what the weights of so many versions take, 0.75 MB each. A leak shows in each round; the memory of a
process also grows now and then without one."""

Enter = Callable[[Path], int]


@pytest.fixture
def store(settings: Settings) -> FolderStore:
    return FolderStore(settings.store_url)


@pytest.fixture
def enter(engine: Engine, store: FolderStore) -> Enter:
    """`enter(folder)` registers a bundle as a version and returns its id."""
    with engine.begin() as connection:
        recipes.create(connection, "ring", actor="test")

    return partial(register_bundle, engine, store)


@pytest.fixture
def versions(enter: Enter, bundle: Path, another_bundle: Path, tmp_path: Path) -> list[int]:
    """Three versions."""
    return [enter(folder) for folder in (bundle, another_bundle, write_bundle(tmp_path / "third", seed=2))]


def models(settings: Settings, engine: Engine, store: FolderStore, *, kept: int) -> Models:
    return Models(settings.model_copy(update={"models_kept": kept, "device": "cpu"}), engine, store)


def score(model: LoadedModel) -> float:
    return float(model.score([model.prepare(png(1)).pixels]).scores[0])


def test_the_most_recently_used_stay_loaded(
    settings: Settings, engine: Engine, store: FolderStore, versions: list[int]
) -> None:
    loaded = models(settings, engine, store, kept=2)
    first, second, third = versions
    a, b = loaded.get(first), loaded.get(second)
    assert loaded.get(first) is a
    loaded.get(third)  # the second is now the least recently used
    assert loaded.get(first) is a
    again = loaded.get(second)
    assert again is not b
    assert score(again) == score(b) != score(a)


def test_switching_versions_leaks_no_memory(
    settings: Settings, engine: Engine, store: FolderStore, versions: list[int]
) -> None:
    loaded = models(settings, engine, store, kept=1)
    process = psutil.Process()
    references: list[weakref.ref[LoadedModel]] = []
    scores = set()
    used = []
    for _ in range(ROUNDS):
        for switch in range(SWITCHES):
            model = loaded.get(versions[switch % len(versions)])
            scores.add(score(model))
            references.append(weakref.ref(model))
            del model
        gc.collect()
        used.append(process.memory_info().rss)
    assert len({id(reference()) for reference in references if reference() is not None}) == 1
    assert len(scores) == len(versions)
    grown = [after - before for before, after in itertools.pairwise(used)]
    assert median(grown) < A_LEAK, grown


def test_a_version_is_unavailable_while_its_bundle_is_missing(
    settings: Settings, engine: Engine, store: FolderStore, enter: Enter, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_models, "RETRY_SECONDS", 0)
    loaded, version = models(settings, engine, store, kept=1), enter(bundle)
    [tar] = store.path("models").iterdir()
    tar.rename(tar.with_suffix(".away"))
    with pytest.raises(ModelUnavailable, match=f"version {version} cannot be loaded"):
        loaded.get(version)
    tar.with_suffix(".away").rename(tar)
    assert score(loaded.get(version)) > 0


def test_a_version_that_cannot_be_loaded_is_not_tried_for_every_minibatch(
    settings: Settings,
    engine: Engine,
    store: FolderStore,
    enter: Enter,
    bundle: Path,
    another_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loaded_models, "RETRY_SECONDS", 1.0)
    loaded, version, other = models(settings, engine, store, kept=2), enter(bundle), enter(another_bundle)
    unpacked = []

    def fail_first(*arguments: Any, **options: Any) -> dict[str, bytes]:
        unpacked.append(time.monotonic())
        if len(unpacked) == 1:
            raise InvalidBundle("damaged")
        return unpack(*arguments, **options)

    monkeypatch.setattr(loaded_models, "unpack", fail_first)
    for _ in range(3):
        with pytest.raises(ModelUnavailable, match=f"version {version} cannot be loaded: damaged"):
            loaded.get(version)
    assert len(unpacked) == 1
    assert score(loaded.get(other)) > 0  # it does not wait
    time.sleep(1.0)
    assert score(loaded.get(version)) > 0


def test_a_worker_whose_device_fails_while_loading_is_unfit(
    settings: Settings, engine: Engine, store: FolderStore, enter: Enter, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, version = models(settings, engine, store, kept=1), enter(bundle)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(loaded_models, "load_detector", fail)
    with pytest.raises(ModelUnavailable):  # the device itself works
        loaded.get(version)
    monkeypatch.setattr(loaded_models, "RETRY_SECONDS", 0)
    again = models(settings, engine, store, kept=1)
    monkeypatch.setattr(torch, "ones", fail)
    with pytest.raises(WorkerUnfit, match="unspecified launch failure"):
        again.get(version)


def test_a_version_whose_compiled_network_does_not_reproduce_its_golden_scores_runs_without_being_compiled(
    settings: Settings, engine: Engine, store: FolderStore, enter: Enter, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = enter(bundle)
    compiled = score(models(settings, engine, store, kept=1).get(version))
    monkeypatch.setattr(CompiledNetwork, "__call__", lambda self, images: [torch.zeros_like(images)])
    assert score(models(settings, engine, store, kept=1).get(version)) == pytest.approx(compiled, rel=1e-5)


def test_a_version_that_does_not_reproduce_its_golden_scores_is_unavailable(
    settings: Settings, engine: Engine, store: FolderStore, enter: Enter, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded_models, "load_detector", _load_changed)
    with pytest.raises(ModelUnavailable, match="golden score"):
        models(settings, engine, store, kept=1).get(enter(bundle))


def _load_changed(files: dict[str, bytes], **options: Any) -> Detector:
    """Load a detector, and change its weights."""
    detector = load_detector(files, **options)
    assert isinstance(detector, AutoencoderDetector)
    with torch.no_grad():
        next(detector.network.parameters()).mul_(1.5)
    return detector
