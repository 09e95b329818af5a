"""A bundle as a folder: reading verifies it, writing is atomic."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from core.vision.bundle.manifest import MANIFEST, verify_bundle
from core.vision.errors import InvalidBundle


def read_folder(folder: Path) -> dict[str, bytes]:
    """Read and verify a bundle's folder; return every file by its name.

    Raises:
        InvalidBundle: see `verify_bundle`, or the folder contains a link or a device.
        OSError: a file cannot be read.
    """
    if not (folder / MANIFEST).is_file():
        raise InvalidBundle(f"{folder} has no {MANIFEST}: use a folder that `linewatch train` wrote")
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InvalidBundle(f"{name} is a link or a device: a bundle contains plain files only")
        if path.is_file():
            files[name] = path.read_bytes()
    verify_bundle(files)
    return files


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a bundle atomically: the folder appears complete or not at all, and replaces nothing.

    Args:
        folder: must not exist; its parents are created.
        files: all files by name, including `manifest.json`.

    Raises:
        FileExistsError: `folder` exists.
        InvalidBundle: see `verify_bundle`.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} already exists, and a bundle never changes: use another folder")
    verify_bundle(files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files.items():
            (draft / name).parent.mkdir(exist_ok=True)
            (draft / name).write_bytes(content)
        draft.chmod(0o755)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
