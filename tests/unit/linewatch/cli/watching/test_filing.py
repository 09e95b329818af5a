"""Files that are put away."""

import errno
from pathlib import Path

import pytest

from linewatch.cli.watching.filing import After, Filing
from linewatch.cli.watching.journal import Entry, Outcome
from linewatch.cli.watching.scanning import Folder

ACCEPTED, REJECTED = Outcome(inspection_id="id"), Outcome(code="empty_body", detail="It is empty.")
REASON = "It is empty. (empty_body)\n"


def filed(folder: Path, after: After, outcome: Outcome, name: str = "lot/a.png", content: str = "x") -> list[str]:
    """Put a new file away, and return the files that are there then."""
    filing = Filing(folder, after, folder / "accepted", folder / "rejected")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    entry = Entry(Folder(folder).stamp(name), "key", {}, outcome)
    assert filing.put_away([entry]) == ([entry], None)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("after", "outcome", "expected"),
    [
        (After.MOVE, ACCEPTED, ["accepted/lot/a.png"]),
        (After.MOVE, REJECTED, ["rejected/lot/a.png", "rejected/lot/a.png.txt"]),
        (After.MARK, ACCEPTED, ["lot/a.png.accepted"]),
        (After.MARK, REJECTED, ["lot/a.png.rejected", "lot/a.png.rejected.txt"]),
        (After.DELETE, ACCEPTED, []),
        (After.DELETE, REJECTED, ["rejected/lot/a.png", "rejected/lot/a.png.txt"]),
    ],
)
def test_files_go_where_they_should(tmp_path: Path, after: After, outcome: Outcome, expected: list[str]) -> None:
    assert filed(tmp_path, after, outcome) == expected
    for path in tmp_path.rglob("*.txt"):
        assert path.read_text() == REASON


def test_a_name_that_is_used_again_overwrites_nothing(tmp_path: Path) -> None:
    filed(tmp_path, After.MOVE, ACCEPTED, content="first")
    assert filed(tmp_path, After.MOVE, ACCEPTED, content="second") == ["accepted/lot/a.id.png", "accepted/lot/a.png"]
    assert (tmp_path / "accepted/lot/a.png").read_text() == "first"
    filed(tmp_path, After.MOVE, REJECTED)
    assert "rejected/lot/a.key.png.txt" in filed(tmp_path, After.MOVE, REJECTED)


def test_other_file_systems_get_a_complete_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(source: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", rename)
    assert filed(tmp_path, After.MOVE, ACCEPTED, content="image") == ["accepted/lot/a.png"]
    assert (tmp_path / "accepted/lot/a.png").read_text() == "image"


def test_a_newer_image_of_the_same_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filing = Filing(tmp_path, After.MOVE, tmp_path / "accepted", tmp_path / "rejected")
    file = tmp_path / "a.png"
    file.write_text("old")
    entry = Entry(Folder(tmp_path).stamp("a.png"), "key", {}, ACCEPTED)
    file.write_text("newer")
    assert filing.put_away([entry]) == ([entry], None)
    assert file.read_text() == "newer"

    entry = Entry(Folder(tmp_path).stamp("a.png"), "key", {}, ACCEPTED)
    rename = Path.rename

    def rename_after_the_camera(source: Path, target: Path) -> Path:
        if source == file:
            file.write_text("newest image")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", rename_after_the_camera)
    assert filing.put_away([entry]) == ([entry], None)
    assert file.read_text() == "newest image"
    assert list((tmp_path / "accepted").iterdir()) == []


def test_a_failure_does_not_keep_the_others(tmp_path: Path) -> None:
    filing = Filing(tmp_path, After.MOVE, tmp_path / "accepted", tmp_path / "rejected")
    (tmp_path / "accepted").write_text("not a folder")
    entries = []
    for name, outcome in (("a.png", ACCEPTED), ("b.png", REJECTED), ("c.png", ACCEPTED)):
        (tmp_path / name).write_text("x")
        entries.append(Entry(Folder(tmp_path).stamp(name), "key", {}, outcome))
    (tmp_path / "c.png").unlink()
    done, error = filing.put_away(entries)
    assert done == [entries[1]]
    assert isinstance(error, FileExistsError)
