"""What every image store does, tried with a folder, a bucket, and a move from one to the other."""

import hashlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.settings import Settings
from core.storage import made_files
from core.storage.bucket_store import PART_BYTES, BucketStore
from core.storage.image_store import Staged, Store
from core.storage.moving_store import Copied, MovingStore, copy_all
from core.storage.stores import open_store
from tests.fixtures.part_images import png
from tests.fixtures.s3_server import S3Server

KINDS = ("folder", "bucket", "moving")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, s3: S3Server, tmp_path: Path) -> Store:
    urls = {"folder": (tmp_path / "store").as_uri(), "bucket": f"s3://{s3.bucket}/test-{uuid4().hex}"}
    also = urls["folder"] if request.param == "moving" else None
    url = urls["bucket" if request.param == "moving" else request.param]
    return open_store(Settings(store_url=url, store_read_also=also, scratch=tmp_path / "scratch"))


@pytest.fixture
def bucket(s3: S3Server, tmp_path: Path) -> BucketStore:
    return BucketStore(f"s3://{s3.bucket}/test-{uuid4().hex}", tmp_path / "scratch")


def keys(store: Store, prefix: str = "") -> list[str]:
    return [file.key for file in store.files(prefix)]


def copy_of(store: Store, key: str) -> bytes | None:
    with store.local_file(key) as path:
        return path.read_bytes() if path.exists() else None


def staged_files(store: Store) -> list[Path]:
    return list((store.scratch / "tmp").iterdir())


def test_a_file_exists_only_once_it_is_published(store: Store) -> None:
    staged = store.stage()
    staged.write(b"half of ")
    assert not store.holds("2026/01/02/x")
    assert store.size("2026/01/02/x") is None
    assert copy_of(store, "2026/01/02/x") is None
    staged.write(b"it")
    staged.flush()
    store.publish([(staged, "2026/01/02/x")])
    staged.discard()  # has no effect after publishing
    assert store.read("2026/01/02/x") == copy_of(store, "2026/01/02/x") == b"half of it"
    assert (store.holds("2026/01/02/x"), store.size("2026/01/02/x")) == (True, 10)
    assert staged_files(store) == []


def test_a_whole_file_is_stored_in_three_steps_or_discarded(store: Store) -> None:
    kept, discarded = store.stage_whole(b"kept"), store.stage_whole(b"discarded")
    store.write_out(kept, "2026/01/02/kept")
    folder = store.move(kept, "2026/01/02/kept")
    store.sync([] if folder is None else [folder])
    discarded.discard()
    assert keys(store) == ["2026/01/02/kept"]
    assert staged_files(store) == []


def test_a_file_is_replaced(store: Store) -> None:
    for content in (b"first", b"second and longer"):
        store.put("reports/a.html", content)
        assert store.read("reports/a.html") == content
    assert store.size("reports/a.html") == 17


@pytest.mark.parametrize("size", [0, 1, 17 * 1024 * 1024 + 7])
def test_files_of_every_size_are_read_as_they_were_written(bucket: BucketStore, size: int, tmp_path: Path) -> None:
    content = hashlib.shake_128(b"content").digest(size)
    staged = bucket.stage()
    staged.write(content)
    staged.flush()
    bucket.publish([(staged, "models/a.tar")])
    bucket.put("models/b.tar", content)
    for key in ("models/a.tar", "models/b.tar"):
        assert bucket.size(key) == size
        assert bucket.read(key) == copy_of(bucket, key) == content
        assert bucket.local_path(key, tmp_path).read_bytes() == content


_KEYS = st.lists(st.sampled_from(["a", "b-1", "b.png", "aa", "0"]), min_size=1, max_size=3).map("/".join)


def _are_possible(names: Iterable[str]) -> bool:
    """Whether no key is a folder of another one."""
    return not any(other.startswith(f"{name}/") for name in names for other in names)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.sets(_KEYS, max_size=6).filter(_are_possible))
def test_files_are_listed_in_the_order_of_their_keys_and_deleted(store: Store, names: set[str]) -> None:
    root = f"x{uuid4().hex}"
    for name in names:
        store.put(f"{root}/{name}", name.encode())
    store.put(f"{root}y/beside", b"")
    assert keys(store, root) == sorted(f"{root}/{name}" for name in names)
    assert [file.size for file in store.files(root)] == [len(key) - len(root) - 1 for key in keys(store, root)]
    assert list(islice(store.files(root), 1)) == list(store.files(root))[:1]
    store.delete(keys(store, root))
    assert keys(store, root) == []
    assert store.holds(f"{root}y/beside")


def test_only_files_of_the_store_are_listed(store: Store) -> None:
    store.check()
    store.stage().close()
    (store.scratch / "trainings" / "run").mkdir(parents=True)
    (store.scratch / "trainings" / "run" / "checkpoint").write_bytes(b"x")
    store.put("models/a.tar", b"x")
    assert keys(store) == ["models/a.tar"]


def test_deleting_what_is_missing_is_no_error(store: Store) -> None:
    store.put("a/b", b"x")
    store.delete(["a/b", "a/c"])
    store.delete(["a/b"])
    assert not store.holds("a/b")
    with pytest.raises(FileNotFoundError):
        store.read("a/b")


def test_a_local_path_of_a_missing_file_does_not_exist(store: Store, tmp_path: Path) -> None:
    store.put("2026/01/02/x", b"x")
    assert store.local_path("2026/01/02/x", tmp_path).read_bytes() == b"x"
    assert not store.local_path("2026/01/02/y", tmp_path).exists()


