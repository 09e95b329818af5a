"""Archive folders: listed in order, resumable at any name, and never read outside the root."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Code, Failure, Refused
from core.intake.image_decoding import Undecodable
from core.settings import SettingsError, read_settings
from core.storage import archive_folders
from core.storage.archive_folders import Folder
from core.storage.archive_roots import ArchiveLocation, Archives, ArchiveUnavailable

MAX_BYTES = 1000
NOBODY = 65534


def write_files(root: Path, *names: str, content: bytes = b"image") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names_of(location: ArchiveLocation, after: str | None = None) -> list[str]:
    return list(location.images(after))


def failure_of(location: ArchiveLocation, name: str, max_bytes: int = MAX_BYTES) -> Failure:
    with pytest.raises(Undecodable) as caught:
        location.read(name, max_bytes=max_bytes)
    return caught.value.failure


def refusal(archives: Archives, path_or_url: str) -> str:
    with pytest.raises(Refused) as caught:
        archives.locate(path_or_url)
    assert caught.value.code is Code.SOURCE_REFUSED
    return caught.value.detail


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as an unprivileged user, because root ignores file permissions."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


_PARTS = st.text(st.sampled_from("ab-.~ é\U0001f600\uffee\\x0"), min_size=1, max_size=4).filter(
    lambda part: part not in (".", "..")
)
_NAMES = st.lists(
    st.tuples(st.lists(_PARTS, max_size=3), _PARTS).map(lambda path: "/".join([*path[0], f"{path[1]}.png"])),
    max_size=25,
)


@given(names=_NAMES, chunk_names=st.integers(1, 4))
def test_a_listing_resumes_after_any_name(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], chunk_names: int
) -> None:
    root = tmp_path_factory.mktemp("archive")
    for name in names:
        try:
            write_files(root, name)
        except OSError:  # a file already has the name of a folder
            continue
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_folders, "_CHUNK_NAMES", chunk_names)
        location = Folder(root)
        whole = names_of(location)
        assert whole == sorted(whole, key=str.encode)
        for at, name in enumerate(whole):
            assert location.read(name, max_bytes=MAX_BYTES) == b"image"
            assert names_of(location, name) == whole[at + 1 :]
    visible = [path for path in root.rglob("*.png") if path.is_file()]
    visible = [path for path in visible if not any(part[0] == "." for part in path.relative_to(root).parts)]
    assert len(whole) == len(visible)


def test_only_images_that_are_not_hidden_are_listed(tmp_path: Path) -> None:
    write_files(tmp_path, "b.PNG", "a/c.tiff", "a.jpeg", "a-b.bmp", "d.webp")
    write_files(tmp_path, "notes.txt", ".hidden.png", ".git/x.png", "png")
    assert names_of(Folder(tmp_path)) == ["a-b.bmp", "a.jpeg", "a/c.tiff", "b.PNG", "d.webp"]


def test_files_whose_names_are_not_utf_8_are_listed_and_read(tmp_path: Path) -> None:
    unusual_names = [b"a\xff.png", b"line\nfeed.png", "grün.png".encode(), rb"a\xff.png", rb"\x5cx41.png"]
    for name in unusual_names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    location = Folder(tmp_path)
    names = names_of(location)
    assert {location.read(name, max_bytes=MAX_BYTES) for name in names} == set(unusual_names)
    assert "a\\xff.png" in names
    assert "".join(names).encode()  # PostgreSQL can store them


def test_symbolic_links_are_followed_only_within_the_root(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    write_files(root, "real/1.png", "lot/2.png")
    write_files(secret, "3.png", content=b"secret")
    (root / "lot/inside.png").symlink_to("../real/1.png")
    (root / "lot/outside.png").symlink_to(secret / "3.png")
    (root / "lot/gone.png").symlink_to("nothing.png")
    (root / "lot/loop.png").symlink_to("loop.png")
    (root / "lot/folder").symlink_to(secret)
    (root / "lot/linked").symlink_to("../real")
    location = Folder(root, ["lot"])
    assert names_of(location) == ["2.png", "gone.png", "inside.png", "loop.png", "outside.png"]
    assert location.read("inside.png", max_bytes=MAX_BYTES) == b"image"
    assert location.read("linked/1.png", max_bytes=MAX_BYTES) == b"image"
    assert failure_of(location, "outside.png") is Failure.OUTSIDE_ROOT
    assert failure_of(location, "folder/3.png") is Failure.OUTSIDE_ROOT
    assert failure_of(location, "gone.png") is Failure.IMAGE_MISSING
    assert failure_of(location, "loop.png") is Failure.IMAGE_MISSING


@pytest.mark.parametrize("victim", ["lot/1.png", "lot"])
def test_a_link_swapped_in_after_the_check_opens_nothing_outside_the_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    write_files(root, "lot/1.png", "other/1.png")
    write_files(secret, "1.png", content=b"secret")
    (root / "link.png").symlink_to("lot/1.png")
    check = archive_folders.inside_root

    def swap_after(root: Path, path: Path) -> list[str] | None:
        inside = check(root, path)
        (root / victim).rename(tmp_path / "aside")
        (root / victim).symlink_to(secret / "1.png" if victim.endswith(".png") else secret)
        return inside

    monkeypatch.setattr(archive_folders, "inside_root", swap_after)
    assert failure_of(Folder(root), "link.png") is Failure.IMAGE_MISSING


@pytest.mark.parametrize(
    "name",
    ["../secret/1.png", "a/../../secret/1.png", "/etc/passwd", "file:///etc/passwd", "s3://b/1.png", "a/../1.png"],
)
def test_names_outside_the_root_are_refused(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, "root/1.png", "secret/1.png")
    assert failure_of(Folder(tmp_path / "root"), name) is Failure.OUTSIDE_ROOT


@pytest.mark.parametrize("name", ["", "a", "nothing.png", "1.png/2.png", "n\0.png", "\ud800.png", "x" * 300 + ".png"])
def test_a_name_that_is_not_a_file_is_a_missing_image(tmp_path: Path, name: str) -> None:
    write_files(tmp_path, "1.png", "a/1.png")
    assert failure_of(Folder(tmp_path), name) is Failure.IMAGE_MISSING


def test_a_file_can_be_read_by_absolute_path_and_by_url(tmp_path: Path) -> None:
    write_files(tmp_path, "lists/x.csv", "images/grün 1.png")
    path = tmp_path / "images/grün 1.png"
    location = Folder(tmp_path, ["lists"])
    assert location.read(str(path), max_bytes=MAX_BYTES) == b"image"
    assert location.read(path.as_uri(), max_bytes=MAX_BYTES) == b"image"


def test_pipes_are_not_listed_and_do_not_block(tmp_path: Path) -> None:
    write_files(tmp_path, "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert names_of(Folder(tmp_path)) == ["1.png"]
    assert failure_of(Folder(tmp_path), "pipe.png") is Failure.IMAGE_MISSING


def test_files_above_max_bytes_are_not_read(tmp_path: Path) -> None:
    write_files(tmp_path, "1.png", content=b"x" * MAX_BYTES)
    assert len(Folder(tmp_path).read("1.png", max_bytes=MAX_BYTES)) == MAX_BYTES
    assert failure_of(Folder(tmp_path), "1.png", MAX_BYTES - 1) is Failure.IMAGE_TOO_LARGE


def test_an_unreadable_file_or_folder_does_not_affect_the_others(reachable_folder: Path) -> None:
    root = reachable_folder / "permissions"
    write_files(root, "a/1.png", "b/2.png", "c.png", "d.png")
    root.chmod(0o755)
    (root / "a").chmod(0o000)
    (root / "c.png").chmod(0o000)
    location = Folder(root)
    with unprivileged():
        assert names_of(location) == ["a/", "b/2.png", "c.png", "d.png"]
        assert names_of(location, "a/") == ["b/2.png", "c.png", "d.png"]
        assert failure_of(location, "a/") is Failure.IMAGE_MISSING
        assert failure_of(location, "c.png") is Failure.IMAGE_MISSING
        assert location.read("d.png", max_bytes=MAX_BYTES) == b"image"
    (root / "a").chmod(0o755)  # so that the test folder can be deleted


def test_an_unavailable_root_is_not_a_fault_of_its_images(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_files(root, "lot/1.png")
    location = Archives([str(root)]).locate("lot")
    root.rename(tmp_path / "aside")
    for _ in range(2):  # first the folder is missing, then empty, like an unmounted file system
        with pytest.raises(ArchiveUnavailable):
            location.read("1.png", max_bytes=MAX_BYTES)
        with pytest.raises(ArchiveUnavailable):
            names_of(location, "1.png")
        (root / "lot").mkdir(parents=True, exist_ok=True)


def test_a_folder_is_located_by_absolute_path_relative_path_and_url(tmp_path: Path) -> None:
    write_files(tmp_path, "first/lot 1/1.png", "second/lot-2/1.png", "first/lists/a.csv")
    archives = Archives([str(tmp_path / "first"), str(tmp_path / "second")])
    url = (tmp_path / "first/lot 1").as_uri()
    for given_path in (str(tmp_path / "first/lot 1"), f"{tmp_path}/first//./lot 1/", "lot 1", url):
        assert archives.locate(given_path).url == url
    assert archives.locate("lot-2").url == (tmp_path / "second/lot-2").as_uri()
    assert archives.locate(str(tmp_path / "first")).url == (tmp_path / "first").as_uri()
    location, name = archives.locate_file("lists/a.csv")
    assert (location.url, name) == ((tmp_path / "first/lists").as_uri(), "a.csv")
    again, name = archives.locate_file(location.url_of(name))
    assert (again.url, name) == (location.url, "a.csv")


def test_locations_outside_every_root_are_refused(tmp_path: Path) -> None:
    write_files(tmp_path, "archive/lot/1.png", "archived/1.png", "archive/list.csv")
    (tmp_path / "archive/link").symlink_to(tmp_path / "archived")
    archives = Archives([str(tmp_path / "archive")])
    outside = ["/etc", str(tmp_path), f"{tmp_path}/archived", "../archived", f"{tmp_path}/archive/../archived"]
    for path_or_url in [*outside, "s3://bucket/prefix", "https://example.com/x", "file://elsewhere/archive"]:
        assert "LINEWATCH_ARCHIVE_ROOTS" in refusal(archives, path_or_url)
    assert "symbolic link" in refusal(archives, "link")
    assert "does not exist" in refusal(archives, "nothing")
    assert "does not exist" in refusal(archives, "list.csv")
    assert "set LINEWATCH_ARCHIVE_ROOTS" in refusal(Archives([]), "lot")
    with pytest.raises(Refused, match=r"The file .* does not exist"):
        archives.locate_file("lot")


def test_locations_below_an_unavailable_root_are_accepted_unchecked(tmp_path: Path) -> None:
    write_files(tmp_path, "here/lot/1.png")
    archives = Archives([str(tmp_path / "away"), str(tmp_path / "here")])
    assert archives.locate("lot").url == (tmp_path / "here/lot").as_uri()
    assert archives.locate("other").url == (tmp_path / "away/other").as_uri()
    assert archives.locate(f"{tmp_path}/away/x").url == (tmp_path / "away/x").as_uri()
    assert "not below" in refusal(archives, f"{tmp_path}/away/../x")


@pytest.mark.parametrize("roots", ["/archive", "/a b, s3://bucket/prefix ,file:///x%2Cy", "", "s3://bucket"])
def test_roots_can_be_folders_and_s3_prefixes(monkeypatch: pytest.MonkeyPatch, roots: str) -> None:
    monkeypatch.setenv("LINEWATCH_ARCHIVE_ROOTS", roots)
    assert len(Archives.of(read_settings()).roots) == len(roots.split(",")) - (not roots)


@pytest.mark.parametrize("roots", ["archive", "/a,b", "s3://", "https://example.com/", "/a/../b", "file://host/x"])
def test_invalid_roots_are_refused_by_the_settings(monkeypatch: pytest.MonkeyPatch, roots: str) -> None:
    monkeypatch.setenv("LINEWATCH_ARCHIVE_ROOTS", roots)
    with pytest.raises(SettingsError, match="LINEWATCH_ARCHIVE_ROOTS"):
        read_settings()
