"""From a folder to a bundle whose scores are reproduced."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from core.vision.autoencoder import AutoencoderDetector
from core.vision.bundle import CURVE, MANIFEST, WEIGHTS, InvalidBundle, Manifest, checksums, manifest_of, read_folder
from core.vision.calibration import SampleTooSmall
from core.vision.dataset import InvalidFolder, PictureSet
from core.vision.detector import Epoch, FitOptions, check_golden, load
from core.vision.preprocessing import Preprocessing
from core.vision.training import Progress, TrainingOptions, train

OPTIONS = TrainingOptions(input_size=32, epochs=3, device="cpu")


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, list[Progress]]:
    out = tmp_path_factory.mktemp("bundles") / "deeper" / "bundle"
    seen: list[Progress] = []
    manifest = train(folder, out, OPTIONS, seen.append)
    return out, manifest, seen


def test_the_bundle_reproduces_its_golden_scores(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    files = read_folder(trained[0])
    assert manifest_of(files) == trained[1]
    detector = load(files, device="cpu", max_pixels=10**6)
    check_golden(detector, files)
    assert len(trained[1].golden) == 3


def test_the_manifest_says_how_it_came_about(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    out, manifest, _ = trained
    training, calibration = manifest.training, manifest.threshold.calibration
    assert training is not None
    assert training.parts == {"training": 17, "validation": 4, "calibration": 19}
    assert training.unreadable == 0
    assert training.options["seed"] == 0
    assert calibration is not None
    assert calibration.sample_size == 19
    assert calibration.threshold == manifest.threshold.value
    curve = json.loads((out / CURVE).read_bytes())
    assert [epoch["number"] for epoch in curve] == list(range(1, training.epochs + 1))
    assert curve[training.best_epoch - 1]["validation_loss"] == min(epoch["validation_loss"] for epoch in curve)
    assert manifest.metrics is not None
    assert manifest.metrics.good == manifest.metrics.defective == 8
    assert set(manifest.metrics.controls) >= {"mean_brightness", "nearest_thumbnail"}


def test_progress_tells_each_stage_to_its_end(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    last = {progress.stage: progress for progress in trained[2]}
    assert list(last) == ["reading", "training", "calibrating", "evaluating", "writing"]
    assert last["reading"].done == last["reading"].total == 40
    assert last["training"].epoch is not None


def test_the_same_seed_gives_the_same_bundle_and_another_does_not(
    trained: tuple[Path, Manifest, list[Progress]], folder: Path, tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    again = train(folder, tmp_path / "again", OPTIONS, lambda _: None)
    assert torch.equal(state, torch.random.get_rng_state())
    assert again == trained[1]
    other = train(folder, tmp_path / "other", replace(OPTIONS, seed=1), lambda _: None)
    assert other.files[WEIGHTS] != again.files[WEIGHTS]


def test_a_folder_that_exists_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="name another folder"):
        train(folder, tmp_path, OPTIONS, lambda _: pytest.fail("it began to work"))


@pytest.mark.parametrize(("count", "rate", "needed"), [(20, 0.05, 21), (12, 0.05, 21), (5, 0.2, 6)])
def test_too_few_parts_are_refused_with_the_number_needed(
    part: Callable[..., bytes], tmp_path: Path, count: int, rate: float, needed: int
) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(count):
        (good / f"{seed}.png").write_bytes(part(seed))
    with pytest.raises(SampleTooSmall, match=f"at least {needed} are needed"):
        train(tmp_path, tmp_path / "out", replace(OPTIONS, false_reject_rate=rate), lambda _: None)


def test_twenty_pictures_will_do_for_a_higher_rate_and_without_test(part: Callable[..., bytes], tmp_path: Path) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(20):
        (good / f"{seed}.png").write_bytes(b"broken" if seed == 3 else part(seed))
    notes: list[str | None] = []
    manifest = train(
        tmp_path, tmp_path / "out", replace(OPTIONS, false_reject_rate=0.2, epochs=1), lambda p: notes.append(p.note)
    )
    assert manifest.metrics is None
    assert manifest.training is not None
    assert manifest.training.unreadable == 1
    assert any(note and "1 of 20 pictures" in note for note in notes)


def test_many_unreadable_pictures_are_refused(part: Callable[..., bytes], tmp_path: Path) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(30):
        (good / f"{seed}.png").write_bytes(b"broken" if seed % 5 == 0 else part(seed))
    with pytest.raises(InvalidFolder, match="6 of 30 pictures cannot be read"):
        train(tmp_path, tmp_path / "out", OPTIONS, lambda _: None)


def test_training_stops_early_with_the_best_weights(folder: Path) -> None:
    random = np.random.default_rng(0)
    pictures = random.integers(0, 255, (6, 16, 16, 3), dtype=np.uint8)
    epochs: list[Epoch] = []
    options = FitOptions(epochs=30, patience=2, learning_rate=0.5)  # so high that it cannot get better for long
    detector = AutoencoderDetector.fit(
        PictureSet(pictures[:4]),
        PictureSet(pictures[4:]),
        Preprocessing(width=16, height=16, scaled_decode=False),
        options,
        device="cpu",
        max_pixels=10**6,
        on_epoch=epochs.append,
    )
    best = min(epoch.validation_loss for epoch in epochs)
    assert len(epochs) < 30
    assert float(detector.score(list(pictures[4:])).scores.mean()) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "none"},
        {"epochs": 0},
        {"false_reject_rate": 0.0},
        {"calibration_share": 1.0},
        {"batch_size": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        TrainingOptions(**wrong)  # type: ignore[arg-type]


def changed(files: dict[str, bytes], **changes: bytes) -> dict[str, bytes]:
    """A bundle with other files whose manifest agrees with them."""
    others = {name: content for name, content in files.items() if name != MANIFEST} | changes
    manifest = manifest_of(files).model_copy(update={"files": checksums(others)})
    return {**others, MANIFEST: manifest.encoded()}


def test_a_golden_score_that_differs_is_refused_with_the_numbers(
    trained: tuple[Path, Manifest, list[Progress]],
) -> None:
    files = read_folder(trained[0])
    manifest = trained[1]
    golden = manifest.golden[0]
    for factor in (1 + 5e-5, float("1e6")):
        wrong = golden.model_copy(update={"score": golden.score * factor})
        other = {**files, MANIFEST: manifest.model_copy(update={"golden": [wrong]}).encoded()}
        with pytest.raises(InvalidBundle, match=r"not reproduced: .* expected, .* found"):
            check_golden(load(other, device="cpu", max_pixels=10**6), other)


def test_weights_that_do_not_fit_are_refused(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    files = read_folder(trained[0])
    for weights in (b"", b"rubbish", files[WEIGHTS][:-4]):
        with pytest.raises(InvalidBundle, match="cannot be built"):
            load(changed(files, **{WEIGHTS: weights}), device="cpu", max_pixels=10**6)


def test_unknown_architectures_and_settings_are_refused(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    files, manifest = read_folder(trained[0]), trained[1]
    for update, reason in (
        ({"name": "future"}, "upgrade Linewatch"),
        ({"settings": {"width": 32, "height": 32, "depth": 9}}, "depth"),
        ({"settings": {"width": 64, "height": 64}}, "size"),
        ({"settings": {"width": 32, "height": 32, "channels_1": 16}}, "shape"),
    ):
        architecture = manifest.architecture.model_copy(update=update)
        other = {**files, MANIFEST: manifest.model_copy(update={"architecture": architecture}).encoded()}
        with pytest.raises(InvalidBundle, match=reason):
            load(other, device="cpu", max_pixels=10**6)
