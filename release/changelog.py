"""The changelog: what is not released yet becomes the section of a version."""

import datetime as dt
import re
from typing import Final

from release import ReleaseError

_UNRELEASED: Final = "## Unreleased"
_VERSION: Final = re.compile(r"^## (\d+\.\d+\.\d+)", re.MULTILINE)


def versions(text: str) -> list[str]:
    """Return the versions that have a section, in the order of the text."""
    return _VERSION.findall(text)


def unreleased(text: str) -> str:
    """Return what stands below "Unreleased".

    Raises:
        ReleaseError: the section is missing, stands there twice, or has no entry.
    """
    sections = re.findall(rf"^{_UNRELEASED}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if len(sections) != 1:
        raise ReleaseError(f"CHANGELOG.md must have one section {_UNRELEASED!r}, and has {len(sections)}")
    entries: str = sections[0].strip()
    if not re.search(r"^- \S", entries, re.MULTILINE):
        raise ReleaseError(f"CHANGELOG.md has nothing under {_UNRELEASED!r}: say first what changed")
    return entries


def released(text: str, version: str, day: dt.date) -> str:
    """Return the changelog with the unreleased entries as the section of the version, and nothing unreleased.

    Raises:
        ReleaseError: as `unreleased`.
    """
    unreleased(text)
    return re.sub(rf"^{_UNRELEASED}$", f"{_UNRELEASED}\n\n## {version} ({day})", text, count=1, flags=re.MULTILINE)
