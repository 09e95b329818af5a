"""Augmented images of good parts."""

import numpy as np
import pytest

from core.vision.input.prepared_image import PreparedImage
from core.vision.training.augmentation import augment
from tests.fixtures.textured_parts import texture


def variants(image: PreparedImage, count: int = 60) -> list[PreparedImage]:
    return [augment(image, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_variant_has_the_same_form(dtype: type) -> None:
    image: PreparedImage = texture(1, side=48).astype(dtype)
    for variant in variants(image):
        assert (variant.shape, variant.dtype) == (image.shape, image.dtype)
        assert variant.min() >= 0
        assert variant.max() <= 255


def test_the_same_seed_gives_the_same_variant() -> None:
    image = texture(1, side=48)
    first, second = variants(image, 5), variants(image, 5)
    np.testing.assert_array_equal(first, second)
    assert len({variant.tobytes() for variant in first}) == 5


def test_half_of_the_variants_are_as_bright_as_the_image_and_the_others_darker_or_brighter() -> None:
    image = np.full((48, 48, 3), 100, np.uint8)
    brightness = np.array([variant.mean() for variant in variants(image)])
    assert 0.3 < (np.abs(brightness - 100) < 1).mean() < 0.7
    assert 70 < brightness.min() < 90
    assert 115 < brightness.max() <= 141


def test_some_variants_are_defocused() -> None:
    image = texture(1, side=48)
    sharpness = np.array([np.abs(np.diff(variant.astype(float), axis=1)).mean() for variant in variants(image)])
    assert sharpness.min() < 0.6 * np.abs(np.diff(image.astype(float), axis=1)).mean()
