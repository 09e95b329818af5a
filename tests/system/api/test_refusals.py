"""Bad input gets a stable code and a clear message, and has no effect."""

import io
import socket
import struct
import zlib
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.fixtures.part_images import encoded, part, png

UNKNOWN = UUID("00000000-0000-4000-8000-000000000000")

TIFF_PAGES = [part(1), part(2)]


def post(client: httpx.Client, data: bytes, recipe: str, *, kind: str = "image/png", **fields: str) -> httpx.Response:
    return client.post(
        "/v1/inspections", params={"recipe": recipe, **fields}, content=data, headers={"Content-Type": kind}
    )


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["title"]


def huge_png(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes whose header claims a huge image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def pages(kind: str) -> bytes:
    out = io.BytesIO()
    TIFF_PAGES[0].save(out, kind, save_all=True, append_images=TIFF_PAGES[1:])
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 400, "empty_body"),
        (b"this is no image at all", 415, "unsupported_media_type"),
        (b"%PDF-1.7 neither is this", 415, "unsupported_media_type"),
        (encoded(part(1), "GIF"), 415, "unsupported_media_type"),
        (png(1)[:20], 400, "malformed_request"),
        (pages("TIFF"), 415, "multiple_frames"),
        (pages("PNG"), 415, "multiple_frames"),
        (pages("WEBP"), 415, "multiple_frames"),
        (huge_png(3000, 3000), 413, "image_too_large"),
        (huge_png(2**31 - 1, 2**31 - 1), 413, "image_too_large"),
        (b"\xff" * 1_000_001, 413, "upload_too_large"),
    ],
    ids=["empty", "text", "pdf", "gif", "cut header", "pages", "apng", "animation", "pixels", "bomb", "bytes"],
)
def test_a_bad_body_is_refused(client: httpx.Client, recipe: str, data: bytes, status: int, code: str) -> None:
    assert_problem(post(client, data, recipe), status, code)
    answer = client.post("/v1/inspections", data={"recipe": recipe}, files={"image": ("a.png", data, "image/png")})
    assert_problem(answer, status, code)
    assert client.get("/v1/inspections", params={"recipe": recipe}).json()["items"] == []


def test_a_large_body_without_a_content_length_is_refused(client: httpx.Client, recipe: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b"\xff" * 100_000

    answer = client.post(
        "/v1/inspections", params={"recipe": recipe}, content=chunks(), headers={"Content-Type": "image/png"}
    )
    assert_problem(answer, 413, "upload_too_large")


def test_a_large_content_length_is_refused_before_the_body(client: httpx.Client, recipe: str) -> None:
    address = urlsplit(str(client.base_url))
    with socket.create_connection((address.hostname, address.port or 80), timeout=30) as connection:
        head = (
            f"POST /v1/inspections?recipe={recipe} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            "Content-Type: image/png\r\nContent-Length: 99000000\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(100)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "image", "octet-stream", "multipart/mixed"])
def test_another_content_type_is_refused(client: httpx.Client, recipe: str, kind: str) -> None:
    assert_problem(post(client, png(1), recipe, kind=kind), 415, "unsupported_media_type")


def test_the_content_decides_the_image_type(client: httpx.Client, recipe: str) -> None:
    answer = post(client, encoded(part(1), "BMP"), recipe, kind="image/jpeg")
    assert answer.json()["image"]["media_type"] == "image/bmp"


