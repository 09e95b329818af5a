"""The reference network accepts existing weights, and its scores depend on the image alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core.vision.detectors.autoencoder import Autoencoder, AutoencoderDetector, AutoencoderSettings
from core.vision.detectors.device import resolve_device
from core.vision.input.record import Preprocessing
from core.vision.training.augmentation import augment_batch


def test_the_layers_have_the_indices_and_shapes_of_plain_state_dicts() -> None:
    shapes = {name: tuple(weight.shape) for name, weight in Autoencoder(AutoencoderSettings()).state_dict().items()}
    assert shapes == {
        "encoder.0.weight": (32, 3, 3, 3),
        "encoder.0.bias": (32,),
        "encoder.3.weight": (64, 32, 3, 3),
        "encoder.3.bias": (64,),
        "encoder.6.weight": (128, 64, 3, 3),
        "encoder.6.bias": (128,),
        "decoder.1.weight": (64, 128, 3, 3),
        "decoder.1.bias": (64,),
        "decoder.4.weight": (32, 64, 3, 3),
        "decoder.4.bias": (32,),
        "decoder.7.weight": (3, 32, 3, 3),
        "decoder.7.bias": (3,),
    }


def test_the_decoder_has_no_transposed_convolution_and_upsamples_bilinearly() -> None:
    network = Autoencoder(AutoencoderSettings())
    assert not any(isinstance(layer, nn.ConvTranspose2d) for layer in network.modules())
    upsampling = [layer for layer in network.decoder if isinstance(layer, nn.Upsample)]
    assert [(layer.scale_factor, layer.mode, layer.align_corners) for layer in upsampling] == [
        (2.0, "bilinear", False)
    ] * 3
    assert isinstance(network.decoder[8], nn.Sigmoid)


def test_reconstructions_have_the_shape_of_the_images_and_lie_within_0_and_1() -> None:
    reconstructed = Autoencoder(AutoencoderSettings(width=64, height=32))(torch.rand(2, 3, 32, 64))
    assert reconstructed.shape == (2, 3, 32, 64)
    assert reconstructed.min() >= 0
    assert reconstructed.max() <= 1


def test_a_score_does_not_depend_on_other_images_of_the_minibatch(
    part: Callable[..., bytes], detector: AutoencoderDetector
) -> None:
    images = [detector.prepare(part(seed, defective=seed % 3 == 0)) for seed in range(32)]
    alone = np.array([detector.score([image]).scores[0] for image in images])
    for size in [*range(2, 17), 17, 32]:
        assert np.abs(detector.score(images[-size:]).scores / alone[-size:] - 1).max() < 1e-5, size


def test_a_score_is_the_mean_of_its_anomaly_map(part: Callable[..., bytes], detector: AutoencoderDetector) -> None:
    images = [detector.prepare(part(seed)) for seed in range(20)]
    scored = detector.score(images)
    maps, scores = scored.maps, scored.scores
    assert maps.shape == (20, 128, 128)
    assert maps.dtype == np.float32
    assert scores.dtype == np.float64
    assert maps.mean(axis=(1, 2), dtype=np.float64) == pytest.approx(scores, rel=1e-9)


def test_scoring_no_images_returns_empty_arrays(detector: AutoencoderDetector) -> None:
    assert detector.score([]).scores.shape == (0,)
    assert detector.score([]).maps.shape == (0, 128, 128)


def test_a_score_that_is_not_finite_is_passed_on(part: Callable[..., bytes]) -> None:
    network = Autoencoder(AutoencoderSettings(width=32, height=32))
    with torch.no_grad():
        network.decoder[7].bias.fill_(float("nan"))  # type: ignore[operator]
    settings = AutoencoderSettings(width=32, height=32)
    broken = AutoencoderDetector(
        network, settings, Preprocessing(width=32, height=32, scaled_decode=False), device="cpu", max_pixels=10**6
    )
    assert np.isnan(broken.score([broken.prepare(part(0))]).scores).all()


@pytest.mark.parametrize(
    "wrong", [{"width": 100}, {"height": 0}, {"channels_1": 0}, {"width": "128"}, {"channels_3": 10**9}]
)
def test_invalid_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        AutoencoderSettings(**wrong)


def test_a_network_whose_layers_would_not_fit_into_memory_is_refused() -> None:
    AutoencoderSettings(width=4096, height=4096)
    with pytest.raises(ValueError, match="reduce the image size or the channels"):
        AutoencoderSettings(width=4096, height=4096, channels_1=1024)


def test_augmented_images_stay_close_to_the_originals() -> None:
    images = torch.rand(16, 3, 24, 24)
    augmented = augment_batch(images, np.random.default_rng(0), flips=False)
    assert augmented.shape == images.shape
    assert augmented.min() >= 0
    assert augmented.max() <= 1
    assert (augmented.mean(dim=(1, 2, 3)) - images.mean(dim=(1, 2, 3))).abs().max() < 0.08
    again = augment_batch(images, np.random.default_rng(0), flips=False)
    assert torch.equal(augmented, again)
    assert not torch.equal(augmented, augment_batch(images, np.random.default_rng(0), flips=True))


def test_the_device_is_resolved_to_one_that_exists() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        resolve_device("tpu")
