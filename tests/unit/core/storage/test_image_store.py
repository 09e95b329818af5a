"""The image store: publishing, reading and sweeping files."""

import shutil
from pathlib import Path

import pytest

from core.storage.folder_store import FolderStore


def test_a_file_exists_only_once_it_is_published(tmp_path: Path) -> None:
    store = FolderStore(f"file://{tmp_path}/a%20store")
    staged = store.stage()
    staged.write(b"half of ")
    assert not store.holds("2026/01/02/x")
    assert store.size("2026/01/02/x") is None
    staged.write(b"it")
    staged.flush()
    store.publish([(staged, "2026/01/02/x")])
    assert store.read("2026/01/02/x") == b"half of it"
    staged.discard()  # has no effect after publishing
    assert store.holds("2026/01/02/x")
    assert (tmp_path / "a store" / "2026" / "01" / "02" / "x").is_file()
    assert list((tmp_path / "a store" / "tmp").iterdir()) == []


def test_old_unpublished_files_are_swept(tmp_path: Path) -> None:
    store = FolderStore(f"file://{tmp_path}")
    staged = store.stage()
    staged.write(b"abandoned")
    staged.close()
    assert store.sweep(older_than_seconds=60) == 0
    assert store.sweep(older_than_seconds=-60) == 1
    assert not staged.path.exists()


def test_what_cannot_be_deleted_keeps_nothing_else_from_being_swept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FolderStore(f"file://{tmp_path}")
    (tmp_path / "tmp" / "a-folder").mkdir()
    for _ in range(2):
        store.stage().close()
    assert store.sweep(older_than_seconds=-60) == 2
    assert "a-folder" in caplog.text


def test_a_folder_that_was_removed_is_created_again(tmp_path: Path) -> None:
    store = FolderStore(f"file://{tmp_path}")
    store.put("2026/01/02/x", b"1")
    shutil.rmtree(tmp_path / "2026")
    store.put("2026/01/02/y", b"2")
    assert store.read("2026/01/02/y") == b"2"


def test_a_staged_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    store = FolderStore(f"file://{tmp_path}")
    store.put("2026/01/02/x", b"1")
    staged = store.stage()
    staged.path.unlink()
    with pytest.raises(FileNotFoundError):
        store.publish([(staged, "2026/01/02/y")])


@pytest.mark.parametrize(
    "key", ["/etc/passwd", "../secret", "a/../../b", "a//b", "", "a/", ".hidden", "a\x00b", "a b", "tmp/.."]
)
def test_a_key_of_another_shape_never_becomes_a_path(tmp_path: Path, key: str) -> None:
    store = FolderStore(tmp_path.as_uri())
    for use in (store.path, store.read, store.holds, lambda key: store.put(key, b"x")):
        with pytest.raises(ValueError, match="not a key"):
            use(key)
