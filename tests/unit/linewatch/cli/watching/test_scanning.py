"""Scans of a folder, and complete files."""

from pathlib import Path

import pytest

from linewatch.cli.stamps import Stamp
from linewatch.cli.watching.scanning import Folder, Settling


def names(folder: Folder) -> list[str]:
    return sorted(stamp.name for stamp in folder.stamps(lambda *_: None))


def test_images_are_found_and_temporary_names_are_not(tmp_path: Path) -> None:
    wanted = ["a.jpg", "B.PNG", "line/lot/1.tiff", "x.y.bmp"]
    temporary = [".a.jpg", "~a.jpg", "a.jpg.part", "a.tmp.jpg", "a.filepart", ".hidden/a.jpg", "notes.txt", "jpg"]
    for name in [*wanted, *temporary, "done/a.jpg", "preview_1.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")  # it may lead anywhere on this machine
    (tmp_path / "folder.jpg").mkdir()
    folder = Folder(tmp_path, skipped=[tmp_path / "done"], ignored=["preview_*"])
    assert names(folder) == sorted(wanted)
    status = (tmp_path / "a.jpg").stat()
    assert folder.stamp("a.jpg") == Stamp("a.jpg", 1, status.st_mtime_ns)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        names(Folder(tmp_path / "missing"))


def test_a_file_is_complete_once_it_has_not_changed_for_some_time() -> None:
    settling = Settling(2.0)
    growing, grown, other = Stamp("a", 1, 1), Stamp("a", 2, 2), Stamp("b", 1, 1)
    assert settling.complete([growing, other], 10.0) == []
    assert settling.complete([grown, other], 12.0) == [other]
    assert settling.complete([grown], 13.9) == []
    assert settling.complete([grown, other], 14.0) == [grown]  # the other one was gone and has to settle again


def test_an_empty_file_is_given_time_to_be_written() -> None:
    settling = Settling(0.0)
    empty, full = Stamp("a", 0, 1), Stamp("b", 1, 1)
    assert settling.complete([empty, full], 0.0) == [full]
    assert settling.complete([empty], 59.0) == []
    assert settling.complete([empty], 60.0) == [empty]
