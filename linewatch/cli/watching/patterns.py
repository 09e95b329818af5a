"""Patterns that read the fields of an image from the path of its file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

FIELDS: Final = ("recipe", "line_id", "station_id", "lot_id", "part_id", "view")
_PLACEHOLDER: Final = re.compile(r"(\{[^{}]*\}|\*)")
_ANYTHING: Final = "*"


@dataclass(frozen=True)
class _Segment:
    """A folder's or file's name: one more literal than placeholders, which stand between the literals."""

    literals: tuple[str, ...]
    placeholders: tuple[str, ...]

    def match(self, name: str) -> list[str] | None:
        """Return the text of each placeholder, or None. The time is linear in the length of the name.

        Each separator is looked for from the right, so that an earlier placeholder takes as much as it can.
        """
        if not self.placeholders:
            return [] if name == self.literals[0] else None
        first, *separators, last = self.literals
        rest = name[len(first) : len(name) - len(last)]
        if not rest or name != first + rest + last:
            return None
        texts = []
        for separator in reversed(separators):
            position = rest.rfind(separator, 1, len(rest) - 1)  # no placeholder is empty
            if position < 0:
                return None
            texts.append(rest[position + len(separator) :])
            rest = rest[:position]
        return [rest, *reversed(texts)]


@dataclass(frozen=True)
class PathPattern:
    """A pattern such as `{line_id}/{lot_id}/{part_id}_{view}.*`, for paths relative to a folder, with `/`.

    `{field}` reads a field and `*` is any text; neither is empty nor crosses a `/`.
    """

    text: str
    _segments: tuple[_Segment, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the pattern.

        Raises:
            ValueError: it is no pattern; the message says why.
        """
        segments = tuple(_parse_segment(segment) for segment in text.split("/"))
        names = [name for segment in segments for name in segment.placeholders if name != _ANYTHING]
        if not names:
            raise ValueError(f"it has no field: use {{part_id}} or another of {', '.join(FIELDS)}")
        for name in names:
            if name not in FIELDS:
                raise ValueError(f"{{{name}}} is not a field: use {', '.join(FIELDS)}, or * for any text")
            if names.count(name) > 1:
                raise ValueError(f"{{{name}}} is there twice: use * for the other one")
        return cls(text, segments)

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it reads."""
        return frozenset(name for segment in self._segments for name in segment.placeholders) - {_ANYTHING}

    def read(self, path: str) -> Mapping[str, str] | None:
        """Return the fields of a path; None if the path does not match."""
        names = path.split("/")
        if len(names) != len(self._segments):
            return None
        fields: dict[str, str] = {}
        for segment, name in zip(self._segments, names, strict=True):
            texts = segment.match(name)
            if texts is None:
                return None
            fields |= zip(segment.placeholders, texts, strict=True)
        fields.pop(_ANYTHING, None)
        return fields


def _parse_segment(segment: str) -> _Segment:
    if not segment:
        raise ValueError("a folder's name in it is empty: write it like {lot_id}/{part_id}.*, without a / at the ends")
    parts = _PLACEHOLDER.split(segment)
    literals, placeholders = tuple(parts[::2]), tuple(part.strip("{}") for part in parts[1::2])
    if any("{" in literal or "}" in literal for literal in literals):
        raise ValueError(f"{segment} has a brace without its pair: a field is written like {{part_id}}")
    if not all(literals[1:-1]):
        raise ValueError(f"{segment} has nothing between two fields: separate them, for example by _")
    return _Segment(literals, placeholders)
