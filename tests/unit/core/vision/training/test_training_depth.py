"""The bit depth of a training set: what the files name, or what holds the levels of all images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from core.models.bit_depths import BitDepth, BitDepthChoice
from core.vision.input.bit_depth import DEPTH
from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from core.vision.input.thumbnails import make_thumbnails
from core.vision.training.augmentation import augment
from core.vision.training.dataset import ImageDataset, InvalidDataset, read
from core.vision.training.training_depth import TrainingDepth, find_training_depth
from tests.fixtures.deep_images import deep_levels, deep_png, deep_tiff, packed_tiff
from tests.fixtures.part_images import encoded, part, png

DEEP = Preprocessing(width=16, height=16, scaled_decode=False, bit_depth=12)


def write(folder: Path, images: Sequence[bytes]) -> list[Path]:
    paths = [folder / f"{number:02}" for number in range(len(images))]
    for path, data in zip(paths, images, strict=True):
        path.write_bytes(data)
    return paths


def found(folder: Path, images: Sequence[bytes], choice: BitDepthChoice = "auto") -> TrainingDepth:
    counts: list[int] = []
    result = find_training_depth(write(folder, images), choice, max_pixels=10**6, progress=counts.append)
    assert counts == list(range(1, len(images) + 1))
    return result


@pytest.mark.parametrize(
    ("images", "depth"),
    [
        pytest.param([png(1), encoded(part(2), "JPEG"), encoded(part(3), "TIFF")], 8, id="8"),
        pytest.param([deep_png(deep_levels(seed, 10)) for seed in range(3)], 10, id="10"),
        pytest.param([deep_png(deep_levels(1)), deep_tiff(deep_levels(2) // 20)], 12, id="the brightest decides"),
        pytest.param([deep_tiff(deep_levels(seed, 16), big_endian=True) for seed in range(2)], 16, id="16"),
        pytest.param([deep_tiff(deep_levels(1, 8)), png(2)], 8, id="8 bits in 16, and in 8"),
        pytest.param([deep_png(deep_levels(1, 10), significant_bits=14)], 14, id="sBIT"),
        pytest.param([packed_tiff(deep_levels(1) // 9), deep_png(deep_levels(2))], 12, id="BitsPerSample"),
        pytest.param([deep_png(deep_levels(1) * np.uint16(16), significant_bits=12)], 16, id="left-aligned"),
        pytest.param([deep_png(deep_levels(1, 8) * np.uint16(16))], 12, id="8 bits times 16"),
    ],
)  # fmt: skip
def test_the_depth_is_found_in_the_images(tmp_path: Path, images: list[bytes], depth: BitDepth) -> None:
    assert found(tmp_path, images).depth == depth
    assert found(tmp_path, [*images, b"no image"]).depth == depth
    assert found(tmp_path, images, depth) == TrainingDepth(depth, [])


def test_a_measured_depth_is_noted_and_a_named_one_is_not(tmp_path: Path) -> None:
    [note] = found(tmp_path, [deep_png(deep_levels(seed)) for seed in range(3)]).notes
    assert "by their highest grey levels it is 12, which holds levels up to 4095" in note
    assert "only" not in note
    assert found(tmp_path, [deep_png(deep_levels(seed), significant_bits=12) for seed in range(3)]).notes == []
    assert found(tmp_path, [png(1), png(2)]).notes == []


def test_a_few_images_that_decide_the_depth_are_named(tmp_path: Path) -> None:
    levels = deep_levels(11)
    levels[3, 3] = 65535  # a broken pixel
    result = found(tmp_path, [deep_png(deep_levels(seed)) for seed in range(11)] + [deep_png(levels)])
    assert result.depth == 16
    assert f"only 1 of the 12 images have levels so high, the first is {tmp_path / '11'}" in result.notes[0]


@pytest.mark.parametrize(
    ("images", "groups"),
    [
        ([png(1), deep_png(deep_levels(1))], r"1 of 8 bits \(.+00\), 1 of 12 bits \(the first is .+01\)"),
        ([packed_tiff(deep_levels(1)), png(1), png(2)], r"2 of 8 bits .*, 1 of 12 bits"),
        ([packed_tiff(deep_levels(1)), deep_png(deep_levels(2, 16))], "1 of 12 bits .*, 1 of 16 bits"),
    ],
)  # fmt: skip
def test_images_of_different_depths_are_refused(tmp_path: Path, images: list[bytes], groups: str) -> None:
    with pytest.raises(InvalidDataset, match=f"have different bit depths: there are {groups}.*; store all of them"):
        found(tmp_path, images)


@pytest.mark.parametrize(
    ("image", "choice", "bits"),
    [(png(1), 12, 8), (deep_png(deep_levels(1)), 8, 12), (deep_png(deep_levels(1), significant_bits=12), 14, 12)],
)
def test_a_chosen_depth_that_the_images_do_not_have_is_refused(
    tmp_path: Path, image: bytes, choice: BitDepth, bits: int
) -> None:
    with pytest.raises(
        InvalidDataset, match=f"the chosen bit depth of {choice}: there are 1 of {bits} bits.*--bit-depth"
    ):
        found(tmp_path, [image], choice)


def test_a_chosen_depth_may_be_larger_than_the_levels_need(tmp_path: Path) -> None:
    images = [deep_png(deep_levels(seed, 10)) for seed in range(2)]
    assert found(tmp_path, images, 12).depth == 12
    assert found(tmp_path, [b"no image"], 12).depth == 12
    assert found(tmp_path, [b"no image"]).depth == 8


# The images of such a set


@pytest.mark.parametrize("max_cache_bytes", [0, 1024**3], ids=["decoded-again", "kept"])
def test_a_dataset_gives_what_serving_gives(tmp_path: Path, max_cache_bytes: int) -> None:
    paths = write(tmp_path, [deep_png(deep_levels(seed)) for seed in range(5)] + [png(5)])
    scanned = read(paths, DEEP, max_pixels=10**6, progress=lambda _: None, max_cache_bytes=max_cache_bytes)
    expected = np.stack([prepare(path.read_bytes(), DEEP, max_pixels=10**6).pixels for path in paths])
    assert expected.dtype == np.float32
    assert np.array_equal(np.concatenate(list(scanned.images.minibatches(4))), expected)
    assert scanned.reasons == [()] * 5 + [(DEPTH,)]
    assert np.array_equal(scanned.thumbnails, make_thumbnails(list(expected)))
    np.testing.assert_allclose(scanned.deviations, [image.std(dtype=np.float64) for image in expected])


def test_the_cache_counts_the_bytes_of_floats(tmp_path: Path) -> None:
    paths = write(tmp_path, [deep_png(deep_levels(seed)) for seed in range(3)])
    images = ImageDataset(paths, DEEP, max_pixels=10**6, max_cache_bytes=3 * 16 * 16 * 3 * 4 - 1)
    list(images.minibatches(2))
    paths[0].unlink()
    with pytest.raises(InvalidDataset, match="leave the folder alone"):
        list(images.minibatches(2))


def test_an_augmented_deep_image_keeps_its_fractions() -> None:
    preprocessing = Preprocessing(width=48, height=32, scaled_decode=False, bit_depth=12)
    image = prepare(deep_png(deep_levels(1)), preprocessing, max_pixels=10**6).pixels
    for seed in range(12):
        changed = augment(image, np.random.default_rng(seed))
        assert changed.shape == image.shape
        assert changed.dtype == np.float32
        assert 0 <= changed.min() < changed.max() <= 255
        assert (changed % 1 > 0).mean() > 0.5
        of_8_bits = augment(image.round().astype(np.uint8), np.random.default_rng(seed))
        assert of_8_bits.dtype == np.uint8
        assert np.abs(changed - of_8_bits).mean() < 2
