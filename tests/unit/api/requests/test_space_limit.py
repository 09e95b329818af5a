"""The limit of the free space of the store."""

import logging
from pathlib import Path

import pytest

from api.requests.space_limit import SpaceLimit
from core.errors import Code, Refused
from core.storage.bucket_store import BucketStore
from core.storage.folder_store import FolderStore
from core.system import store_usage
from core.system.store_usage import LOW_FACTOR, Disk

FLOOR = 1000


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    space = {"bytes": 10 * FLOOR}
    monkeypatch.setattr(store_usage, "disk", lambda *_: Disk(100 * FLOOR, space["bytes"], FLOOR))
    return space


def test_uploads_are_refused_below_the_limit_and_a_warning_comes_well_before(
    tmp_path: Path, free: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    limit = SpaceLimit(FolderStore(tmp_path.as_uri()), FLOOR)
    limit.check()  # nothing was measured yet
    logged = []
    for space in (10 * FLOOR, LOW_FACTOR * FLOOR - 1, LOW_FACTOR * FLOOR - 2, FLOOR, FLOOR - 1, 0, FLOOR, 5 * FLOOR):
        free["bytes"] = space
        caplog.clear()
        limit.measure()
        logged.append(caplog.messages[0].partition(":")[0] if caplog.messages else "")
        if space < FLOOR:
            with pytest.raises(Refused) as refused:
                limit.check()
            assert refused.value.code is Code.STORE_FULL
        else:
            limit.check()
    name = "the image store"
    low, full, again = f"{name} is almost full", f"{name} is full", f"{name} has room again"
    assert logged == ["", low, "", "", full, "", again, ""]


def test_the_default_limit_is_a_share_of_the_disk_up_to_a_size(tmp_path: Path) -> None:
    store = FolderStore(tmp_path.as_uri())
    disk = store_usage.disk(store, None)
    assert disk is not None
    assert disk.min_free_bytes == min(disk.bytes // 20, 2 * 1024**3)
    assert disk.of == "store"
    store.scratch = tmp_path / "none"
    assert store_usage.disk(store, None) is None


def test_a_bucket_has_the_disk_of_its_scratch_folder(tmp_path: Path) -> None:
    disk = store_usage.disk(BucketStore("s3://images", tmp_path), FLOOR)
    assert disk is not None
    assert (disk.of, disk.min_free_bytes) == ("scratch", FLOOR)
