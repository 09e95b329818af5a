"""The api with a bucket as its image store: 202 still means durable, and faults of the bucket are refusals."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import Engine

from core.settings import Settings
from core.storage.bucket_store import BucketStore
from core.storage.image_store import image_key
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png
from tests.fixtures.s3_server import S3Server, running_s3_server
from tests.fixtures.waiting import eventually

PNG = {"Content-Type": "image/png"}
UPLOAD = "/v1/inspections?recipe=ring"


@pytest.fixture
def store(s3: S3Server, tmp_path: Path) -> BucketStore:
    return BucketStore(f"s3://{s3.bucket}/test-{uuid4().hex}", tmp_path / "scratch-of-test")


@pytest.fixture
def api(settings: Settings, engine: Engine, store: BucketStore, tmp_path: Path) -> Iterator[httpx.Client]:
    make_recipe_with_model(engine)
    with running_api(
        settings,
        LINEWATCH_STORE_URL=store.url,
        LINEWATCH_SCRATCH=str(tmp_path / "scratch"),
        LINEWATCH_STORE_LINK_SECONDS="60",
    ) as http:
        yield http


def key_of(image: bytes) -> str:
    return image_key(datetime.now(UTC).date(), sha256(image).digest())


def test_an_accepted_image_is_in_the_bucket_and_read_from_there(
    api: httpx.Client, store: BucketStore, tmp_path: Path
) -> None:
    images = [png(1), png(2) + bytes(300_000), png(3) + bytes(9_000_000)]
    answers = [
        api.post(UPLOAD, content=images[0], headers=PNG),
        api.post(UPLOAD, files={"image": images[1]}),
        api.post(UPLOAD, content=images[2], headers=PNG),
    ]
    assert [answer.status_code for answer in answers] == [202] * 3, answers[0].text
    for image, answer in zip(images, answers, strict=True):
        assert store.read(key_of(image)) == image
        read = api.get(f"{answer.headers['Location']}/image")
        assert (read.content, read.headers["Content-Type"]) == (image, "image/png")
        again = api.get(f"{answer.headers['Location']}/image", headers={"Range": "bytes=1-3"})
        assert (again.status_code, again.content) == (206, b"PNG")
        assert again.headers["ETag"] == read.headers["ETag"]
        current = api.get(f"{answer.headers['Location']}/image", headers={"If-None-Match": read.headers["ETag"]})
        assert (current.status_code, current.content) == (304, b"")
        head = api.head(f"{answer.headers['Location']}/image")
        assert (head.status_code, head.headers["Content-Length"], head.content) == (200, f"{len(image)}", b"")
    # A copy of what was read is removed after the response.
    eventually(lambda: list((tmp_path / "scratch" / "tmp").iterdir()), [])
    store.delete([key_of(images[0])])
    assert api.get(f"{answers[0].headers['Location']}/image").json()["code"] == "not_found"


def test_all_images_of_a_batch_are_in_the_bucket(api: httpx.Client, store: BucketStore) -> None:
    images = [png(seed) for seed in range(40)]
    files = [("images", (f"{seed}.png", image)) for seed, image in enumerate(images)]
    answer = api.post("/v1/batches", data={"recipe": "ring"}, files=files)
    assert answer.status_code == 202, answer.text
    assert sorted(file.key for file in store.files(f"{datetime.now(UTC):%Y}")) == sorted(
        key_of(image) for image in images
    )


def test_the_free_space_is_that_of_the_scratch_folder(settings: Settings, store: BucketStore, tmp_path: Path) -> None:
    with running_api(
        settings,
        LINEWATCH_STORE_URL=store.url,
        LINEWATCH_SCRATCH=str(tmp_path / "scratch"),
        LINEWATCH_MIN_FREE_BYTES=f"{10**18}",
    ) as api:
        refused = api.post(UPLOAD, content=png(1), headers=PNG)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
        assert "The scratch folder has too little free space" in refused.json()["detail"]
        system = api.get("/v1/system").json()
        assert system["store"]["disk_of"] == "scratch"
        assert any("The disk of the scratch folder is full" in reason for reason in system["health"]["reasons"])
    assert list(store.files()) == []


def test_a_client_that_asks_for_it_gets_a_link(api: httpx.Client) -> None:
    location = api.post(UPLOAD, content=png(1), headers=PNG).headers["Location"]
    answer = api.get(f"{location}/image?redirect=true")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (307, "no-store")
    linked = httpx.get(answer.headers["Location"])
    assert (linked.content, linked.headers["Content-Type"]) == (png(1), "image/png")
    assert api.get(f"{location}/image").content == png(1)


def test_a_killed_server_refuses_uploads_until_it_is_back(settings: Settings, engine: Engine, tmp_path: Path) -> None:
    make_recipe_with_model(engine)
    with (
        tempfile.TemporaryDirectory(prefix="lw-s3-", ignore_cleanup_errors=True) as folder,
        running_s3_server(Path(folder)) as server,
        running_api(
            settings,
            LINEWATCH_STORE_URL=f"s3://{server.bucket}/store",
            LINEWATCH_SCRATCH=str(tmp_path / "scratch"),
            **server.environment,
        ) as api,
    ):
        location = api.post(UPLOAD, content=png(1), headers=PNG).headers["Location"]
        server.kill()
        for content in (png(2), png(2) + bytes(300_000)):
            refused = api.post(UPLOAD, content=content, headers=PNG)
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
            assert "Retry-After" in refused.headers
        assert api.get(f"{location}/image").json()["code"] == "store_unavailable"
        assert api.get("/readyz").status_code == 503
        server.start()
        assert api.get("/readyz").status_code == 200
        accepted = api.post(UPLOAD, content=png(2), headers=PNG)
        assert accepted.status_code == 202
        assert api.get(f"{accepted.headers['Location']}/image").content == png(2)
        assert api.get(f"{location}/image").content == png(1)
