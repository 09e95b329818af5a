"""A bundle as an uncompressed tar, the form in which it is uploaded and stored."""

import io
import tarfile
from pathlib import Path
from typing import BinaryIO

from core.vision.bundle.folder import read_folder
from core.vision.bundle.manifest import MAX_FILES, verify_bundle
from core.vision.errors import InvalidBundle


def pack(folder: Path, out: BinaryIO) -> None:
    """Write a bundle's folder as an uncompressed tar, the same bytes for the same bundle.

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
        max_bytes: the largest sum of the files' sizes that is accepted.

    Returns:
        Every file by its name, `manifest.json` among them.

    Raises:
        InvalidBundle: it is not an uncompressed tar; it holds links, devices, odd names, a name twice or too much;
            see also `verify_bundle`.
    """
    files: dict[str, bytes] = {}
    left = max_bytes
    try:
        with tarfile.open(fileobj=tar, mode="r:") as archive:
            members = 0
            while (member := archive.next()) is not None:
                members += 1
                name = _plain_name(member)
                if name is None:
                    continue
                left -= member.size
                if left < 0 or members > 2 * MAX_FILES:
                    raise InvalidBundle(f"the bundle is larger than {max_bytes} bytes or {MAX_FILES} files")
                if name in files:
                    raise InvalidBundle(f"the bundle holds {name} twice")
                files[name] = _content(archive, member)
    except InvalidBundle:
        raise
    except (tarfile.TarError, ValueError, OverflowError, EOFError, IndexError, RecursionError) as error:
        raise InvalidBundle("the bundle is not an uncompressed tar, or it is damaged or truncated") from error
    verify_bundle(files)
    return files


def _plain_name(member: tarfile.TarInfo) -> str | None:
    """The name of a regular file; None for a folder, which says nothing that file names do not."""
    name = member.name.removeprefix("./")
    if member.isdir() and ".." not in name.split("/") and not name.startswith("/"):
        return None
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise InvalidBundle(f"{name!r} is a link, a device or a sparse file: a bundle holds plain files")
    if name.startswith("/") or ".." in name.split("/"):
        raise InvalidBundle(f"{name!r} points outside the bundle")
    return name


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = archive.extractfile(member)
    content = b"" if source is None else source.read()
    if len(content) != member.size:
        raise InvalidBundle("the bundle is truncated")
    return content
