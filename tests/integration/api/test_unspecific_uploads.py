"""Clients that name no image type, or send phone images and empty fields: the bytes decide, and empty is absent."""

from collections.abc import Iterator

import httpx
import pytest
from sqlalchemy import Engine

from api.requests.uploads import FLUSH_BYTES
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import encoded, part, png

TYPES = [
    None,
    "",
    "application/octet-stream",
    "binary/octet-stream",
    "Application/Octet-Stream; charset=binary",
    "application/x-www-form-urlencoded",
]


@pytest.fixture
def http(settings: Settings, engine: Engine) -> Iterator[httpx.Client]:
    make_recipe_with_model(engine)
    with running_api(settings, LINEWATCH_DEFAULT_RECIPE="ring") as client:
        yield client


def bodies(content: bytes) -> list[bytes | Iterator[bytes]]:
    """The ways in which raw bytes may arrive: small, chunked and large."""
    return [content, iter([content]), content + bytes(FLUSH_BYTES)]


def test_the_bytes_decide_the_format_if_the_content_type_does_not(http: httpx.Client) -> None:
    for kind in ("PNG", "JPEG", "BMP", "WebP", "TIFF"):
        for content_type in TYPES:
            headers = {} if content_type is None else {"Content-Type": content_type}
            for body in bodies(encoded(part(1), kind)):
                answer = http.post("/v1/inspections?part_id=SN-1", content=body, headers=headers)
                assert answer.status_code == 202, (kind, content_type, answer.text)
                assert answer.json()["image"]["media_type"] == f"image/{kind.lower()}"
                assert answer.json()["part_id"] == "SN-1"


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"recipe=ring&part_id=SN-1", 415, "unsupported_media_type"),
        (b'{"recipe": "ring"}', 415, "unsupported_media_type"),
        (b"", 400, "empty_body"),
        (png(1)[:20], 400, "malformed_request"),
    ],
)
def test_bytes_of_no_image_are_refused(http: httpx.Client, content: bytes, status: int, code: str) -> None:
    for content_type in TYPES:
        headers = {} if content_type is None else {"Content-Type": content_type}
        answer = http.post("/v1/inspections", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), (content_type, answer.text)


def test_the_file_name_that_dot_net_encodes_is_kept(http: httpx.Client) -> None:
    part_head = (
        b"--b\r\nContent-Disposition: form-data; name=%s; "
        b"filename=\"=?utf-8?B?w6QucG5n?=\"; filename*=utf-8''%%C3%%A4.png\r\n\r\n"
    )
    items = '--b\r\nContent-Disposition: form-data; name=items\r\n\r\n{"ä.png": {"lot_id": "L-1"}}\r\n'.encode()
    headers = {"Content-Type": 'multipart/form-data; boundary="b"'}
    single = http.post("/v1/inspections", content=part_head % b"image" + png(1) + b"\r\n--b--\r\n", headers=headers)
    batch = http.post("/v1/batches", content=items + part_head % b"images" + png(2) + b"\r\n--b--\r\n", headers=headers)
    assert (single.status_code, batch.status_code) == (202, 202), single.text + batch.text
    assert single.json()["external_id"] == "ä.png"
    [inspection] = batch.json()["inspections"]
    assert (inspection["external_id"], inspection["lot_id"]) == ("ä.png", "L-1")


def test_an_empty_field_is_as_if_absent(http: httpx.Client) -> None:
    names = ("recipe", "lot_id", "part_id", "captured_at", "priority", "deadline_ms", "batch_id", "metadata", "view")
    empty = dict.fromkeys((*names, "callback_url", "external_id"), "")
    image = {"image": ("a.png", png(1))}
    for answer in (
        http.post("/v1/inspections", params=empty, content=png(1)),
        http.post("/v1/inspections", params=empty, content=iter([png(1)])),
        http.post("/v1/inspections", data=empty, files=image),
        http.post("/v1/inspections", params=empty, data=empty, files=image),
    ):
        assert answer.status_code == 202, answer.text
        assert (answer.json()["recipe"], answer.json()["priority"]) == ("ring", "live")
        assert (answer.json()["part_id"], answer.json()["metadata"]) == (None, {})
    one_filled_in = http.post("/v1/inspections", params={"lot_id": "L-1"}, data={"lot_id": ""}, files=image)
    assert one_filled_in.json()["lot_id"] == "L-1"
    assert one_filled_in.json()["external_id"] == "a.png"
    twice = http.post("/v1/inspections", params={"lot_id": "L-1"}, data={"lot_id": "L-2"}, files=image)
    assert (twice.status_code, twice.json()["code"]) == (422, "invalid_field")


def test_an_empty_field_of_a_batch_is_as_if_absent(http: httpx.Client) -> None:
    data = {"recipe": "", "lot_id": "", "callback_url": "", "batch_id": "", "items": ""}
    images = {"images": ("a.png", png(1))}
    batch = http.post("/v1/batches", data=data, files=images)
    assert batch.status_code == 202, batch.text
    assert batch.json()["inspections"][0]["lot_id"] is None
    items = {"lot_id": "L-1", "items": '{"a.png": {"lot_id": "", "part_id": "SN-1"}}'}
    [inspection] = http.post("/v1/batches", data=items, files=images).json()["inspections"]
    assert (inspection["lot_id"], inspection["part_id"]) == ("L-1", "SN-1")
    opened = http.post("/v1/batches?callback_url=", json={"callback_url": ""})
    assert (opened.status_code, opened.json()["status"]) == (202, "open")
    of_no_image = http.post("/v1/batches", files={"lot_id": (None, "L-1")})
    assert (of_no_image.status_code, of_no_image.json()["code"]) == (422, "invalid_field")


def test_an_empty_filter_is_refused_because_it_would_list_everything(http: httpx.Client) -> None:
    for path in ("/v1/inspections", "/v1/inspections/export"):
        answer = http.get(path, params={"lot_id": ""})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field")
