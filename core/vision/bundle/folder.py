"""A bundle as a folder: read whole and verified, written all at once."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from core.vision.bundle.manifest import MANIFEST, verify_bundle
from core.vision.errors import InvalidBundle


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle's folder by its name, verified.

    Raises:
        InvalidBundle: see `verify_bundle`; also for links.
        OSError: a file cannot be read.
    """
    if not (folder / MANIFEST).is_file():
        raise InvalidBundle(f"{folder} has no {MANIFEST}: is it a folder that `linewatch train` wrote?")
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InvalidBundle(f"{name} is a link or a device: a bundle holds plain files")
        if path.is_file():
            files[name] = path.read_bytes()
    verify_bundle(files)
    return files


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a bundle all at once: it appears complete or not at all, and replaces nothing.

    Args:
        folder: must not exist; its parents are made.
        files: all of them by name, `manifest.json` included.

    Raises:
        FileExistsError: `folder` exists.
        InvalidBundle: see `verify_bundle`.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already, and a bundle never changes: name another folder")
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
