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
    batch = http.post(
        "/v1/batches", content=items + part_head % b"images" + png(2) + b"\r\n--b--\r\n", headers=headers
    )
    assert (single.status_code, batch.status_code) == (202, 202), single.text + batch.text
    assert single.json()["external_id"] == "ä.png"
    [inspection] = batch.json()["inspections"]
    assert (inspection["external_id"], inspection["lot_id"]) == ("ä.png", "L-1")
