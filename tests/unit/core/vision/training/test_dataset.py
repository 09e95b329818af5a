"""Reading folders in MVTec layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.vision.input.preprocessing import prepare
from core.vision.input.record import Preprocessing
from core.vision.input.thumbnails import make_thumbnails
from core.vision.training.dataset import (
    ImageDataset,
    InvalidDataset,
    dataset_digest,
    file_digests,
    median_image_size,
    read,
    read_mvtec_folder,
)

SMALL = Preprocessing(width=16, height=16, scaled_decode=False)


def test_the_layout_is_read_in_name_order(folder: Path) -> None:
    layout = read_mvtec_folder(folder)
    assert [path.name for path in layout.good] == [f"{number:03}.png" for number in range(40)]
    assert len(layout.test_good) == 8
    assert {path.parent.name for path in layout.test_defective} == {"scratch"}


def test_a_folder_without_test_images_is_accepted(part: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "train" / "good" / "deeper").mkdir(parents=True)
    (tmp_path / "train" / "good" / "deeper" / "a.JPG").write_bytes(part(0))
    (tmp_path / "train" / "good" / ".hidden.png").write_bytes(part(0))
    (tmp_path / "train" / "good" / "notes.txt").write_text("x")
    layout = read_mvtec_folder(tmp_path)
    assert [path.name for path in layout.good] == ["a.JPG"]
    assert layout.test_good == layout.test_defective == []


def test_other_folders_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match="not a folder"):
        read_mvtec_folder(tmp_path / "nowhere")
    with pytest.raises(InvalidDataset, match="no folder train/good"):
        read_mvtec_folder(tmp_path)
    (tmp_path / "train" / "good").mkdir(parents=True)
    with pytest.raises(InvalidDataset, match="holds no images"):
        read_mvtec_folder(tmp_path)


@pytest.fixture
def files(part: Callable[..., bytes], tmp_path: Path) -> list[Path]:
    """Forty-one files, more than threads read ahead on most machines; one is not an image, one is rotated."""
    paths = [tmp_path / f"{number:02}.png" for number in range(41)]
    for number, path in enumerate(paths):
        path.write_bytes(b"no image" if number == 1 else part(number, side=64 if number == 4 else 48))
    return paths


@pytest.mark.parametrize("max_cache_bytes", [0, 1024**3], ids=["decoded-again", "kept"])
def test_cached_and_decoded_images_are_the_same(files: list[Path], max_cache_bytes: int) -> None:
    counts: list[int] = []
    dataset = read(files, SMALL, max_pixels=10**6, progress=counts.append, max_cache_bytes=max_cache_bytes)
    assert counts == list(range(1, 42))
    assert dataset.paths == [path for path in files if path.name != "01.png"]
    assert [path for path, _ in dataset.unreadable] == [files[1]]
    expected = np.stack([prepare(path.read_bytes(), SMALL, max_pixels=10**6).pixels for path in dataset.paths])
    for _ in range(2):
        assert np.array_equal(np.concatenate(list(dataset.images.minibatches(7))), expected)
    some = dataset.images.subset([5, 3, 39])
    assert len(some) == 3
    [minibatch] = some.minibatches(8, [2, 0])
    assert np.array_equal(minibatch, expected[[39, 5]])
    next(dataset.images.minibatches(4))  # then stop: the threads end with the generator


def test_a_set_larger_than_the_cache_is_not_cached(files: list[Path]) -> None:
    del files[1]
    images = ImageDataset(files, SMALL, max_pixels=10**6, max_cache_bytes=40 * 16 * 16 * 3 - 1)
    list(images.minibatches(8))
    files[0].write_bytes(b"changed")
    with pytest.raises(InvalidDataset, match="leave the folder alone"):
        list(images.minibatches(8))
    files[0].unlink()
    with pytest.raises(InvalidDataset, match="leave the folder alone"):
        list(images.minibatches(8))


def test_one_pass_reads_all_facts_of_each_image(files: list[Path]) -> None:
    dataset = read(files, SMALL, max_pixels=10**6, progress=lambda _: None)
    images = list(np.concatenate(list(dataset.images.minibatches(64))))
    assert dataset.digests == file_digests(dataset.paths)
    assert np.array_equal(dataset.thumbnails, make_thumbnails(images))
    assert dataset.thumbnails.shape == (40, 256)
    np.testing.assert_allclose(dataset.deviations, [image.std() for image in images])
    assert dataset.sizes[:4] == [(48, 48), (48, 48), (48, 48), (64, 64)]
    assert [fact.aspect for fact in dataset.facts] == [1.0] * 40


def test_the_typical_size_is_as_displayed_and_ignores_unreadable_files(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(4)]
    turned = Image.Exif()
    turned[0x0112] = 6
    for path in paths[:3]:
        Image.new("RGB", (40, 20)).save(path, exif=turned)
    paths[3].write_bytes(b"no image")
    assert median_image_size(paths, max_pixels=10**6) == (20, 40)
    with pytest.raises(InvalidDataset, match="none of the 1 images can be read"):
        median_image_size(paths[3:], max_pixels=10**6)


@pytest.mark.parametrize(
    ("place", "name", "reason"),
    [
        (".", ".", "but 1 images of its own: move"),
        ("good", ".", "but a folder good: move"),
        ("train", ".", "but images in train/: move"),
        ("train/scratch", ".", "only train/scratch: put"),
        ("train/good", "train", "name the folder above it"),
    ],
    ids=["flat", "good", "train", "others", "too-deep"],
)
def test_a_folder_in_another_layout_is_refused_with_a_hint(
    part: Callable[..., bytes], tmp_path: Path, place: str, name: str, reason: str
) -> None:
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "a.png").write_bytes(part(0))
    with pytest.raises(InvalidDataset, match=reason):
        read_mvtec_folder(tmp_path / name)


def test_unused_files_are_noted(part: Callable[..., bytes], tmp_path: Path) -> None:
    for place in ("train/good", "train/scratch", "test/good"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.png").write_bytes(part(0))
    other_files, untested = read_mvtec_folder(tmp_path).notes
    assert "also holds scratch: only train/good is used" in other_files
    assert "no images of defective parts: detection is not measured" in untested


def test_the_digest_of_a_set_covers_names_and_contents(folder: Path) -> None:
    paths = read_mvtec_folder(folder).good
    digests = file_digests(paths)
    whole = dataset_digest(folder, paths, digests)
    assert whole == dataset_digest(folder, paths, digests)
    assert whole != dataset_digest(folder, paths[:-1], digests[:-1])
    assert whole != dataset_digest(folder, paths, [digests[0], *digests[:-1]])


def test_hidden_folders_and_dangling_links_are_skipped(part: Callable[..., bytes], tmp_path: Path) -> None:
    good = tmp_path / "train" / "good"
    (good / ".cache").mkdir(parents=True)
    (good / ".cache" / "a.png").write_bytes(part(0))
    (good / "b.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InvalidDataset, match="holds no images"):
        read_mvtec_folder(tmp_path)
