"""Group commit: a request fails alone, and the loop survives every error."""

import asyncio
import datetime as dt
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from sqlalchemy import Engine

from api.publisher import Publisher
from api.requests.group_commit import GroupCommit
from api.requests.image_storing import Upload, WholeUpload
from core.delivery.allowed_targets import AllowList
from core.errors import Code, Refused
from core.intake.image_decoding import Header
from core.intake.submission import Accepted, NewInspection, StoredImage
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import WholeFile, image_key
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

HEADER = Header("image/png", 8, 8)


@pytest.fixture
def store(settings: Settings) -> FolderStore:
    return FolderStore(settings.store_url)


def upload(store: FolderStore, content: bytes) -> Upload:
    staged = store.stage()
    staged.write(content)
    staged.flush()
    image = StoredImage(dt.datetime.now(dt.UTC).date(), staged.sha256, staged.size, HEADER)
    return Upload(staged, NewInspection(image, "ring"))


@asynccontextmanager
async def committing(engine: Engine, settings: Settings, store: FolderStore) -> AsyncIterator[GroupCommit]:
    make_recipe_with_model(engine)
    publisher = Publisher(settings, engine)
    group_commit = GroupCommit(settings, engine, store, publisher, AllowList.of(settings))
    publisher.start()
    await group_commit.start()
    try:
        yield group_commit
    finally:
        await group_commit.stop()
        publisher.stop()


def test_a_swept_image_fails_only_its_own_request(engine: Engine, settings: Settings, store: FolderStore) -> None:
    async def run() -> list[Accepted | BaseException]:
        async with committing(engine, settings, store) as group_commit:
            uploads = [upload(store, bytes([number])) for number in range(5)]
            uploads[2].staged.path.unlink()
            results = await asyncio.gather(*(group_commit.submit([item]) for item in uploads), return_exceptions=True)
            uploads[2].staged.discard()
            return results

    results = asyncio.run(run())
    assert [isinstance(result, Accepted) for result in results] == [True, True, False, True, True]
    assert isinstance(results[2], Refused)
    assert results[2].code is Code.STORE_UNAVAILABLE


def test_whole_images_are_stored_or_fail_alone(engine: Engine, settings: Settings, store: FolderStore) -> None:
    contents = [png(number) for number in range(12)]
    contents[5] = b"no image"

    async def run() -> list[Accepted | BaseException]:
        async with committing(engine, settings, store) as group_commit:
            uploads = [WholeUpload(content, partial(NewInspection, recipe="ring")) for content in contents]
            return await asyncio.gather(*(group_commit.submit([item]) for item in uploads), return_exceptions=True)

    results = asyncio.run(run())
    refused = results.pop(5)
    del contents[5]
    assert isinstance(refused, Refused)
    assert refused.code is Code.UNSUPPORTED_MEDIA_TYPE
    for content, result in zip(contents, results, strict=True):
        assert isinstance(result, Accepted)
        [inspection] = result.inspections
        assert store.read(image_key(inspection.image_day, inspection.image_sha256)) == content
    assert list((store.root / "tmp").iterdir()) == []


def test_a_full_disk_leaves_no_file_behind(
    engine: Engine, settings: Settings, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: WholeFile) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(WholeFile, "sync", fail)

    async def run() -> None:
        async with committing(engine, settings, store) as group_commit:
            with pytest.raises(Refused) as refused:
                await group_commit.submit([WholeUpload(png(1), partial(NewInspection, recipe="ring"))])
            assert refused.value.code is Code.STORE_FULL

    asyncio.run(run())
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("method", ["move", "sync"])
def test_the_loop_continues_after_an_unexpected_error(
    engine: Engine, settings: Settings, store: FolderStore, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    original: Callable[..., object] = getattr(store, method)
    calls: list[None] = []

    def fail_once(*arguments: object) -> object:
        calls.append(None)
        if len(calls) == 1:
            raise ValueError("unforeseen")
        return original(*arguments)

    monkeypatch.setattr(store, method, fail_once)

    async def run() -> None:
        async with committing(engine, settings, store) as group_commit:
            first = upload(store, b"1")
            with pytest.raises(ValueError, match="unforeseen"):
                await group_commit.submit([first])
            first.staged.discard()
            assert group_commit.is_running
            second: Awaitable[Accepted] = group_commit.submit([upload(store, b"2")])
            assert not (await second).replayed

    asyncio.run(run())
