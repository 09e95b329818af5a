"""Small raw images: the route that takes them whole answers as the documented one, to which it leaves all others."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from sqlalchemy import Engine

from api.requests.uploads import FLUSH_BYTES
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import png

PNG = {"Content-Type": "image/png"}
FIELDS = {
    "recipe": "ring",
    "part_id": "SN 4711 \u00e4",
    "lot_id": "",
    "batch_id": "",
    "callback_url": "",
    "captured_at": "2026-01-31T12:00:00+05:30",
    "deadline_ms": "60000",
    "priority": "bulk",
    "metadata": '{"bb": 1, "a": [1.5, null, "\u00e4"]}',
}
OF_THE_REQUEST = ("id", "created_at", "deadline_at")


@pytest.fixture
def http(settings: Settings, engine: Engine) -> Iterator[httpx.Client]:
    make_recipe_with_model(engine)
    with running_api(settings) as client:
        yield client


def chunked(content: bytes) -> Iterator[bytes]:
    """A body of unknown size, which the documented route streams to the store."""
    yield content


def without_own(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in OF_THE_REQUEST}


def test_every_way_to_send_an_image_gets_the_same_answer(http: httpx.Client) -> None:
    image = png(1)
    answers = [
        http.post("/v1/inspections", params=FIELDS, content=image, headers=PNG),
        http.post("/v1/inspections", params=FIELDS, content=chunked(image), headers=PNG),
        http.post("/v1/inspections", data=FIELDS, files={"image": image}),
        http.post("/v1/inspections", params=FIELDS, content=image + bytes(FLUSH_BYTES), headers=PNG),
    ]
    assert [answer.status_code for answer in answers] == [202] * 4, answers[0].text
    documents = [answer.json() for answer in answers]
    assert [answer.headers["Location"] for answer in answers] == [
        f"/v1/inspections/{document['id']}" for document in documents
    ]
    assert {answer.headers["Content-Type"] for answer in answers} == {"application/json"}
    whole, streamed, form, large = map(without_own, documents)
    assert whole == streamed
    assert whole == {**form, "external_id": None}
    assert whole == {**large, "image": whole["image"]}
    stored = http.get(answers[0].headers["Location"])
    assert stored.json() == documents[0]
    assert http.get(f"{answers[0].headers['Location']}/image").content == image


def test_an_image_with_a_long_header_gets_the_same_answer(http: httpx.Client) -> None:
    """Its header is read in a thread of its own, because the one of the group serves all others."""
    buffer, comments = io.BytesIO(), PngInfo()
    for number in range(50):
        comments.add_text(f"comment {number}", "x" * 1000, zip=True)
    Image.new("L", (40, 30)).save(buffer, "PNG", pnginfo=comments)
    Image.new("L", (40, 30)).save(tiff := io.BytesIO(), "TIFF")
    for image in (buffer.getvalue(), tiff.getvalue()):
        whole = http.post("/v1/inspections?recipe=ring", content=image)
        streamed = http.post("/v1/inspections?recipe=ring", content=chunked(image))
        assert (whole.status_code, streamed.status_code) == (202, 202)
        assert without_own(whole.json()) == without_own(streamed.json())
        assert http.get(f"{whole.headers['Location']}/image").content == image
    cut_off = buffer.getvalue()[:-200]
    whole = http.post("/v1/inspections?recipe=ring", content=cut_off[:5000])
    streamed = http.post("/v1/inspections?recipe=ring", content=chunked(cut_off[:5000]))
    assert (whole.status_code, whole.text) == (streamed.status_code, streamed.text)


@pytest.mark.parametrize(
    ("query", "headers", "content"),
    [
        ("recipe=ring&lot=1", {}, png(1)),
        ("recipe=ring&recipe=ring", {}, png(1)),
        ("recipe=ring&deadline_ms=0&part_id=%00", {}, png(1)),
        ("recipe=nobody", {}, png(1)),
        ("recipe=ring", {"Idempotency-Key": "a b"}, png(1)),
        ("recipe=ring", {"Idempotency-Key": "k" * 256}, png(1)),
        ("recipe=ring", {"Sec-Fetch-Site": "cross-site"}, png(1)),
        ("recipe=ring", {}, b"no image"),
        ("recipe=ring", {}, png(1)[:40]),
        ("recipe=ring&callback_url=http://mes.example/", {}, png(1)),
    ],
)
def test_a_fault_is_refused_alike_on_both_ways(
    http: httpx.Client, settings: Settings, query: str, headers: dict[str, str], content: bytes
) -> None:
    whole = http.post(f"/v1/inspections?{query}", content=content, headers={**PNG, **headers})
    streamed = http.post(f"/v1/inspections?{query}", content=chunked(content), headers={**PNG, **headers})
    assert (whole.status_code, whole.text) == (streamed.status_code, streamed.text)
    assert list((Path(urlsplit(settings.store_url).path) / "tmp").iterdir()) == []


def test_a_key_names_one_request_on_both_ways(http: httpx.Client) -> None:
    def send(content: bytes | Iterator[bytes]) -> httpx.Response:
        headers = {**PNG, "Idempotency-Key": "line-2/812"}
        return http.post("/v1/inspections", params={"recipe": "ring"}, content=content, headers=headers)

    first = send(png(1))
    for again in (send(png(1)), send(chunked(png(1)))):
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.content == first.content
    assert "Idempotency-Replayed" not in first.headers
    assert send(png(2)).json()["code"] == "idempotency_mismatch"
