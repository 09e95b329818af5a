"""Thumbnails and similar good parts of a running system."""

import io
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fixtures.deep_images import deep_levels, deep_png, deep_tiff
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import encoded, part, png
from tests.fixtures.running_system import System


def thumbnail_of(client: httpx.Client, inspection_id: str) -> Image.Image:
    answer = client.get(f"/v1/inspections/{inspection_id}/thumbnail")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg"), answer.text
    return Image.open(io.BytesIO(answer.content))


@contextmanager
def paused_scoring(system: System) -> Iterator[None]:
    """Stop the scoring workers without ending them."""
    workers = system.children("worker.scoring")
    assert workers
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGCONT)


def test_a_gallery_of_thumbnails_does_not_need_the_scoring_workers(
    system: System, client: httpx.Client, recipe: str
) -> None:
    images = [part(100 + number, size=(400, 300)) for number in range(30)]
    ids = [submit(client, recipe, encoded(image))["id"] for image in images]
    for inspection_id in ids:
        final(client, inspection_id)
    with paused_scoring(system), ThreadPoolExecutor(30) as pool:
        drawn = list(pool.map(lambda inspection_id: thumbnail_of(client, inspection_id), ids))
        waiting = submit(client, recipe, png(99))["id"]
        assert thumbnail_of(client, waiting).size == (96, 64)
    for thumbnail, image in zip(drawn, images, strict=True):
        assert thumbnail.size == (256, 192)
        expected = np.asarray(image.resize((256, 192), Image.Resampling.BOX)).astype(float)
        assert np.abs(np.asarray(thumbnail) - expected).mean() < 8
    assert final(client, waiting)["status"] == "completed"


def test_a_thumbnail_is_upright_and_shows_deep_images(client: httpx.Client, recipe: str) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    uploads = (encoded(part(22, size=(600, 300)), "JPEG", exif=turned), deep_png(deep_levels(1, 16)),
               deep_tiff(deep_levels(2, 16)))  # fmt: skip
    sizes = []
    for data in uploads:
        inspection = final(client, submit(client, recipe, data)["id"])
        thumbnail = thumbnail_of(client, inspection["id"])
        sizes.append(thumbnail.size)
        assert 60 < np.asarray(thumbnail).mean() < 160
    assert sizes == [(128, 256), (96, 64), (96, 64)]


def test_an_image_that_cannot_be_decoded_has_no_thumbnail(client: httpx.Client, recipe: str) -> None:
    failed = final(client, submit(client, recipe, encoded(part(24, size=(400, 300)))[:9000])["id"])
    answers = [client.get(f"/v1/inspections/{failed['id']}/{path}") for path in ("thumbnail", "thumbnail", "similar")]
    assert [answer.status_code for answer in answers] == [422] * 3
    assert {answer.json()["code"] for answer in answers} == {"image_undecodable"}
    assert len({answer.json()["detail"] for answer in answers}) == 1


def test_a_cached_thumbnail_is_not_sent_again(client: httpx.Client, recipe: str) -> None:
    path = f"/v1/inspections/{final(client, submit(client, recipe, png(40))['id'])['id']}/thumbnail"
    first, second = client.get(path), client.get(path)
    assert first.content == second.content
    assert "immutable" in first.headers["Cache-Control"]
    again = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("scratched", [False, True])
def test_similar_good_parts_look_alike(client: httpx.Client, recipe: str, scratched: bool) -> None:
    def inspected(data: bytes, verdict: str) -> str:
        inspection = final(client, submit(client, recipe, data)["id"])
        review = {"verdict": verdict, "reviewer": "Jo", "reason": "looked"}
        assert client.post(f"/v1/inspections/{inspection['id']}/reviews", json=review).status_code == 201
        inspection_id: str = inspection["id"]
        return inspection_id

    rings = [inspected(png(200 + number), "ok") for number in range(3)]
    strange = inspected(encoded(Image.effect_noise((96, 64), 60)), "ok")
    bad = inspected(png(210, scratched=True), "ng")
    mine = inspected(png(220, scratched=scratched), "ng" if scratched else "ok")
    answer = client.get(f"/v1/inspections/{mine}/similar").json()
    found = [item["id"] for item in answer["items"]]
    assert set(found[:3]) == set(rings)
    assert found[3:] == [strange]
    assert bad not in found
    assert (answer["compared"], answer["candidates"]) == (4, 4)
    similarities = [item["similarity"] for item in answer["items"]]
    assert similarities == sorted(similarities, reverse=True)
    assert 1 >= similarities[2] > 0.3 > similarities[3] >= 0
