"""A bundle contains exactly what its manifest lists, and any other tar is refused."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision.bundle.folder import read_folder, write_folder
from core.vision.bundle.manifest import MANIFEST, GoldenScore, Manifest, Threshold, checksums, digest, verify_bundle
from core.vision.bundle.tar import pack, unpack
from core.vision.detectors.architecture import WEIGHTS, Architecture
from core.vision.errors import InvalidBundle
from core.vision.input.record import Preprocessing

CONTENT = {WEIGHTS: b"weights", "golden/0.png": b"image", "training_curve.json": b"[]"}


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "architecture": Architecture(name="conv-autoencoder", settings={"width": 128}),
        "preprocessing": Preprocessing(width=128, height=128, scaled_decode=True),
        "score_method": "mse",
        "threshold": Threshold(value=0.002, calibration=None),
        "training": None,
        "metrics": None,
        "libraries": {"torch": "2"},
        "golden": [GoldenScore(file="golden/0.png", score=0.001)],
        "golden_tolerance": {"cpu/float32": 1e-5},
        "files": checksums(CONTENT),
    }
    return Manifest(**(fields | changes))


VALID = {**CONTENT, MANIFEST: manifest().to_json()}


def tar(
    members: dict[str, bytes], *, mode: str = "w", change: Callable[[tarfile.TarInfo], None] | None = None
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if change is not None:
                change(member)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def refusal(data: bytes, *, max_bytes: int = 10**6) -> str:
    with pytest.raises(InvalidBundle) as invalid:
        unpack(io.BytesIO(data), max_bytes=max_bytes)
    assert "\n" not in str(invalid.value)
    return str(invalid.value)


def tar_with_changed_manifest(change: Callable[[dict[str, Any]], None]) -> bytes:
    """Pack a tar whose manifest was changed as plain JSON."""
    content = json.loads(VALID[MANIFEST])
    change(content)
    return tar({**CONTENT, MANIFEST: json.dumps(content).encode()})


def test_a_folder_is_packed_and_unpacked(tmp_path: Path) -> None:
    write_folder(tmp_path / "bundle", VALID)
    packed = io.BytesIO()
    pack(tmp_path / "bundle", packed)
    packed.seek(0)
    assert unpack(packed, max_bytes=10**6) == VALID == read_folder(tmp_path / "bundle")
    assert verify_bundle(VALID) == manifest()


def test_packing_is_deterministic(tmp_path: Path) -> None:
    packed = []
    for name in ("one", "two"):
        write_folder(tmp_path / name, VALID)
        os.utime(tmp_path / name / WEIGHTS, (1, 1))
        out = io.BytesIO()
        pack(tmp_path / name, out)
        packed.append(out.getvalue())
    assert packed[0] == packed[1]


def test_the_digest_covers_every_file() -> None:
    other = manifest(files=checksums({**CONTENT, WEIGHTS: b"other"}))
    assert digest(other.to_json()) != digest(manifest().to_json()) == digest(manifest().to_json())


def test_a_folder_is_never_overwritten_or_partially_written(tmp_path: Path) -> None:
    write_folder(tmp_path / "bundle", VALID)
    with pytest.raises(FileExistsError, match="never changes"):
        write_folder(tmp_path / "bundle", VALID)
    with pytest.raises(InvalidBundle):
        write_folder(tmp_path / "other", {**VALID, WEIGHTS: b"changed"})
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_plain_tars_of_other_programs_are_read(tmp_path: Path, format_: int) -> None:
    write_folder(tmp_path / "bundle", VALID)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format_) as archive:
        archive.add(tmp_path / "bundle", arcname=".")
    file.seek(0)
    assert unpack(file, max_bytes=10**6) == VALID


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_refused(mode: str) -> None:
    assert "uncompressed tar" in refusal(tar(VALID, mode=mode))


@pytest.mark.parametrize("data", [b"", b"hello", gzip.compress(b"x", mtime=0), bytes(10240), b"\xff" * 2048])
def test_data_that_is_not_a_tar_is_refused(data: bytes) -> None:
    refusal(data)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_links_and_devices_are_refused(kind: bytes) -> None:
    def change(member: tarfile.TarInfo) -> None:
        if member.name == WEIGHTS:
            member.type, member.linkname, member.size = kind, "/etc/passwd", 0

    refusal(tar(VALID, change=change))


@pytest.mark.parametrize(
    "name",
    [
        "../weights.safetensors",
        "/etc/passwd",
        "golden/../../x.json",
        "a/b/c.json",
        "x.pkl",
        "x.pth",
        "x.json\x00",
        ".json",
        "golden/",
        "..",
        "C:\\x.json",
    ],
)
def test_invalid_names_are_refused(name: str) -> None:
    refusal(tar({**VALID, name: b"x"}))
    with pytest.raises(ValueError, match="files"):
        manifest(files=checksums({**CONTENT, name: b"x"}))


def test_missing_extra_and_duplicate_files_are_refused() -> None:
    assert "no manifest.json" in refusal(tar(CONTENT))
    assert "lacks golden/0.png" in refusal(tar({name: VALID[name] for name in VALID if name != "golden/0.png"}))
    assert "contains more.json" in refusal(tar({**VALID, "more.json": b"{}"}))
    duplicate = tar({**VALID, "./" + WEIGHTS: CONTENT[WEIGHTS]})
    assert "twice" in refusal(duplicate)


def test_a_changed_file_is_refused() -> None:
    assert "differs from the SHA-256" in refusal(tar({**VALID, WEIGHTS: b"changed"}))


def test_bundles_that_are_too_large_are_refused() -> None:
    assert "larger than" in refusal(tar(VALID), max_bytes=sum(map(len, VALID.values())) - 1)
    assert "larger than" in refusal(tar({f"{number}.json": b"" for number in range(1000)}))

    def claim_huge_size(member: tarfile.TarInfo) -> None:
        member.size = 2**60

    header_alone = tarfile.TarInfo("x.json")
    claim_huge_size(header_alone)
    assert "larger than" in refusal(header_alone.tobuf(tarfile.GNU_FORMAT))


@pytest.mark.parametrize("end", [100, 700, 1500])
def test_a_truncated_tar_is_refused(end: int) -> None:
    refusal(tar(VALID)[:end])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(format_version=2), "upgrade Linewatch"),
        (lambda m: m.update(format_version="1"), "format_version"),
        (lambda m: m.update(surprise=1), "surprise"),
        (lambda m: m.pop("score_method"), "score_method"),
        (lambda m: m["threshold"].update(value=float("nan")), "threshold.value"),
        (lambda m: m["threshold"].update(value="0.1"), "threshold.value"),
        (lambda m: m["golden"][0].update(score=float("inf")), "golden.0.score"),
        (lambda m: m["golden"][0].update(file="golden/1.png"), "golden image golden/1.png"),
        (lambda m: m.update(golden=[]), "golden"),
        (lambda m: m["files"].pop(WEIGHTS), "does not list weights.safetensors"),
        (lambda m: m["files"].update({MANIFEST: "0" * 64}), "manifest.json"),
        (lambda m: m["files"].update({WEIGHTS: "0" * 63}), "files"),
        (lambda m: m.update(review_threshold=1.0), "review_threshold"),
        (lambda m: m["libraries"].update(torch="\x00"), "U+0000"),
        (lambda m: m["preprocessing"].update(resize="nearest"), "preprocessing.resize"),
    ],
)
def test_an_invalid_manifest_is_refused_with_the_location(
    change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    assert reason in refusal(tar_with_changed_manifest(change))


@pytest.mark.parametrize(
    "encoded", [b"", b"[]", b"\xff", b"[" * 100_000, b"{" + b" " * 2_000_000 + b"}", b'"x"', b"1e999"]
)
def test_data_that_is_not_a_manifest_is_refused(encoded: bytes) -> None:
    refusal(tar({**CONTENT, MANIFEST: encoded}), max_bytes=10**7)


@given(st.data())
def test_a_damaged_tar_is_refused_or_reads_the_same(data: st.DataObject) -> None:
    intact = tar(VALID)
    damaged = bytearray(intact)
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        files = unpack(io.BytesIO(bytes(damaged)), max_bytes=10**6)
    except InvalidBundle:
        return
    assert files == VALID


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    refusal(data)


def test_links_in_a_folder_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "bundle", VALID)
    (tmp_path / "bundle" / "link.json").symlink_to("/etc/hostname")
    with pytest.raises(InvalidBundle, match="link"):
        read_folder(tmp_path / "bundle")


def test_reading_bundles_and_images_needs_no_torch() -> None:
    check = (
        "import sys, core.intake.image_decoding, core.vision.bundle.tar; "
        "sys.exit(bool({'torch', 'scipy', 'safetensors', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
