"""Archives in S3 buckets, against a real server."""

import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from uuid import uuid4

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Code, Failure, Refused
from core.intake.image_decoding import Undecodable
from core.rescoring.requests import RunRequest
from core.rescoring.sources import resolve_source
from core.storage.archive_buckets import Bucket, _store
from core.storage.archive_roots import ArchiveLocation, Archives, ArchiveUnavailable
from core.storage.manifests import entries
from tests.fixtures.s3_server import S3Server, running_s3_server

MAX_BYTES = 1000


@pytest.fixture
def prefix() -> str:
    """A prefix of this test."""
    return f"test-{uuid4().hex}"


def names_of(location: ArchiveLocation, after: str | None = None) -> list[str]:
    return list(location.images(after))


def failure_of(location: ArchiveLocation, name: str, max_bytes: int = MAX_BYTES) -> Failure:
    with pytest.raises(Undecodable) as caught:
        location.read(name, max_bytes=max_bytes)
    return caught.value.failure


_PARTS = st.text(st.sampled_from("ab-~ é\U0001f600\uffee%?#+"), min_size=1, max_size=3).map(lambda part: f"x{part}x")
_NAMES = st.lists(
    st.tuples(st.lists(_PARTS, max_size=2), _PARTS).map(lambda key: "/".join([*key[0], f"{key[1]}.png"])),
    max_size=8,
    unique=True,
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=_NAMES)
def test_a_listing_resumes_after_any_name(s3: S3Server, names: list[str]) -> None:
    prefix = f"cut-{uuid4().hex}"
    s3.put(prefix, *names, "notes.txt", ".hidden.png", "a/.git/1.png")
    s3.put(f"{prefix}-beside", "1.png")
    location = Archives([f"s3://{s3.bucket}"]).locate(prefix)
    whole = names_of(location)
    assert sorted(whole) == sorted(names)
    for at, name in enumerate(whole):
        assert location.read(name, max_bytes=MAX_BYTES) == b"image"
        assert names_of(location, name) == whole[at + 1 :]


def test_a_listing_of_several_pages_resumes_after_any_name(s3: S3Server, prefix: str) -> None:
    names = [f"{number % 7}/{number:04d}.png" for number in range(1200)]  # more than the server returns per request
    s3.put(prefix, *names)
    location = Bucket(s3.bucket, [prefix])
    whole = names_of(location)
    assert sorted(whole) == sorted(names)
    for at in (0, 998, 999, 1000, 1198, 1199):
        assert names_of(location, whole[at]) == whole[at + 1 :]


def test_each_unreadable_image_has_its_failure_code(s3: S3Server, prefix: str) -> None:
    s3.put(prefix, "lot/1.png", content=b"x" * MAX_BYTES)
    location = Archives([f"s3://{s3.bucket}/{prefix}"]).locate("lot")
    assert len(location.read("1.png", max_bytes=MAX_BYTES)) == MAX_BYTES
    assert len(location.read(f"s3://{s3.bucket}/{prefix}/lot/1.png", max_bytes=MAX_BYTES)) == MAX_BYTES
    assert failure_of(location, "1.png", MAX_BYTES - 1) is Failure.IMAGE_TOO_LARGE
    for missing in ("2.png", "", "a//b.png", "n\0.png", "a\nb.png", "\ud800.png"):
        assert failure_of(location, missing) is Failure.IMAGE_MISSING
    outside = ["../lot/1.png", "/lot/1.png", "s3://other/1.png", f"s3://{s3.bucket}/1.png", "file:///etc/passwd"]
    for name in outside:
        assert failure_of(location, name) is Failure.OUTSIDE_ROOT


