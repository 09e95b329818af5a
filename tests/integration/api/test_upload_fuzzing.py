"""Generated uploads: each gets a documented code, and a refused one leaves nothing in the store."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from api.requests.uploads import FLUSH_BYTES
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import encoded, part, png

EXAMPLES = 100
CODE = re.compile(r"`(\w+)`")
PATHS = {
    "/v1/inspections": ("image", ["", "", "?recipe=ring", "?part_id=%00"]),
    "/v1/batches": ("images", ["", "", "", "?callback_url=http://mes.example/"]),
}
"""Per path: the name of the image parts, and the query."""
FORMATS = ("PNG", "JPEG", "BMP", "WebP", "TIFF")
IMAGES = [encoded(part(1), kind) for kind in FORMATS]

fuzzing = hypothesis_settings(
    max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def http(settings: Settings, engine: Engine) -> Iterator[httpx.Client]:
    make_recipe_with_model(engine)
    limits = {"LINEWATCH_MAX_UPLOAD_BYTES": "1000000", "LINEWATCH_MAX_BATCH_IMAGES": "3"}
    with running_api(settings, LINEWATCH_DEFAULT_RECIPE="ring", **limits) as client:
        yield client


@pytest.fixture
def staging(settings: Settings) -> Path:
    return Path(urlsplit(settings.store_url).path) / "tmp"


def documented(http: httpx.Client, path: str) -> set[tuple[int, str]]:
    """Return the status and code of every documented error of a route."""
    responses = http.get("/openapi.json").json()["paths"][path]["post"]["responses"]
    return {
        (int(status), code)
        for status, response in responses.items()
        if status.isdecimal()
        for code in CODE.findall(response["description"])
    }


def assert_documented(answer: httpx.Response, codes: set[tuple[int, str]], staging: Path) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code != 202:
        assert (answer.status_code, answer.json()["code"]) in codes, answer.text
    assert list(staging.iterdir()) == []


# Images


@st.composite
def mutated_images(draw: st.DrawFn) -> bytes:
    """Images with changed bytes, mostly in the header, which may be truncated or extended."""
    image = bytearray(draw(st.sampled_from(IMAGES)))
    for _ in range(draw(st.integers(0, 6))):
        position = draw(st.one_of(st.integers(0, 63), st.integers(0, len(image) - 1)))
        image[position] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    if draw(st.booleans()):
        del image[draw(st.integers(0, len(image))) :]
    return bytes(image) + draw(st.sampled_from([b"", b"", b"\0" * 100, bytes(FLUSH_BYTES)]))


CONTENT_TYPES = st.just("image/png") | st.sampled_from(
    ["image/jpeg; charset=utf-7", "IMAGE/PNG", "image/", "image", "application/octet-stream", "", "\xff"]
)


def test_generated_images_get_a_documented_code(http: httpx.Client, staging: Path) -> None:
    codes = documented(http, "/v1/inspections")

    @fuzzing
    @given(data=mutated_images() | st.binary(max_size=100), content_type=CONTENT_TYPES)
    def check(data: bytes, content_type: str) -> None:
        headers = {b"Content-Type": content_type.encode("latin-1")}
        assert_documented(http.post("/v1/inspections", content=data, headers=headers), codes, staging)

    check()


# Forms

BOUNDARIES = st.sampled_from([b"b", b"--", b"b" * 70, b"b" * 5000, b"a b", b"\xff", b'q"', b"b\r", b""])
NAMES = st.sampled_from(
    [b"image", b"images", b"recipe", b"metadata", b"items", b"part_id", b"batch_id", b"deadline_ms", b"callback_url"]
) | st.binary(max_size=8)
FILE_NAMES = st.sampled_from([b"a.png", b"", b"../../etc/passwd", b"C:\\a.png", b"nul\0", b"\xff", b"x" * 300, b'%22"'])
TEXTS = st.sampled_from(
    [
        b"ring",
        b"{}",
        b"1",
        b"\xff\xfe",
        b"\0",
        b"[" * 9999,
        b'{"a": 1e999}',
        b'{"\\ud800": 1}',
        b'{"a.png": {"\\ud800": 1}}',
        b'{"a.png": {"part_id": "\\ud800"}}',
        b'{"a.png": {"priority": []}}',
    ]
)
VALUES = st.one_of(mutated_images(), st.just(png(1)), TEXTS, st.binary(max_size=50))
FURTHER_HEADERS = st.sampled_from(
    [
        b"Content-Type: image/png",
        b"Content-Type: text/plain; charset=utf-7",
        b"Content-Type: text/plain; charset=" + b"x" * 100,
        b"Content-Type: multipart/mixed; boundary=b",
        b"Content-Transfer-Encoding: base64",
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: " + b"9" * 3000,
        b"Content-Disposition: attachment",
        b"Content-Disposition: form-data; name=recipe; name*=utf-8''image",
        b"X-Long: " + b"x" * 5000,
        b" continued",
        b"no colon",
        b": no name",
        b"X-\xff: \xff",
    ]
)


CONTENT_TYPES_OF_FORMS = st.sampled_from(
    [
        b'multipart/form-data; boundary="%s"',
        b"Multipart/Form-Data;boundary=%s; charset=utf-16",
        b"multipart/form-data; boundary=x; boundary=%s",
        b"multipart/form-data; boundary*=utf-8''%s",
        b"multipart/form-data",
        b"multipart/mixed; boundary=%s",
    ]
)


def rarely(draw: st.DrawFn) -> bool:
    """Draw true rarely: with too many faults, every form would fail at the first one."""
    return draw(st.integers(0, 11)) == 11


@st.composite
def form_parts(draw: st.DrawFn, image: bytes) -> bytes:
    """Draw the headers and the value of a part."""
    if draw(st.booleans()):
        name, value = image, draw(st.just(png(1)) | mutated_images())
    else:
        name, value = draw(NAMES), draw(VALUES)
    disposition = b'Content-Disposition: form-data; name="%s"' % name
    if name == image or rarely(draw):
        disposition += b'; filename="%s"' % (draw(FILE_NAMES) if rarely(draw) else b"a.png")
    headers = [disposition, *([draw(FURTHER_HEADERS)] if rarely(draw) else [])]
    if rarely(draw):
        headers = draw(st.permutations([*headers, draw(FURTHER_HEADERS)]))[1:]
    return (b"\n" if rarely(draw) else b"\r\n").join([*headers, b"", value])


@st.composite
def forms(draw: st.DrawFn, image: bytes) -> tuple[bytes, bytes]:
    """Draw a content type, and a body that may be truncated, repeated, nested, or split by another boundary."""
    boundary = draw(BOUNDARIES) if rarely(draw) else b"boundary"
    parts = draw(st.lists(form_parts(image), min_size=1, max_size=4))
    if rarely(draw):
        parts *= draw(st.integers(0, 40))
    delimiter = b"--" + (draw(BOUNDARIES) if rarely(draw) else boundary)
    body = b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--\r\n"
    if rarely(draw):  # a nested form
        body = delimiter + b'\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n' + body + delimiter + b"--"
    if rarely(draw):
        body = body[: draw(st.integers(0, len(body)))]
    if rarely(draw):
        body = draw(st.binary(max_size=10)) + body + draw(st.binary(max_size=10))
    content_type = draw(CONTENT_TYPES_OF_FORMS) if rarely(draw) else b"multipart/form-data; boundary=%s"
    return content_type.replace(b"%s", boundary.replace(b"\r", b"")), body


@pytest.mark.parametrize("path", PATHS)
def test_generated_forms_get_a_documented_code(http: httpx.Client, staging: Path, path: str) -> None:
    codes = documented(http, path)
    name, queries = PATHS[path]

    @fuzzing
    @given(form=forms(name.encode()), query=st.sampled_from(queries))
    def check(form: tuple[bytes, bytes], query: str) -> None:
        content_type, body = form
        headers = {b"Content-Type": content_type}
        assert_documented(http.post(f"{path}{query}", content=body, headers=headers), codes, staging)

    check()


def test_aborted_uploads_leave_nothing_in_the_store(http: httpx.Client, staging: Path) -> None:
    image = png(1) + bytes(3 * FLUSH_BYTES)
    part_head = b'--b\r\nContent-Disposition: form-data; name="image%s"; filename="%d.png"\r\n\r\n'
    batch = b"".join(part_head % (b"s", number) + image + b"\r\n" for number in range(2))
    requests = {
        "/v1/inspections": (b"image/png", image),
        "/v1/inspections?recipe=ring": (b"multipart/form-data; boundary=b", part_head % (b"", 1) + image),
        "/v1/batches": (b"multipart/form-data; boundary=b", batch),
    }
    for path, (content_type, body) in requests.items():
        head = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
        for tenth in range(11):
            with socket.create_connection(("127.0.0.1", http.base_url.port or 80), timeout=60) as connection:
                connection.sendall(head % (path.encode(), content_type, len(body) + 10))
                connection.sendall(body[: len(body) * tenth // 10])
    deadline = time.monotonic() + 60
    while list(staging.iterdir()):
        assert time.monotonic() < deadline, "files of uploads that broke off were left behind"
        time.sleep(0.05)
    assert http.get("/v1/inspections").json()["items"] == []
    assert http.post("/v1/inspections", content=png(1), headers={"Content-Type": "image/png"}).status_code == 202
