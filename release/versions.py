"""Version numbers, and where the version is written."""

import re
from pathlib import Path
from typing import Final

from release import ReleaseError

PLACES: Final = (
    ("pyproject.toml", r'^version = "(.+)"$'),
    ("pyproject.toml", r'^    "linewatch-client==(.+)",$'),
    ("linewatch/pyproject.toml", r'^version = "(.+)"$'),
    ("deploy/helm/linewatch/Chart.yaml", r"^version: (.+)$"),
    ("deploy/helm/linewatch/Chart.yaml", r"^appVersion: (.+)$"),
)
"""Each file with the line that has the version. Everything else reads it from the metadata of the packages."""

_NUMBER: Final = r"(?:0|[1-9]\d*)"
_VERSION: Final = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}", re.ASCII)


def is_version(text: str) -> bool:
    """Return whether a text has the form of a release's version: three numbers."""
    return _VERSION.fullmatch(text) is not None


def parse(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, to compare it with others.

    Raises:
        ReleaseError: it is not of the form that Python, Helm and Semantic Versioning all accept.
    """
    if not is_version(version):
        raise ReleaseError(f"{version!r} is not a version: write three numbers, such as 0.2.0")
    return tuple(map(int, version.split(".")))


def read(root: Path) -> str:
    """Return the version that is written in the files.

    Raises:
        ReleaseError: a place is missing, or the places differ.
    """
    lines = [(name, *_match(root, name, pattern)) for name, pattern in PLACES]
    if len({version for _, _, version in lines}) > 1:
        places = "; ".join(f"{name} has {line.strip()}" for name, line, _ in lines)
        raise ReleaseError(f"the version must be the same everywhere, but {places}")
    return lines[0][2]


def write(root: Path, version: str) -> list[str]:
    """Write the version in every place, and return the names of the files."""
    for name, pattern in PLACES:
        line, former = _match(root, name, pattern)
        file = root / name
        file.write_text(file.read_text().replace(f"{line}\n", line.replace(former, version) + "\n", 1))
    return sorted({name for name, _ in PLACES})


def _match(root: Path, name: str, pattern: str) -> tuple[str, str]:
    """Return the one line with a version, and the version."""
    found = list(re.finditer(pattern, (root / name).read_text(), re.MULTILINE))
    if len(found) != 1:
        raise ReleaseError(f"{name} must have one line like {pattern}, and has {len(found)}")
    return found[0][0], found[0][1]
