"""`GET /v1/inspections/{id}/thumbnail` and `/similar` of an api without workers: what is in the store is used."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine

from api.routes.thumbnails import NEW_THUMBNAILS, _new
from core.settings import Settings
from core.storage.folder_store import FolderStore
from core.storage.image_store import failure_key
from core.storage.thumbnails import ThumbnailSource
from core.vision.evaluation.thumbnail import GREY_BYTES, similarities
from tests.fixtures.api_process import running_api
from tests.fixtures.inspected_images import DAY, inspect_image


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with running_api(settings, LINEWATCH_PREDICT_TIMEOUT="0.5") as client:
        yield client


@pytest.fixture
def store(settings: Settings) -> FolderStore:
    return FolderStore(settings.store_url)


def source(number: int) -> ThumbnailSource:
    return ThumbnailSource(DAY, bytes([number]) * 32, None)


def store_thumbnail(store: FolderStore, number: int, grey: bytes) -> None:
    """Store a thumbnail as if a worker had made it."""
    store.put_all({source(number).grey_key: grey, source(number).key: b"jpeg %d" % number})


def mixed(number: int, share: float) -> bytes:
    """A grey copy that has some of a pattern, and of noise the rest."""
    pattern, noise = (np.random.default_rng(seed).uniform(0, 255, GREY_BYTES) for seed in (0, 100 + number))
    return (share * pattern + (1 - share) * noise).astype(np.uint8).tobytes()


def test_the_most_similar_good_parts_come_first(
    http: httpx.Client, engine: Engine, store: FolderStore, recipe_id: int
) -> None:
    shares = [1.0, 0.2, 0.9, 0.5, 0.8, 0.7]
    copies = [mixed(number, share) for number, share in enumerate(shares)]
    ids = [inspect_image(engine, bytes([number]) * 32, recipe_id=recipe_id) for number in range(len(shares))]
    inspect_image(engine, bytes([50]) * 32, recipe_id=recipe_id, verdict="ng")
    for number, copy in enumerate(copies):
        store_thumbnail(store, number, copy)
    store_thumbnail(store, 50, copies[0])

    answer = http.get(f"/v1/inspections/{ids[0]}/similar", params={"limit": "3"}).json()
    assert (answer["compared"], answer["candidates"]) == (5, 5)
    assert [UUID(item["id"]) for item in answer["items"]] == [ids[2], ids[4], ids[5]]
    alike = similarities(copies[0], [copies[2], copies[4], copies[5]])
    assert [item["similarity"] for item in answer["items"]] == [round(value, 4) for value in alike]
    detail = http.get(f"/v1/inspections/{ids[2]}").json()
    assert answer["items"][0] == {**detail, "similarity": round(alike[0], 4)}
    assert len(http.get(f"/v1/inspections/{ids[0]}/similar").json()["items"]) == 5


def test_parts_without_image_or_thumbnail_are_left_out(
    http: httpx.Client, engine: Engine, store: FolderStore, recipe_id: int
) -> None:
    mine, gone, broken, known = (
        inspect_image(engine, bytes([number]) * 32, recipe_id=recipe_id) for number in range(4)
    )
    store_thumbnail(store, 0, mixed(0, 1.0))
    store_thumbnail(store, 3, mixed(3, 0.5))
    store.put(source(2).image_key, b"not an image")
    store.put(failure_key(source(2).key), b"the image cannot be decoded")
    answer = http.get(f"/v1/inspections/{mine}/similar").json()
    assert [item["id"] for item in answer["items"]] == [str(known)]
    assert (answer["compared"], answer["candidates"]) == (1, 3)
    assert {gone, broken}.isdisjoint(item["id"] for item in answer["items"])


def test_an_inspection_without_good_parts_has_no_similar_ones(
    http: httpx.Client, engine: Engine, store: FolderStore, recipe_id: int
) -> None:
    inspection_id = inspect_image(engine, bytes(32), recipe_id=recipe_id, verdict="ng")
    store_thumbnail(store, 0, mixed(0, 1.0))
    answer = http.get(f"/v1/inspections/{inspection_id}/similar").json()
    assert answer == {"items": [], "compared": 0, "candidates": 0}


def test_a_stored_thumbnail_needs_no_worker_and_is_cached_by_the_client(
    http: httpx.Client, engine: Engine, store: FolderStore, recipe_id: int
) -> None:
    inspection_id = inspect_image(engine, bytes(32), recipe_id=recipe_id)
    store_thumbnail(store, 0, mixed(0, 1.0))
    path = f"/v1/inspections/{inspection_id}/thumbnail"
    answer = http.get(path)
    assert (answer.status_code, answer.content) == (200, b"jpeg 0")
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    etag = answer.headers["ETag"]
    for tags in (etag, f'"other", W/{etag}', "*"):
        current = http.get(path, headers={"If-None-Match": tags})
        assert (current.status_code, current.content, current.headers["ETag"]) == (304, b"", etag)
        assert current.headers["Cache-Control"] == answer.headers["Cache-Control"]
    assert http.get(path, headers={"If-None-Match": '"other"'}).content == b"jpeg 0"


def test_a_thumbnail_of_an_inspection_in_flight_is_not_immutable(
    http: httpx.Client, engine: Engine, store: FolderStore, recipe_id: int
) -> None:
    inspection_id = inspect_image(engine, bytes(32), recipe_id=recipe_id, verdict=None)
    store_thumbnail(store, 0, mixed(0, 1.0))
    answer = http.get(f"/v1/inspections/{inspection_id}/thumbnail")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "private, no-cache")


def test_refusals(http: httpx.Client, engine: Engine, store: FolderStore, recipe_id: int) -> None:
    broken, gone, unmade = (inspect_image(engine, bytes([number]) * 32, recipe_id=recipe_id) for number in range(3))
    store.put(failure_key(source(0).key), b"the image cannot be decoded: cut off")
    store.put(source(2).image_key, b"an image")
    for path in ("thumbnail", "similar"):
        for inspection_id, status, code, detail in (
            (broken, 422, "image_undecodable", "the image cannot be decoded: cut off"),
            (gone, 404, "not_found", "no longer in the store"),
            (unmade, 503, "timeout", "Retry"),
            (uuid4(), 404, "not_found", "does not exist"),
        ):
            answer = http.get(f"/v1/inspections/{inspection_id}/{path}")
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert detail in answer.json()["detail"]
            assert ("Retry-After" in answer.headers) == (status == 503)
    for limit in ("0", "51", "x"):
        answer = http.get(f"/v1/inspections/{broken}/similar", params={"limit": limit})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")


def test_only_so_many_thumbnails_are_requested_at_once(store: FolderStore) -> None:
    sources = [source(number) for number in range(NEW_THUMBNAILS + 10)]
    for each in sources[3:]:
        store.put(each.image_key, b"an image")
    store_thumbnail(store, 5, b"")
    assert _new(store, sources) == [*sources[3:5], *sources[6 : NEW_THUMBNAILS + 4]]
