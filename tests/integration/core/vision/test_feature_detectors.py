"""Detectors on features of a frozen backbone, and their components."""

import hashlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from core.vision.bundle.folder import read_folder
from core.vision.bundle.golden import check_golden
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import MANIFEST, verify_bundle
from core.vision.detectors import registry
from core.vision.detectors.architecture import WEIGHTS, Architecture
from core.vision.detectors.backbone import packaged_weights
from core.vision.detectors.detector import Detector
from core.vision.detectors.features import input_size
from core.vision.detectors.pooling import pool_maps, pooling_name
from core.vision.errors import InvalidBundle
from core.vision.input.record import Preprocessing
from core.vision.train import TrainingOptions, train
from core.vision.training.augmentation import augment
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.dataset import ImageDataset
from core.vision.training.fit_interface import FitOptions
from core.vision.training.folds import make_folds

SIDE = 64
KINDS = ("feature-autoencoder", "feature-gaussian", "memory-bank", "combined-maximum", "combined-mean")


@pytest.fixture(scope="module")
def few(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty of the good parts."""
    root = tmp_path_factory.mktemp("few")
    (root / "train" / "good").mkdir(parents=True)
    for path in sorted((folder / "train" / "good").iterdir())[:20]:
        (root / "train" / "good" / path.name).symlink_to(path)
    return root


@pytest.fixture(scope="module", params=KINDS)
def bundle(request: pytest.FixtureRequest, few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / str(request.param)
    options = TrainingOptions(architecture=request.param, input_size=SIDE, epochs=1, alignment="off", device="cpu")
    train(few, out, options, lambda _: None)
    return out


@pytest.fixture(scope="module")
def trained(bundle: Path) -> Detector:
    return load_detector(read_folder(bundle), device="cpu", max_pixels=10**6)


def scores(trained: Detector, parts: list[bytes]) -> Any:
    return trained.score([trained.prepare(part) for part in parts]).scores


def test_scratched_parts_score_above_all_good_ones(trained: Detector, part: Callable[..., bytes]) -> None:
    good = scores(trained, [part(seed) for seed in range(100, 110)])
    scratched = scores(trained, [part(seed, defective=True) for seed in range(110, 120)])
    assert scratched.min() > good.max()


def test_a_score_does_not_depend_on_the_other_images(trained: Detector, part: Callable[..., bytes]) -> None:
    parts = [part(seed, defective=seed % 3 == 0) for seed in range(100, 117)]
    separately = np.concatenate([scores(trained, [part_image]) for part_image in parts])
    for size in (2, 16, 17):
        np.testing.assert_allclose(scores(trained, parts[:size]), separately[:size], rtol=1e-5)


def test_several_threads_can_score_at_once(trained: Detector, part: Callable[..., bytes]) -> None:
    minibatches = [[trained.prepare(part(seed)) for seed in range(start, start + 4)] for start in range(100, 132, 4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(trained.score, minibatches))
    for minibatch, scored in zip(minibatches, together, strict=True):
        alone = trained.score(minibatch)
        np.testing.assert_allclose(scored.scores, alone.scores, rtol=1e-5)
        np.testing.assert_allclose(scored.maps, alone.maps, rtol=1e-3, atol=1e-5)


def test_the_map_peaks_at_the_scratch_and_its_maximum_is_the_score(
    trained: Detector, part: Callable[..., bytes]
) -> None:
    scored = trained.score([trained.prepare(part(101, defective=True))])
    (anomaly_map,) = scored.maps
    assert anomaly_map.dtype == np.float32
    assert anomaly_map.min() >= 0
    row = int(anomaly_map.max(axis=1).argmax())
    assert row / anomaly_map.shape[0] == pytest.approx(1 / 3, abs=0.2)  # the position of the scratch
    assert scored.scores[0] == pytest.approx(anomaly_map.max(), rel=1e-5)  # the mean of the top cells, here of one


def test_scoring_no_images_gives_no_scores(trained: Detector) -> None:
    assert trained.score([]).scores.shape == (0,)
    assert trained.score([]).maps.shape[0] == 0


@pytest.mark.parametrize(("gain", "offset"), [(0.8, 0), (1.0, 20), (0.9, -10)])
def test_lighting_changes_scores_only_slightly(
    trained: Detector, part: Callable[..., bytes], gain: float, offset: float
) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(part(105, defective=True))), dtype=np.float32).clip(30, 200)
    as_it_is, changed = (
        trained.score([trained.prepare(_png(values))]).scores[0] for values in (pixels, pixels * gain + offset)
    )
    assert changed == pytest.approx(as_it_is, rel=0.1)


def _png(values: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_a_flat_image_has_a_finite_score(trained: Detector) -> None:
    assert np.isfinite(trained.score([np.zeros((SIDE, SIDE, 3), np.uint8)]).scores).all()


def test_the_manifest_names_the_source_of_the_backbone(bundle: Path) -> None:
    record, path = verify_bundle(read_folder(bundle)).backbone, packaged_weights()
    assert record is not None
    assert path is not None
    assert record.licence == "Apache-2.0"
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_bundle_whose_weights_do_not_fit_is_refused(bundle: Path, trained: Detector) -> None:
    files = read_folder(bundle)
    kind = type(trained)

    def load(files: dict[str, bytes], **changes: Any) -> None:
        settings = {**trained.architecture.settings, **changes}
        architecture = Architecture(name=trained.architecture.name, settings=settings)
        kind.load(files, architecture, trained.preprocessing, device="cpu", max_pixels=10**6)

    load(files)
    for changes in ({"backbone": "resnet18"}, {"backbone": "none"}, {"width": 96}, {"width": 63}, {"depth": 3}):
        with pytest.raises(InvalidBundle, match="cannot be built"):
            load(files, **changes)
    with pytest.raises(InvalidBundle, match="cannot be built"):
        load({**files, WEIGHTS: files[WEIGHTS][:1000]})
    state = load_tensors(files[WEIGHTS])
    for changed in misfits(state):
        with pytest.raises(InvalidBundle, match="cannot be built"):
            load({**files, WEIGHTS: save_tensors({**state, **changed})})


def misfits(state: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield tensors that do not fit the others of a state."""
    for name, value in state.items():
        if not name.startswith(("backbone.", "autoencoder.")):
            yield {name: (value[..., :-1] if name.endswith("vectors") else value[:-1]).contiguous()}
            yield {name: torch.zeros(7)}
    for prefix in ("", "feature-gaussian."):
        if f"{prefix}scale" in state:
            yield {f"{prefix}center": state[f"{prefix}center"][:-1], f"{prefix}scale": state[f"{prefix}scale"][:-1]}
            yield {f"{prefix}center": torch.zeros(5_000_000), f"{prefix}scale": torch.ones(5_000_000)}
            yield {f"{prefix}statistics.mean": torch.zeros(1, 10**6)}
            yield {
                f"{prefix}statistics.{name}": state[f"{prefix}statistics.{name}"][:-1] for name in ("mean", "whitening")
            }


def test_the_bundle_reproduces_its_golden_scores(bundle: Path, trained: Detector) -> None:
    check_golden(trained, read_folder(bundle))


def test_a_bundle_from_before_the_poolings_gives_the_same_scores(
    bundle: Path, trained: Detector, part: Callable[..., bytes]
) -> None:
    """Its settings have no pooling; its score is the mean of the top 2 %."""
    files = read_folder(bundle)
    manifest = verify_bundle(files)
    settings = {name: value for name, value in manifest.architecture.settings.items() if name != "pooling"}
    assert settings != manifest.architecture.settings
    older = manifest.model_copy(
        update={"architecture": Architecture(name=manifest.architecture.name, settings=settings)}
    )
    loaded = load_detector({**files, MANIFEST: older.to_json()}, device="cpu", max_pixels=10**6)
    assert loaded.score_method.endswith("-top-2-percent")
    parts = [part(seed, defective=seed % 2 == 0) for seed in range(100, 104)]
    maps = trained.score([trained.prepare(each) for each in parts]).maps
    expected = pool_maps(torch.from_numpy(maps), 0.02).numpy()
    np.testing.assert_allclose(scores(loaded, parts), expected, rtol=1e-9)
    if trained.architecture.name in ("feature-autoencoder", "feature-gaussian"):  # those that there were
        check_golden(loaded, files)


@pytest.mark.parametrize("architecture", KINDS[1:])
def test_the_pooling_can_be_chosen_and_changes_only_the_score(
    folder: Path, part: Callable[..., bytes], architecture: str
) -> None:
    by_pooling = {}
    image = np.asarray(Image.open(io.BytesIO(part(101, side=SIDE, defective=True))))
    for pooling in (None, 0.0, 1.0):
        detector = cross_fitted(architecture, folder, FitOptions(epochs=1, pooling=pooling)).final
        by_pooling[pooling] = detector.score([image])
        share = detector.architecture.settings["pooling"]
        assert detector.score_method.endswith(pooling_name(float(share)))
        assert pooling in (None, share)
    default, highest, mean = by_pooling[None], by_pooling[0.0], by_pooling[1.0]
    if not architecture.startswith("combined"):  # whose standards depend on the pooling
        np.testing.assert_array_equal(default.maps, highest.maps)
        np.testing.assert_array_equal(default.maps, mean.maps)
    assert highest.scores[0] == highest.maps.max()
    assert mean.scores[0] == pytest.approx(mean.maps.mean(dtype=np.float64))
    assert mean.scores[0] < default.scores[0]


def test_an_autoencoder_may_judge_its_residual_alike_at_all_positions(folder: Path) -> None:
    detector = cross_fitted("feature-autoencoder", folder, FitOptions(epochs=1, any_position=True)).final
    files = detector.save()
    mean = load_tensors(files[WEIGHTS])["statistics.mean"]
    assert mean.shape[0] == 1
    again = type(detector).load(
        files, detector.architecture, detector.preprocessing, device="cpu", max_pixels=detector.max_pixels
    )
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    first, second = detector.score([image]), again.score([image])
    assert first.maps.shape == (1, 2, 2)  # still a map
    np.testing.assert_allclose(second.maps, first.maps, rtol=1e-6)


def cross_fitted(architecture: str, folder: Path, options: FitOptions) -> CrossFitted[Detector]:
    """Fit a detector to twelve parts, prepared to 32 × 32 pixels, in three folds."""
    preprocessing = Preprocessing(width=32, height=32, scaled_decode=True)
    paths = sorted((folder / "train" / "good").iterdir())[:12]
    return registry.detector_classes()[architecture].cross_fit(
        ImageDataset(paths, preprocessing, max_pixels=10**6),
        make_folds(range(12), 3, seed=0),
        preprocessing,
        options,
        device="cpu",
        max_pixels=10**6,
        on_epoch=lambda _: None,
    )


@pytest.mark.parametrize("architecture", KINDS)
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder: Path, architecture: str) -> None:
    first, again, other = (
        [detector.save() for detector in (fitted.final, *fitted.held_out)]
        for fitted in (cross_fitted(architecture, folder, FitOptions(epochs=1, seed=seed)) for seed in (3, 3, 4))
    )
    assert first == again
    assert first[0] != other[0]
    assert len({weights[WEIGHTS] for weights in first}) == 4


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((900, 900), None, (256, 256)),
        ((300, 900), None, (144, 448)),
        ((1920, 1080), None, (336, 192)),
        ((100, 100), 64, (64, 64)),
        ((9000, 100), None, (720, 96)),
    ],
)
def test_prepared_images_keep_their_shape_and_a_fixed_area(
    size: tuple[int, int], side: int | None, expected: tuple[int, int]
) -> None:
    assert input_size(size, side) == expected


def test_variants_are_close_to_their_image_and_reproducible(part: Callable[..., bytes]) -> None:
    image = np.asarray(Image.open(io.BytesIO(part(3, side=128))))
    variants = [augment(image, np.random.default_rng(seed)) for seed in range(30)]
    for variant in variants:
        assert variant.shape == image.shape
        assert variant.dtype == np.uint8
        assert 0.75 * image.mean() - 2 < variant.mean() < 1.4 * image.mean() + 2  # the range of the gain
    assert len({variant.tobytes() for variant in variants}) == 30
    np.testing.assert_array_equal(augment(image, np.random.default_rng(7)), variants[7])


def test_the_default_is_to_choose_but_without_pretrained_weights_it_is_the_autoencoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert registry.default_architecture() == registry.AUTO == "auto"
    monkeypatch.setattr("core.vision.detectors.backbone.packaged_weights", lambda: None)
    assert registry.default_architecture() == "conv-autoencoder"
    assert registry.default_architecture("resnet18") == registry.default_architecture(None, Path("weights")) == "auto"