@pytest.mark.parametrize(
    "body",
    [b"", b"--x", b"no boundary in sight", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc'],
)
def test_a_broken_form_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/inspections", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert_problem(answer, 400, "malformed_request")


def test_a_form_without_a_boundary_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/inspections", content=b"abc", headers={"Content-Type": "multipart/form-data"})
    assert_problem(answer, 400, "malformed_request")


def test_a_form_needs_exactly_one_image(client: httpx.Client, recipe: str) -> None:
    answer = client.post("/v1/inspections", data={"recipe": recipe}, files={"picture": ("a.png", png(1))})
    assert_problem(answer, 422, "invalid_field")
    assert_problem(client.post("/v1/inspections", files={"recipe": (None, recipe)}), 400, "empty_body")
    two = [("image", ("a.png", png(1))), ("image", ("b.png", png(2)))]
    assert_problem(client.post("/v1/inspections", data={"recipe": recipe}, files=two), 413, "too_many_images")


@pytest.mark.parametrize(
    "fields",
    [
        {"lot": "typo"},
        {"priority": "sync"},
        {"priority": "urgent"},
        {"captured_at": "yesterday"},
        {"captured_at": "2026-01-01T00:00:00"},
        {"captured_at": "0001-01-01T00:00:00Z"},
        {"deadline_ms": "0"},
        {"deadline_ms": "soon"},
        {"batch_id": "7"},
        {"part_id": "x" * 201},
        {"part_id": "nul\x00byte"},
        {"metadata": "[1]"},
        {"metadata": "{"},
        {"metadata": '{"x": NaN}'},
        {"metadata": '{"x": 1e999}'},
        {"metadata": '{"x": "\\u0000"}'},
        {"metadata": '{"x": "\\ud800"}'},
        {"metadata": "[" * 5000},
        {"metadata": '{"x":' * 101 + "1" + "}" * 101},
        {"metadata": '{"x": "' + "y" * 16_384 + '"}'},
    ],
    ids=lambda fields: " ".join(f"{name}={value[:12]}" for name, value in fields.items()),
)
def test_invalid_fields_are_refused(client: httpx.Client, recipe: str, fields: dict[str, str]) -> None:
    answer = client.post("/v1/inspections", data={"recipe": recipe, **fields}, files={"image": ("a.png", png(1))})
    assert_problem(answer, 422, "invalid_field")
    assert next(iter(fields)) in answer.json()["detail"]


@pytest.mark.parametrize("name", ["nul\x00.png", "x" * 201], ids=["nul", "long"])
def test_an_invalid_file_name_is_refused(client: httpx.Client, recipe: str, name: str) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="%s"; filename="'
        + name.encode()
        + b'"\r\n\r\n'
        + png(1)
        + b"\r\n--x--\r\n"
    )
    for path, part_name in (("/v1/inspections", b"image"), ("/v1/batches", b"images")):
        answer = client.post(
            path,
            params={"recipe": recipe} if part_name == b"image" else None,
            content=body.replace(b"%s", part_name),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["code"] in ("malformed_request", "invalid_field")


def test_a_repeated_field_is_refused(client: httpx.Client, recipe: str) -> None:
    answer = client.post(
        f"/v1/inspections?recipe={recipe}&part_id=a&part_id=b",
        content=png(1),
        headers={"Content-Type": "image/png"},
    )
    assert_problem(answer, 422, "invalid_field")


def test_an_unregistered_callback_is_refused(client: httpx.Client, recipe: str) -> None:
    answer = post(client, png(1), recipe, callback_url="https://mes.example/hook")
    assert_problem(answer, 422, "callback_unregistered")


def test_an_unknown_recipe_is_refused(client: httpx.Client) -> None:
    assert_problem(post(client, png(1), "nobody"), 404, "recipe_unknown")
    assert_problem(client.get("/v1/recipes/nobody"), 404, "recipe_unknown")


def test_a_recipe_without_a_model_is_refused(client: httpx.Client) -> None:
    name = f"bare-{uuid4().hex[:8]}"
    client.post("/v1/recipes", json={"name": name})
    assert_problem(post(client, png(1), name), 409, "recipe_without_model")


def test_an_archived_recipe_is_refused(client: httpx.Client, recipe: str) -> None:
    assert client.patch(f"/v1/recipes/{recipe}", json={"state": "archived"}).json()["state"] == "archived"
    assert_problem(post(client, png(1), recipe), 409, "invalid_transition")


@pytest.mark.parametrize(
    "query",
    ["cursor=x", "cursor=AAAA", "cursor=%00", "limit=0", "limit=1001", "limit=many", "since=monday", "status=lost",
     "verdict=maybe", "batch_id=7", "unknown=1", "lot_id=%00", "lot_id="],
)  # fmt: skip
def test_an_invalid_listing_request_is_refused(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/v1/inspections?{query}")
    assert_problem(answer, 422, "invalid_cursor" if query.startswith("cursor") else "invalid_field")


@pytest.mark.parametrize("path", ["/v1/inspections", "/v1/batches"])
@pytest.mark.parametrize("name", ["7", "not-a-uuid", "%00", "00000000-0000-0000-0000-000000000000"])
def test_a_malformed_or_unknown_id_is_not_found(client: httpx.Client, path: str, name: str) -> None:
    assert_problem(client.get(f"{path}/{name}"), 404, "not_found")
    assert_problem(client.post(f"{path}/{name}/cancel"), 404, "not_found")


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "long"])
def test_a_wait_out_of_range_is_refused(client: httpx.Client, wait: str) -> None:
    answer = client.get("/v1/inspections/00000000-0000-0000-0000-000000000000", params={"wait": wait})
    assert_problem(answer, 422, "invalid_field")


@pytest.mark.parametrize(
    "body", [b"{", b"", b'{"name": "a b"}', b'{"name": "x", "colour": 1}', b'{"name": "\\u0000"}', b"[]"]
)
def test_an_invalid_recipe_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/recipes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] in ("malformed_request", "invalid_field", "empty_body")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/recipes"), ("PATCH", f"/v1/webhook-endpoints/{UNKNOWN}")])
def test_a_body_without_json_content_type_is_refused(client: httpx.Client, method: str, path: str, kind: str) -> None:
    answer = client.request(method, path, content=b'{"name": "x"}', headers={"Content-Type": kind})
    assert_problem(answer, 415, "unsupported_media_type")
    assert "Content-Type: application/json" in answer.json()["detail"]
    answer = client.request(method, path, headers={"Content-Type": kind})
    assert_problem(answer, 400, "empty_body")
    assert "The body is missing" in answer.json()["detail"]


