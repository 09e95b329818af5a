"""`linewatch backup` and `linewatch restore` with images in buckets."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.backup.folder import BackupFolder
from core.storage.bucket_store import BucketStore
from core.storage.image_store import bundle_key, image_key
from core.storage.moving_store import copy_all
from linewatch.cli import run
from tests.fixtures.installations import DAY, Installation
from tests.fixtures.s3_server import S3Server


def test_images_in_a_bucket_are_backed_up_and_restored_alike(
    source: Installation,
    target: Installation,
    save: Callable[..., dict[str, Any]],
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINEWATCH_SCRATCH", str(tmp_path / "scratch"))
    before, after = (BucketStore(f"s3://{s3.bucket}/{uuid4().hex}", tmp_path / "scratch") for _ in range(2))
    source.inspect([b"%d" % number for number in range(40)])
    copy_all(source.store, before, progress=lambda _: None)
    source.store_url, target.store_url = before.url, after.url
    assert [save()["files_copied"] for _ in range(2)] == [41, 0]
    source.inspect([b"damaged", b"lost"])
    damaged, lost = (image_key(DAY, sha256(data).digest()) for data in (b"damaged", b"lost"))
    before.put(damaged, b"DAMAGED")
    assert sorted(save(code=1)["lost"]) == sorted([damaged, lost])
    before.delete([damaged])

    target.select()
    some = next(file.key for file in before.files())
    after.put(some, before.read(some).swapcase() + b"!")  # is replaced
    assert run(["restore", str(tmp_path / "backups")]) == 0
    assert {file.key: after.read(file.key) for file in after.files()} == {
        file.key: before.read(file.key) for file in before.files()
    }
    model = bundle_key(b"\2" * 32)
    after.put(model, b"A BUNDLE")  # of the right size
    assert run(["restore", str(tmp_path / "backups"), "--replace"]) == 0
    assert after.read(model) == b"a bundle"
    assert list((tmp_path / "scratch" / "tmp").iterdir()) == []


def test_an_outage_of_the_bucket_ends_a_backup_and_is_no_damage(
    source: Installation, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("LINEWATCH_SCRATCH", str(tmp_path / "scratch"))
    source.store_url = f"s3://{s3.bucket}/{uuid4().hex}"
    source.inspect([b"one"])
    source.select()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert run(["backup", str(tmp_path / "backups")]) == 1
    assert f"{source.store_url} cannot be used" in capsys.readouterr().err
    assert BackupFolder(tmp_path / "backups").names == []
