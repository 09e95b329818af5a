"""The pairs of a report come from the files of the training set."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.html.rendering import IMAGE_SIDE
from core.vision.evaluation.similar_images import MAX_PAIRS, choose_similar_images
from core.vision.training.dataset import InvalidDataset
from core.vision.training_data import TrainingData, read_training_data
from core.vision.training_options import TrainingOptions
from tests.fixtures.repeated_shots import grained_part, shot

SIDE = 330


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve parts, of which ten have a second shot, as JPEG, shifted and in other light."""
    good = tmp_path / "train" / "good"
    good.mkdir(parents=True)
    for number in range(12):
        part = grained_part(number, side=SIDE)
        for again in range(2 if number < 10 else 1):
            levels = shot(part, 2 * number + again, gain=1 + 0.05 * again, shift=(again, -again)).astype(np.uint8)
            Image.fromarray(levels).save(good / f"{number:02}-{again}.jpg", quality=90)
    return tmp_path


def read(folder: Path, **options: object) -> TrainingData:
    chosen = {"architecture": "conv-autoencoder", "input_size": 32, "device": "cpu", "pose": "as-is", **options}
    return read_training_data(folder, TrainingOptions(**chosen), lambda _: None)  # type: ignore[arg-type]


def test_at_most_eight_pairs_of_all_similarities_are_shown(folder: Path) -> None:
    data = read(folder)
    assert data.grouping.groups == [*(number for number in range(10) for _ in range(2)), 10, 11]
    similar = choose_similar_images(folder, data.good.paths, data.grouping, max_pixels=10**6)
    assert (similar.count, similar.groups, len(similar.pairs)) == (20, 10, MAX_PAIRS)
    similarities = [pair.similarity for pair in similar.pairs]
    assert similarities == sorted(similarities, reverse=True)
    assert (similarities[0], similarities[-1]) == (
        data.grouping.pairs[0].similarity,
        data.grouping.pairs[-1].similarity,
    )
    for pair in similar.pairs:
        first, second = pair.names
        assert (first[:14], first[-5:], second) == ("train/good/" + second[11:14], "0.jpg", first[:-5] + "1.jpg")
        for image in pair.images:
            assert Image.open(io.BytesIO(image)).size == (IMAGE_SIDE, IMAGE_SIDE)


def test_looks_are_not_compared_in_the_size_of_the_detector(folder: Path) -> None:
    assert read(folder, input_size=32).grouping == read(folder, input_size=128).grouping


def test_the_groups_do_not_depend_on_the_available_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = read(folder).grouping
    monkeypatch.setattr("core.vision.training_data.MAX_CACHE_BYTES", 0)
    assert read(folder).grouping == kept


def test_a_subset_keeps_the_pairs_that_are_in_it(folder: Path) -> None:
    grouping = read(folder).grouping
    subset = grouping.subset([2, 3, 4, 7, 6, 21])
    assert subset.groups == [0, 0, 1, 2, 2, 3]
    assert sorted((pair.first, pair.second) for pair in subset.pairs) == [(0, 1), (4, 3)]


def test_a_file_that_vanishes_is_named(folder: Path) -> None:
    data = read(folder)
    missing = data.good.paths[3]
    missing.unlink()
    with pytest.raises(InvalidDataset, match=f"{missing.name} could be read before"):
        list(data.good.images.at_sizes([3], [(32, 16)]))


def test_images_are_read_in_the_wanted_sizes(folder: Path) -> None:
    images = read(folder).good.images
    found = list(images.at_sizes([5, 0], [(32, 16), (SIDE, SIDE)]))
    assert [image.shape for image in found] == [(16, 32, 3), (SIDE, SIDE, 3)]
    np.testing.assert_array_equal(found[1], np.asarray(Image.open(images.paths[0]).convert("RGB")))
