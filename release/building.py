"""The artefacts of a tagged release: source archives and wheels with checksums, and images."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from release import ReleaseError
from release.repository import Repository

DISTRIBUTIONS: Final = ("linewatch", ".")
"""The folders of the client's and the server's distribution."""
CHECKSUMS: Final = "SHA256SUMS"


def build_packages(repository: Repository, checkout: Path, target: Path) -> list[Path]:
    """Build both distributions, and put them with their checksums into a new folder, which replaces an older one.

    The same commit gives the same bytes: times are those of the commit, and nothing but its files is there.

    Args:
        checkout: a work tree of the commit, and of nothing else.

    Returns:
        The source archives and wheels.

    Raises:
        ReleaseError: a build failed.
    """
    draft = target.with_name(f"{target.name}.building")
    for former in (draft, target):
        shutil.rmtree(former, ignore_errors=True)
    draft.mkdir(parents=True)
    epoch = repository.git("log", "-1", "--format=%ct", root=checkout)
    for folder in DISTRIBUTIONS:
        # Isolated, because the client's folder has a package `types`, which would hide that of Python.
        _run(
            [sys.executable, "-I", "-m", "hatchling", "build", "--directory", str(draft)],
            checkout / folder,
            {"SOURCE_DATE_EPOCH": epoch},
        )
    names = sorted(path.name for path in draft.iterdir())
    lines = [f"{hashlib.sha256((draft / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (draft / CHECKSUMS).write_text("".join(lines))
    draft.rename(target)
    return [target / name for name in names]


def has_docker() -> bool:
    """Return whether there is a Docker engine."""
    try:
        completed = subprocess.run(["docker", "version"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return completed.returncode == 0


def build_images(checkout: Path, version: str, targets: Sequence[str], options: Sequence[str]) -> list[str]:
    """Build the images of these targets of the Dockerfile, with options of `docker build`, and return their names.

    Raises:
        ReleaseError: a build failed.
    """
    names = [f"linewatch/{target}:{version}" for target in targets]
    for target, name in zip(targets, names, strict=True):
        _run(["docker", "build", "--target", target, "--tag", name, *options, "."], checkout, {"DOCKER_BUILDKIT": "1"})
    return names


def _run(command: list[str], folder: Path, variables: dict[str, str]) -> None:
    """Run a command whose output only matters if it fails."""
    completed = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if completed.returncode:
        sys.stderr.write(completed.stdout)
        raise ReleaseError(f"`{' '.join(command)}` failed; its output is above")
