"""The state of an image's file, by which a changed file is recognised."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stamp:
    """An image's file at one time; a changed file has another stamp. `name` is relative to the folder, with `/`."""

    name: str
    size: int
    mtime_ns: int
