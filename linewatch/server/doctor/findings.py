"""The results of checks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Level = Literal["ok", "note", "warning", "error"]
"""`note`: nothing is wrong. `warning`: it works, and should be changed. `error`: something required does not work."""

_LEVELS: Final[tuple[Level, ...]] = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        what: what was checked, such as `Redis`.
        found: what is there, or what is wrong.
        remedy: what to do; None if there is nothing to do.
    """

    what: str
    level: Level
    found: str
    remedy: str | None = None


def worst(findings: Iterable[Finding]) -> Level:
    """Return the most serious level."""
    return max((finding.level for finding in findings), key=_LEVELS.index, default="ok")


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 1 if something required does not work, otherwise 0."""
    return int(worst(findings) == "error")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without the line breaks of a client library."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
