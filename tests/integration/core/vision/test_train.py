"""Training from a folder to a bundle with reproducible scores."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.vision.bundle.folder import read_folder
from core.vision.bundle.golden import check_golden
from core.vision.bundle.held_out_scores import read_held_out_scores
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import MANIFEST, TRAINING_CURVE, TRIALS, Manifest, checksums, verify_bundle
from core.vision.calibration.calibration import SampleTooSmall
from core.vision.calibration.expected_rate import expected_rate
from core.vision.detectors.architecture import WEIGHTS
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.errors import InvalidBundle
from core.vision.input.record import Preprocessing
from core.vision.train import Progress, TrainingOptions, train
from core.vision.training.dataset import ImageDataset, InvalidDataset
from core.vision.training.fit_interface import Epoch, FitOptions
from core.vision.training.folds import make_folds

OPTIONS = TrainingOptions(
    architecture=AutoencoderDetector.name, score_method="mse", input_size=32, epochs=3, alignment="off", device="cpu"
)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest, list[Progress]]:
    out = tmp_path_factory.mktemp("bundles") / "deeper" / "bundle"
    progress: list[Progress] = []
    manifest = train(folder, out, OPTIONS, progress.append)
    return out, manifest, progress


def test_the_bundle_reproduces_its_golden_scores(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    files = read_folder(trained[0])
    assert verify_bundle(files) == trained[1]
    detector = load_detector(files, device="cpu", max_pixels=10**6)
    check_golden(detector, files)
    assert len(trained[1].golden) == 3


def test_the_manifest_describes_the_training(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    out, manifest, _ = trained
    training, calibration = manifest.training, manifest.threshold.calibration
    assert training is not None
    assert training.parts == {"training": 40, "calibration": 40}
    assert training.folds == 3
    assert training.unreadable == 0
    assert training.options["seed"] == 0
    assert calibration is not None
    assert calibration.sample_size == 40
    assert calibration.threshold == manifest.threshold.value
    held_out = read_held_out_scores(read_folder(out), manifest)
    assert held_out is not None
    rate = expected_rate(calibration, held_out, calibration.threshold)
    assert rate.rate == pytest.approx(calibration.expected_false_reject_rate)
    assert rate.interval == pytest.approx(calibration.confidence_interval, rel=1e-5)
    curve = json.loads((out / TRAINING_CURVE).read_bytes())
    assert [epoch["number"] for epoch in curve] == list(range(1, training.epochs + 1))
    assert training.epochs == training.best_epoch == OPTIONS.epochs
    assert {epoch["fold"] for epoch in curve} == {None}
    assert manifest.metrics is not None
    assert manifest.metrics.good == manifest.metrics.defective == 8
    assert set(manifest.metrics.controls) >= {"mean_brightness", "nearest_thumbnail"}
    assert manifest.detectability is not None
    assert manifest.detectability.statement
    assert TRIALS not in manifest.files  # there was nothing to choose


def test_progress_reports_each_stage_to_its_end(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    last = {progress.stage: progress for progress in trained[2]}
    assert list(last) == ["reading", "training", "calibrating", "evaluating", "detectability", "writing"]
    assert last["reading"].done == last["reading"].total == last["calibrating"].done == 40
    assert last["training"].epoch is not None
    assert last["training"].done == last["training"].total == OPTIONS.epochs * 4  # three folds, and all images
    for stage in ("training", "calibrating", "detectability"):
        done = [progress.done for progress in trained[2] if progress.stage == stage]
        assert done == sorted(done)


def test_the_same_seed_gives_the_same_bundle_and_another_seed_another(
    trained: tuple[Path, Manifest, list[Progress]], folder: Path, tmp_path: Path
) -> None:
    state = torch.random.get_rng_state()
    again = train(folder, tmp_path / "again", OPTIONS, lambda _: None)
    assert torch.equal(state, torch.random.get_rng_state())
    assert again == trained[1]
    other = train(folder, tmp_path / "other", replace(OPTIONS, seed=1), lambda _: None)
    assert other.files[WEIGHTS] != again.files[WEIGHTS]


def test_a_folder_that_exists_is_refused_before_any_work(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError, match="choose another folder"):
        train(folder, tmp_path, OPTIONS, lambda _: pytest.fail("it began to work"))


@pytest.mark.parametrize(
    ("count", "rate", "needed"), [(18, 0.05, 19), (12, 0.05, 19), (20, 0.01, 99), (9, None, 10), (5, 0.2, 10)]
)
def test_too_few_parts_are_refused_with_the_number_needed(
    part: Callable[..., bytes], tmp_path: Path, count: int, rate: float | None, needed: int
) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(count):
        (good / f"{seed}.png").write_bytes(part(seed))
    with pytest.raises(SampleTooSmall, match=f"{count} good parts are too few.*at least {needed} are needed"):
        train(tmp_path, tmp_path / "out", replace(OPTIONS, false_reject_rate=rate), lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", ["conv-autoencoder", "feature-gaussian", "memory-bank"])
def test_ten_parts_are_enough_and_the_training_says_what_that_costs(
    part: Callable[..., bytes], tmp_path: Path, architecture: str
) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(10):
        (good / f"{seed}.png").write_bytes(part(seed))
    notes: list[str | None] = []
    options = TrainingOptions(architecture=architecture, input_size=32, epochs=2, alignment="off", device="cpu")
    manifest = train(
        tmp_path,
        tmp_path / "out",
        options,
        lambda progress: notes.append(progress.note),
        report=tmp_path / "page.html",
    )
    [note] = [note for note in notes if note and "10 good parts are few" in note]
    assert "They allow a false-reject rate of 9.1% at best, not 5%" in note
    calibration = manifest.threshold.calibration
    assert calibration is not None
    assert calibration.false_reject_rate == pytest.approx(1 / 11)
    assert calibration.confidence_interval[1] > 0.3  # so wide is it
    assert f"between {calibration.confidence_interval[0]:.1%} and" in (tmp_path / "page.html").read_text()
    assert manifest.training is not None
    assert manifest.training.parts == {"training": 10, "calibration": 10}
    files = read_folder(tmp_path / "out")
    check_golden(load_detector(files, device="cpu", max_pixels=10**6), files)


def test_twenty_images_suffice_for_a_higher_rate_without_test_images(
    part: Callable[..., bytes], tmp_path: Path
) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(20):
        (good / f"{seed}.png").write_bytes(b"broken" if seed == 3 else part(seed))
    notes: list[str | None] = []
    manifest = train(
        tmp_path,
        tmp_path / "out",
        replace(OPTIONS, false_reject_rate=0.2, epochs=1),
        lambda progress: notes.append(progress.note),
        report=tmp_path / "page.html",
    )
    assert manifest.metrics is None
    assert manifest.training is not None
    assert manifest.training.unreadable == 1
    assert manifest.training.parts == {"training": 19, "calibration": 19}
    assert any(note and "1 of 20 images" in note for note in notes)
    assert "<td>train/good/3.png</td>" in (tmp_path / "page.html").read_text()


def test_a_folder_that_changes_during_the_training_is_refused(part: Callable[..., bytes], tmp_path: Path) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(20):
        (good / f"{seed}.png").write_bytes(part(seed))

    def replace_a_part(progress: Progress) -> None:
        if progress.note and "20 good parts are few" in progress.note:  # all have been read once
            (good / "3.png").write_bytes(part(77))

    with pytest.raises(InvalidDataset, match="leave the folder alone"):
        train(tmp_path, tmp_path / "out", OPTIONS, replace_a_part)


def test_many_unreadable_images_are_refused(part: Callable[..., bytes], tmp_path: Path) -> None:
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for seed in range(30):
        (good / f"{seed}.png").write_bytes(b"broken" if seed % 5 == 0 else part(seed))
    with pytest.raises(InvalidDataset, match="6 of 30 images cannot be read"):
        train(tmp_path, tmp_path / "out", OPTIONS, lambda _: None)


@pytest.mark.parametrize("learning_rate", [2e-3, 0.5], ids=["usual", "too-high"])
def test_every_training_runs_all_of_its_epochs(folder: Path, learning_rate: float) -> None:
    """Even if the loss rises: stopping early would need images that have no other use."""
    preprocessing = Preprocessing(width=16, height=16, scaled_decode=False)
    images = ImageDataset(sorted((folder / "train" / "good").iterdir())[:6], preprocessing, max_pixels=10**6)
    epochs: list[Epoch] = []
    AutoencoderDetector.cross_fit(
        images,
        make_folds(range(6), 2, seed=0),
        preprocessing,
        FitOptions(epochs=6, learning_rate=learning_rate, score_method="mse"),
        device="cpu",
        max_pixels=10**6,
        on_epoch=epochs.append,
    )
    assert [(epoch.fold, epoch.number) for epoch in epochs] == [
        (fold, number) for fold in (0, 1, None) for number in range(1, 7)
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "none"},
        {"epochs": 0},
        {"false_reject_rate": 0.0},
        {"batch_size": 0},
        {"pooling": 1.1},
        {"budget_seconds": 0.0},
        {"max_ms": 0.0},
        {"choose_by": "luck"},
        {"pose": "sideways"},
        {"alignment": "on"},
    ],
)
def test_invalid_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        TrainingOptions(**wrong)  # type: ignore[arg-type]


def changed(files: dict[str, bytes], **changes: bytes) -> dict[str, bytes]:
    """Return the files of a bundle with changes, and a manifest that matches them."""
    contents = {name: content for name, content in files.items() if name != MANIFEST} | changes
    manifest = verify_bundle(files).model_copy(update={"files": checksums(contents)})
    return {**contents, MANIFEST: manifest.to_json()}


def test_a_golden_score_that_differs_is_refused_with_the_numbers(
    trained: tuple[Path, Manifest, list[Progress]],
) -> None:
    files = read_folder(trained[0])
    manifest = trained[1]
    golden = manifest.golden[0]
    for factor in (1 + 5e-5, float("1e6")):
        wrong = golden.model_copy(update={"score": golden.score * factor})
        other = {**files, MANIFEST: manifest.model_copy(update={"golden": [wrong]}).to_json()}
        with pytest.raises(InvalidBundle, match=r"not reproduced: expected .*, got .*"):
            check_golden(load_detector(other, device="cpu", max_pixels=10**6), other)


def test_weights_that_do_not_fit_are_refused(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    files = read_folder(trained[0])
    for weights in (b"", b"rubbish", files[WEIGHTS][:-4]):
        with pytest.raises(InvalidBundle, match="cannot be built"):
            load_detector(changed(files, **{WEIGHTS: weights}), device="cpu", max_pixels=10**6)


def test_unknown_architectures_and_settings_are_refused(trained: tuple[Path, Manifest, list[Progress]]) -> None:
    files, manifest = read_folder(trained[0]), trained[1]
    for update, reason in (
        ({"name": "future"}, "upgrade Linewatch"),
        ({"settings": {"width": 32, "height": 32, "depth": 9}}, "depth"),
        ({"settings": {"width": 64, "height": 64}}, "size"),
        ({"settings": {"width": 32, "height": 32, "channels_1": 16}}, "shape"),
    ):
        architecture = manifest.architecture.model_copy(update=update)
        other = {**files, MANIFEST: manifest.model_copy(update={"architecture": architecture}).to_json()}
        with pytest.raises(InvalidBundle, match=reason):
            load_detector(other, device="cpu", max_pixels=10**6)


@pytest.mark.parametrize("architecture", ["feature-autoencoder", "feature-gaussian"])
def test_detectors_on_features_train_to_a_bundle_that_carries_its_backbone(
    folder: Path, tmp_path: Path, architecture: str
) -> None:
    options = TrainingOptions(architecture=architecture, input_size=64, epochs=1, alignment="off", device="cpu")
    manifest = train(folder, tmp_path / "bundle", options, lambda _: None, report=tmp_path / "page.html")
    assert manifest.backbone is not None
    assert manifest.backbone.name == "efficientnet-lite0"
    assert manifest.backbone.licence == "Apache-2.0"
    assert manifest.backbone.source in (tmp_path / "page.html").read_text()
    assert manifest.metrics is not None
    assert manifest.metrics.auroc > 0.95
    assert manifest.training is not None
    assert manifest.training.options["backbone"] == "efficientnet-lite0"
    assert manifest.training.parts == {"training": 40, "calibration": 40}
    files = read_folder(tmp_path / "bundle")
    check_golden(load_detector(files, device="cpu", max_pixels=10**6), files)


def test_the_bundle_does_not_depend_on_the_available_memory(
    trained: tuple[Path, Manifest, list[Progress]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in ("MAX_CACHE_BYTES", "_MAX_TEST_CACHE_BYTES"):
        monkeypatch.setattr(f"core.vision.training_data.{constant}", 0)
    assert train(folder, tmp_path / "out", OPTIONS, lambda _: None) == trained[1]


def test_identical_images_are_refused(part: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "train" / "good").mkdir(parents=True)
    for number in range(30):
        (tmp_path / "train" / "good" / f"{number}.png").write_bytes(part(0))
    with pytest.raises(InvalidDataset, match="all 30 images of good parts are identical"):
        train(tmp_path, tmp_path / "out", OPTIONS, lambda _: None)


def test_mixed_sizes_are_noted_and_trained_on(part: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "train" / "good").mkdir(parents=True)
    for number in range(24):
        side = 64 if number == 3 else 48
        (tmp_path / "train" / "good" / f"{number:02}.png").write_bytes(part(number, side=side))
    notes: list[str | None] = []
    manifest = train(
        tmp_path, tmp_path / "out", replace(OPTIONS, epochs=1), lambda progress: notes.append(progress.note)
    )
    assert any(note and "2 different sizes, from 48 × 48 to 64 × 64" in note for note in notes)
    assert (manifest.preprocessing.width, manifest.preprocessing.height) == (32, 32)


def test_an_unsupported_size_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be .* pixels"):
        train(folder, tmp_path / "out", replace(OPTIONS, input_size=33), lambda _: None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"architecture": "conv-autoencoder", "backbone_weights": Path(__file__)},
        {"architecture": "conv-autoencoder", "backbone": "efficientnet-lite0"},
        {"architecture": "feature-gaussian", "backbone_weights": Path("missing.pth")},
        {"architecture": "feature-gaussian", "score_method": "mse"},
        {"architecture": "conv-autoencoder", "score_method": "loudest"},
        {"backbone": "vgg"},
        {"review_rate": 0.05},
    ],
    ids=["no-backbone-weights", "no-backbone", "no-file", "one-method", "no-method", "no-such-backbone", "no-band"],
)
def test_options_that_do_not_apply_to_the_detector_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must"):
        TrainingOptions(**wrong)  # type: ignore[arg-type]


def test_the_manifest_contains_the_chosen_options_but_no_paths(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    chosen = TrainingOptions(architecture="feature-gaussian", backbone_weights=tmp_path / "weights.pth").recorded()
    assert chosen["backbone_weights"] == "weights.pth"
    assert "device" not in chosen
    assert "backbone" not in OPTIONS.recorded()