def test_a_staged_file_that_is_missing_is_an_error(store: Store) -> None:
    staged = store.stage()
    staged.path.unlink()
    with pytest.raises(FileNotFoundError):
        store.publish([(staged, "2026/01/02/y")])
    staged.discard()


@pytest.mark.parametrize("key", ["/etc/passwd", "../secret", "a/../../b", "a//b", "", "a/", ".hidden", "a\x00b", "a b"])
def test_a_key_of_another_shape_is_refused(store: Store, key: str, tmp_path: Path) -> None:
    for use in (
        store.read,
        store.holds,
        store.size,
        lambda key: store.put(key, b"x"),
        lambda key: store.local_path(key, tmp_path),
        lambda key: store.local_file(key).__enter__(),
        lambda key: store.delete([key]),
    ):
        with pytest.raises(ValueError, match="not a key"):
            use(key)


def test_made_files_expire(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put_all({"heatmaps/m/a.png": b"a", "reports/r.html": b"r", "2026/01/02/a": b"a", "models/m.tar": b"m"})
    assert made_files.expire(store, at_most=10) == 0
    monkeypatch.setattr(made_files, "KEPT_SECONDS", -60.0)
    assert [made_files.expire(store, at_most=1) for _ in range(3)] == [1, 1, 0]
    assert keys(store) == ["2026/01/02/a", "models/m.tar"]


def test_a_moving_store_writes_to_the_new_place_and_reads_in_both(s3: S3Server, tmp_path: Path) -> None:
    folder, url = (tmp_path / "old").as_uri(), f"s3://{s3.bucket}/test-{uuid4().hex}"
    old = open_store(Settings(store_url=folder))
    old.put_all({"2026/01/02/a": b"a", "models/m.tar": b"m", "reports/r.html": b"old"})
    moving = open_store(Settings(store_url=url, store_read_also=folder, scratch=tmp_path / "scratch"))
    assert isinstance(moving, MovingStore)
    moving.put_all({"2026/01/03/b": b"b", "reports/r.html": b"new"})
    assert [moving.read(key) for key in ("2026/01/02/a", "2026/01/03/b", "reports/r.html")] == [b"a", b"b", b"new"]
    assert (copy_of(moving, "models/m.tar"), moving.size("models/m.tar")) == (b"m", 1)
    assert not old.holds("2026/01/03/b")
    assert [(file.key, file.size) for file in moving.files()] == [
        ("2026/01/02/a", 1),
        ("2026/01/03/b", 1),
        ("models/m.tar", 1),
        ("reports/r.html", 3),
    ]
    assert keys(moving, "2026/01/02") == ["2026/01/02/a"]
    moving.delete(["models/m.tar"])
    assert not old.holds("models/m.tar")
    assert moving.link("2026/01/02/a", seconds=60) is None


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_file_that_is_deleted_while_it_is_copied_stays_deleted(
    bucket: BucketStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Once removed by retention, an image must not come back in the new store."""
    old = open_store(Settings(store_url=(tmp_path / "old").as_uri()))
    old.put_all({"2026/01/02/a": b"a", "2026/01/02/b": b"b"})
    publish = bucket.publish

    def publish_and_delete(staged: Iterable[tuple[Staged, str]]) -> None:
        [(file, key)] = staged
        if key == "2026/01/02/a" and moment == "before":
            MovingStore(bucket, old).delete([key])
        publish([(file, key)])
        if key == "2026/01/02/a" and moment == "after":
            MovingStore(bucket, old).delete([key])

    monkeypatch.setattr(bucket, "publish", publish_and_delete)
    copy_all(old, bucket, progress=lambda _: None)
    assert keys(bucket) == keys(old) == ["2026/01/02/b"]


def test_a_copy_is_complete_and_can_be_repeated(bucket: BucketStore, tmp_path: Path) -> None:
    old = open_store(Settings(store_url=(tmp_path / "old").as_uri()))
    files = {f"2026/01/{day:02}/{number}": bytes([day]) * number for day in (1, 2) for number in range(1, 20)}
    old.put_all(files)
    bucket.put("2026/01/01/1", files["2026/01/01/1"])
    reports: list[int] = []
    copied = copy_all(old, bucket, progress=lambda so_far: reports.append(so_far.files + so_far.present))
    assert copied == Copied(37, sum(map(len, files.values())) - 1, 1)
    assert reports == list(range(1, 39))
    assert {file.key: bucket.read(file.key) for file in bucket.files()} == files
    assert copy_all(old, bucket, progress=lambda _: None) == Copied(0, 0, 38)
    back = open_store(Settings(store_url=(tmp_path / "back").as_uri()))
    assert copy_all(bucket, back, progress=lambda _: None).files == 38
    assert {file.key: back.read(file.key) for file in back.files()} == files


def test_links_give_the_content_type_of_a_file(bucket: BucketStore) -> None:
    large = png(1) + bytes(PART_BYTES)  # is put in parts
    staged = bucket.stage()
    staged.write(large)
    staged.flush()
    bucket.publish([(staged, "2026/01/02/large")])
    bucket.put_all({"2026/01/02/small": png(2), "models/m.tar": b"tar", "reports/r.html": b"<p>", "2026/01/02/x": b"x"})
    types = {}
    for file in bucket.files():
        url = bucket.link(file.key, seconds=60)
        assert url is not None
        types[file.key] = httpx.get(url).headers["Content-Type"]
    assert types == {
        "2026/01/02/large": "image/png",
        "2026/01/02/small": "image/png",
        "2026/01/02/x": "application/octet-stream",
        "models/m.tar": "application/x-tar",
        "reports/r.html": "text/html",
    }