def test_only_prefixes_below_the_root_are_located(s3: S3Server, prefix: str) -> None:
    s3.put(prefix, "lot 1/1.png", "lists/a.csv")
    root = f"s3://{s3.bucket}/{prefix}"
    archives = Archives(["/does/not/exist", root])
    for path_or_url in (f"{root}/lot 1", f"{root}//lot 1/", "lot 1"):
        assert archives.locate(path_or_url).url == f"{root}/lot 1"
    assert archives.locate(root).url == root
    location, name = archives.locate_file(f"{root}/lists/a.csv")
    assert (location.url, name) == (f"{root}/lists", "a.csv")
    for refused in (f"s3://{s3.bucket}", f"{root}-beside", f"{root}/../x", f"{root}/nothing", "s3://other/x"):
        with pytest.raises(Refused) as caught:
            archives.locate(refused)
        assert caught.value.code is Code.SOURCE_REFUSED
    with pytest.raises(Refused):
        archives.locate_file(f"{root}/lists/b.csv")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_manifest_is_read_from_any_position(s3: S3Server, prefix: str, name: str) -> None:
    paths = ["1.png", "grün 2.png", "../3.png", f"s3://{s3.bucket}/{prefix}/4.png"]
    lines = [f'"{path}"' if name == "a.csv" else f'{{"path": "{path}"}}' for path in paths]
    s3.put(prefix, name, content="\n".join([*(["path"] if name == "a.csv" else []), *lines]).encode())
    archives = Archives([f"s3://{s3.bucket}"])
    request = RunRequest.model_validate(
        {"recipe": "ring", "model_version": 1, "source": {"manifest": f"{prefix}/{name}"}}
    )
    url = resolve_source(request, archives).source.manifest
    assert url == f"s3://{s3.bucket}/{prefix}/{name}"
    location, _ = archives.locate_file(url)
    whole = list(entries(location, name, None))
    assert [entry.item for entry in whole] == [{"path": path} for path in paths]
    for at, entry in enumerate(whole):
        assert list(entries(location, name, entry.position)) == whole[at + 1 :]


def test_a_missing_bucket_is_not_a_fault_of_an_image(s3: S3Server) -> None:
    location = Bucket("no-such-bucket", ["lot"])
    with pytest.raises(ArchiveUnavailable):
        location.read("1.png", max_bytes=MAX_BYTES)
    with pytest.raises(ArchiveUnavailable):
        names_of(location)
    with pytest.raises(ArchiveUnavailable):
        location.check()


def test_wrong_credentials_are_not_a_fault_of_an_image(
    s3: S3Server, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put(prefix, "1.png")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    _store.cache_clear()
    location = Bucket(s3.bucket, [prefix])
    for call in (location.check, lambda: location.read("1.png", max_bytes=MAX_BYTES), lambda: names_of(location)):
        with pytest.raises(ArchiveUnavailable, match="403 Forbidden"):
            call()


def test_an_unavailable_server_is_not_a_fault_of_an_image(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(prefix="lw-s3-", ignore_cleanup_errors=True) as folder:
        with running_s3_server(Path(folder)) as server:
            for variable, value in server.environment.items():
                monkeypatch.setenv(variable, value)
            _store.cache_clear()
            server.put("lot", "1.png")
            location = Archives([f"s3://{server.bucket}"]).locate("lot")
            listing = location.images(None)
        with pytest.raises(ArchiveUnavailable):
            location.read("1.png", max_bytes=MAX_BYTES)
        with pytest.raises(ArchiveUnavailable):
            next(listing)
        assert Archives([f"s3://{server.bucket}"]).locate("unknown").url == f"s3://{server.bucket}/unknown"


class _Lists(BaseHTTPRequestHandler):
    """Lists a key that S3 allows but SeaweedFS changes on upload."""

    key: ClassVar[str] = ""

    def do_GET(self) -> None:
        entry = f"<Key>{self.key}</Key><LastModified>2026-05-04T10:00:00.000Z</LastModified><Size>5</Size>"
        response = f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents>{entry}</Contents></ListBucketResult>"
        self.send_response(200)
        self.send_header("Content-Length", f"{len(response)}")
        self.end_headers()
        self.wfile.write(response.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize("key", ["a//b.png", "a/../b.png", "a/&#10;.png"])
def test_a_key_that_cannot_be_listed_is_refused(s3: S3Server, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setattr(_Lists, "key", key)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Lists) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            with pytest.raises(Refused, match="cannot be listed") as caught:
                names_of(Bucket("other"))
        finally:
            server.shutdown()
            thread.join()
    assert caught.value.code is Code.SOURCE_REFUSED


def test_memory_does_not_grow_with_the_size_of_an_object(s3: S3Server, prefix: str) -> None:
    s3.put(prefix, "large.png", content=bytes(60_000_000))
    location = Bucket(s3.bucket, [prefix])
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in range(3):
        assert failure_of(location, "large.png") is Failure.IMAGE_TOO_LARGE
    assert sum(map(len, location.blocks("large.png", 1))) == 59_999_999
    assert process.memory_info().rss - before < 40_000_000
