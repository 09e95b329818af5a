"""gzip bodies are accepted wherever a body is, and a bomb costs neither memory nor disk."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from sqlalchemy import Engine

from core.settings import Settings
from tests.fixtures.api_process import Api, api_process
from tests.fixtures.finished_inspections import make_recipe_with_model
from tests.fixtures.part_images import encoded, part, png

GZIP = {"Content-Encoding": "gzip"}
MAX_UPLOAD = 2_000_000
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def api(settings: Settings, engine: Engine, tmp_path: Path) -> Iterator[Api]:
    make_recipe_with_model(engine)
    variables = {"LINEWATCH_DEFAULT_RECIPE": "ring", "LINEWATCH_MAX_UPLOAD_BYTES": str(MAX_UPLOAD)}
    with api_process(settings, output=tmp_path / "api.log", open_files=None, **variables) as api:
        yield api


def staged(settings: Settings) -> list[Path]:
    return list((Path(urlsplit(settings.store_url).path) / "tmp").iterdir())


def bomb(size: int, start: bytes = b"") -> bytes:
    """A gzip body that grows to `size` bytes, about a thousandfold."""
    compressor = zlib.compressobj(9, wbits=31)
    pieces = [compressor.compress(start)]
    pieces += [compressor.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)]
    return b"".join([*pieces, compressor.flush()])


def test_compressed_bodies_are_taken_as_if_they_were_not(api: Api) -> None:
    image = encoded(Image.new("RGB", (800, 600)), "BMP")  # grows 900-fold
    plain = api.http.post("/v1/inspections?part_id=SN-1", content=image).json()
    form = api.http.build_request("POST", "/v1/inspections", data={"part_id": "SN-1"}, files={"image": image})
    for headers, content in (
        ({}, gzip.compress(image)),
        ({"Content-Type": "image/bmp", "Content-Encoding": "X-GZIP"}, gzip.compress(image)),
        ({}, iter([gzip.compress(image)[:100], gzip.compress(image)[100:]])),
        ({"Content-Type": form.headers["Content-Type"]}, gzip.compress(form.read())),
    ):
        answer = api.http.post("/v1/inspections?part_id=SN-1" if "multipart" not in str(headers) else "/v1/inspections",
                               content=content, headers={**GZIP, **headers})  # fmt: skip
        assert answer.status_code == 202, answer.text
        assert answer.json()["image"] == plain["image"]
        assert answer.json()["part_id"] == "SN-1"
        assert api.http.get(f"{answer.headers['Location']}/image").content == image
    recipe = api.http.post("/v1/recipes", content=gzip.compress(b'{"name": "new"}'), headers={**JSON, **GZIP})
    assert recipe.status_code == 201, recipe.text
    as_is = api.http.post("/v1/inspections", content=image, headers={"Content-Encoding": "identity"})
    assert as_is.status_code == 202
    opened = api.http.post("/v1/batches", headers=GZIP)
    assert opened.status_code == 202


def test_a_bomb_gets_413_and_leaves_nothing(api: Api, settings: Settings) -> None:
    process = psutil.Process(api.process.pid)
    before = process.memory_info().rss
    huge = bomb(300_000_000, start=encoded(part(1), "BMP"))
    head = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="a.bmp"\r\n\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    requests = [
        ("/v1/inspections", huge, {}),
        ("/v1/inspections", bomb(300_000_000, start=head % b"image"), form),
        ("/v1/batches", bomb(300_000_000, start=head % b"images"), form),
        ("/v1/recipes", bomb(300_000_000, start=b'{"name": "'), JSON),
        ("/v1/recipes/ring/model-versions", huge, {}),
    ]
    for path, content, headers in requests:
        answer = api.http.post(path, content=content, headers={**GZIP, **headers})
        assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large"), (path, answer.text)
    assert process.memory_info().rss - before < 40_000_000
    assert staged(settings) == []
    assert api.http.post("/v1/inspections", content=png(1)).status_code == 202


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"not gzip", GZIP, 400, "malformed_request"),
        (png(1), GZIP, 400, "malformed_request"),
        (gzip.compress(png(1))[:-20], GZIP, 400, "malformed_request"),
        (gzip.compress(png(1)) + b"more", GZIP, 400, "malformed_request"),
        (gzip.compress(b"no image"), GZIP, 415, "unsupported_media_type"),
        (gzip.compress(b""), GZIP, 400, "empty_body"),
        (b"", GZIP, 400, "empty_body"),
        (png(1), {"Content-Encoding": "br"}, 415, "unsupported_media_type"),
        (gzip.compress(png(1)), {"Content-Encoding": "gzip, gzip"}, 415, "unsupported_media_type"),
    ],
    ids=["text", "image", "cut off", "data after its end", "no image", "empty gzip", "empty", "brotli", "twice"],
)
def test_a_broken_body_is_refused(
    api: Api, settings: Settings, content: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = api.http.post("/v1/inspections", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert staged(settings) == []
    as_json = api.http.post("/v1/recipes", content=content, headers={**JSON, **headers})
    assert as_json.status_code in (400, 415)
    assert as_json.headers["Content-Type"] == "application/problem+json"


def test_any_pieces_of_any_body_are_put_together(api: Api) -> None:
    @hypothesis_settings(max_examples=30, deadline=None)
    @given(st.binary(max_size=3000), st.lists(st.integers(1, 200), min_size=1, max_size=20))
    def check(padding: bytes, sizes: list[int]) -> None:
        image, pieces = png(2) + padding, []
        compressed = gzip.compress(image)
        for size in sizes:
            pieces.append(compressed[:size])
            compressed = compressed[size:]
        answer = api.http.post("/v1/inspections", content=iter([*filter(None, pieces), compressed]), headers=GZIP)
        assert answer.json()["image"]["bytes"] == len(image), answer.text

    check()