@pytest.mark.parametrize("changes", [{"state": None}, {"without_model": None}])
def test_a_recipe_field_cannot_be_set_to_null(client: httpx.Client, recipe: str, changes: dict[str, None]) -> None:
    assert_problem(client.patch(f"/v1/recipes/{recipe}", json=changes), 422, "invalid_field")


@pytest.mark.parametrize("blank", ["", " ", "\n", "\u2003"])
def test_reviewer_and_reason_must_not_be_blank(client: httpx.Client, blank: str) -> None:
    for reviewer, reason in ((blank, "a scratch"), ("Kim", blank)):
        review = {"verdict": "ng", "reviewer": reviewer, "reason": reason}
        assert_problem(client.post(f"/v1/inspections/{UNKNOWN}/reviews", json=review), 422, "invalid_field")
    answer = client.post("/v1/results/acknowledge", json={"consumer": blank, "cursor": "now"})
    assert_problem(answer, 422, "invalid_field")


def test_an_endless_json_body_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/recipes", content=b" " * 1_100_000, headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, "upload_too_large")
    for path in ("/v1/recipes", f"/v1/batches/{UNKNOWN}/close"):
        answer = client.post(path, content=b" " * 1_100_000, headers={"Content-Type": "text/plain"})
        assert answer.status_code in (404, 413, 422)
    answer = client.post("/v1/batches", content=b"x" * 1_100_000, headers={"Content-Type": "text/plain"})
    assert_problem(answer, 415, "unsupported_media_type")


def test_an_unknown_path_or_method_is_a_problem(client: httpx.Client) -> None:
    assert_problem(client.get("/v2/inspections"), 404, "not_found")
    for path, allowed in (
        ("/v1/inspections", "GET, HEAD, POST"),
        ("/healthz", "GET, HEAD"),
        ("/v1/recipes/ring", "GET, HEAD, PATCH"),
    ):
        answer = client.put(path)
        assert_problem(answer, 405, "method_not_allowed")
        assert answer.headers["Allow"] == allowed
        assert allowed in answer.json()["detail"]


def test_a_bad_image_of_a_batch_does_not_affect_the_others(client: httpx.Client, recipe: str) -> None:
    files = [
        ("images", ("good.png", png(1))),
        ("images", ("text.png", b"hello")),
        ("images", ("empty.png", b"")),
        ("images", ("large.png", b"\xff" * 1_000_001)),
        ("images", ("pixels.png", huge_png(9000, 9000))),
        ("images", ("fine.png", png(2))),
    ]
    answer = client.post("/v1/batches", data={"recipe": recipe}, files=files)
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert [inspection["external_id"] for inspection in batch["inspections"]] == ["good.png", "fine.png"]
    assert [(error["external_id"], error["code"], error["status"]) for error in batch["errors"]] == [
        ("text.png", "unsupported_media_type", 415),
        ("empty.png", "empty_body", 400),
        ("large.png", "upload_too_large", 413),
        ("pixels.png", "image_too_large", 413),
    ]
    assert client.get(f"/v1/batches/{batch['id']}", params={"wait": 60}).json()["counts"]["completed"] == 2


def test_a_batch_of_only_bad_images_is_refused(client: httpx.Client, recipe: str) -> None:
    answer = client.post("/v1/batches", data={"recipe": recipe}, files=[("images", ("a.png", b"no"))])
    assert_problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("items", ["[", "[]", '{"a.png": 1}', '{"b.png": {}}', '{"a.png": {"lot": "x"}}'])
def test_items_that_do_not_match_the_images_are_refused(client: httpx.Client, recipe: str, items: str) -> None:
    answer = client.post("/v1/batches", data={"recipe": recipe, "items": items}, files=[("images", ("a.png", png(1)))])
    assert_problem(answer, 422, "invalid_field")


@pytest.mark.parametrize("kind", ["I;16", "L", "1", "P", "CMYK", "RGBA", "LA"])
def test_every_kind_of_image_is_scored(client: httpx.Client, recipe: str, kind: str) -> None:
    grey = np.asarray(part(3).convert("L")).astype(np.uint16) * 257
    image = Image.fromarray(grey) if kind == "I;16" else part(3).convert(kind)
    assert image.mode == kind
    data = encoded(image, "TIFF" if kind == "CMYK" else "PNG")
    accepted = post(client, data, recipe).json()
    result = client.get(f"/v1/inspections/{accepted['id']}", params={"wait": 60}).json()
    assert result["status"] == "completed", result["error"]


def test_a_rotated_image_has_its_size_as_displayed(client: httpx.Client, recipe: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    accepted = post(client, encoded(part(4), "JPEG", exif=exif), recipe).json()
    assert (accepted["image"]["width"], accepted["image"]["height"]) == (64, 96)
