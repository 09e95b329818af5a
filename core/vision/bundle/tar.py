"""A bundle as an uncompressed tar, the format in which it is uploaded and stored."""

import io
import tarfile
from pathlib import Path
from typing import BinaryIO

from core.vision.bundle.folder import read_folder
from core.vision.bundle.manifest import MAX_FILES, verify_bundle
from core.vision.errors import InvalidBundle


def pack(folder: Path, out: BinaryIO) -> None:
    """Write a bundle's folder as an uncompressed tar: the same bytes for the same bundle.

    Raises:
        InvalidBundle: see `read_folder`.
    """
    files = read_folder(folder)
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            member.mode = 0o644
            archive.addfile(member, io.BytesIO(files[name]))


def unpack(tar: BinaryIO, *, max_bytes: int) -> dict[str, bytes]:
    """Read a bundle's tar into memory and verify it. Nothing is written to disk.

    Args:
        tar: an uncompressed tar, seekable.
        max_bytes: the largest accepted total size of the files.

    Returns:
        Every file by its name, including `manifest.json`.

    Raises:
        InvalidBundle: the file is not an uncompressed tar; it is too large; it contains a link, a device, an invalid
            name or the same name twice. See also `verify_bundle`.
    """
    files: dict[str, bytes] = {}
    remaining = max_bytes
    try:
        with tarfile.open(fileobj=tar, mode="r:") as archive:
            members = 0
            while (member := archive.next()) is not None:
                members += 1
                name = _plain_name(member)
                if name is None:
                    continue
                remaining -= member.size
                if remaining < 0 or members > 2 * MAX_FILES:
                    raise InvalidBundle(f"the bundle is larger than {max_bytes} bytes or {MAX_FILES} files")
                if name in files:
                    raise InvalidBundle(f"the bundle contains {name} twice")
                files[name] = _read_member(archive, member)
    except InvalidBundle:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError, IndexError, RecursionError) as error:
        raise InvalidBundle("the bundle is not an uncompressed tar, or it is damaged or truncated") from error
    verify_bundle(files)
    return files


def _plain_name(member: tarfile.TarInfo) -> str | None:
    """Return the name of a regular file; None for a folder, because file names include their folder."""
    name = member.name.removeprefix("./")
    if member.isdir() and ".." not in name.split("/") and not name.startswith("/"):
        return None
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise InvalidBundle(f"{name!r} is a link, a device or a sparse file: a bundle contains plain files only")
    if name.startswith("/") or ".." in name.split("/"):
        raise InvalidBundle(f"{name!r} points outside the bundle")
    return name


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = archive.extractfile(member)
    content = b"" if source is None else source.read()
    if len(content) != member.size:
        raise InvalidBundle("the bundle is truncated")
    return content
