"""Determine the part or lot of images by their names: by a regular expression, or by a table."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


class InvalidGroups(ValueError):  # noqa: N818 - describes the fault
    """Images cannot be grouped as requested. The message is one line that explains why."""


@dataclass(frozen=True)
class GroupBy:
    """Determines the part or lot of an image: by a regular expression on its path, or by a column of a CSV file.

    Attributes:
        pattern: has at least one group, named or not; None if a table is used.
        table: a CSV file with a header; None if a pattern is used.
        column: the column of the table.
    """

    pattern: re.Pattern[str] | None = None
    table: Path | None = None
    column: str = ""

    @classmethod
    def parse(cls, text: str) -> "GroupBy":
        r"""Parse a regular expression such as `part(\d+)_`, or `FILE.csv:COLUMN`.

        Raises:
            InvalidGroups: the text is neither.
        """
        if match := re.fullmatch(r"(.+\.csv):(.+)", text, re.IGNORECASE):
            return cls(table=Path(match[1]), column=match[2].strip())
        if text.lower().endswith(".csv"):
            raise InvalidGroups(f"add the column that contains the part or lot: {text}:COLUMN")
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise InvalidGroups(f"'{text}' is not a valid regular expression: {error}") from error
        if pattern.groups == 0:
            raise InvalidGroups(rf"'{text}' has no group: put the part or lot in parentheses, as in part(\d+)_")
        return cls(pattern=pattern)


def names_of_parts(paths: Sequence[Path], root: Path, by: GroupBy) -> list[str]:
    """Return the part or lot of each image.

    Args:
        paths: of the images.
        root: the folder that their names are relative to.
        by: determines the part or lot.

    Raises:
        InvalidGroups: an image's part or lot cannot be determined.
        OSError: the table cannot be read.
    """
    relative = [path.relative_to(root).as_posix() for path in paths]
    if by.pattern is not None:
        names = [_match(by.pattern, name) for name in relative]
        source = f"'{by.pattern.pattern}'"
    else:
        table = _read_table(by)
        names = [table.get(name) for name in relative]
        source = f"{by.table}, column {by.column!r},"
    missing = [path for path, name in zip(relative, names, strict=True) if name is None]
    if missing:
        count = "none" if len(missing) == len(relative) else f"{len(relative) - len(missing)}"
        raise InvalidGroups(
            f"{source} gives the part or lot of {count} of the {len(relative)} images, but not, for example, of "
            f"{missing[0]}: every image needs one"
        )
    return [name for name in names if name is not None]


def _match(pattern: re.Pattern[str], name: str) -> str | None:
    match = pattern.search(name)
    return None if match is None else match[next(iter(pattern.groupindex.values()), 1)]


class _Table:
    """Values by image name. A name in the table matches a path with more or fewer leading folders."""

    def __init__(self, rows: dict[str, str], file: Path) -> None:
        self._rows = rows
        self._file = file
        self._by_end: dict[str, set[str]] = {}
        for name, value in rows.items():
            self._by_end.setdefault(PurePosixPath(name).name, set()).add(value)

    def get(self, path: str) -> str | None:
        """Return the value for an image by its path relative to the folder, or None."""
        parts = PurePosixPath(path).parts
        for start in range(len(parts)):
            if (value := self._rows.get("/".join(parts[start:]))) is not None:
                return value
        values = self._by_end.get(parts[-1], set())
        if len(values) > 1:
            raise InvalidGroups(f"{self._file} has several images named {parts[-1]}, but not {path}")
        return next(iter(values), None)


def _read_table(by: GroupBy) -> _Table:
    file = by.table
    assert file is not None  # noqa: S101 - a GroupBy has a pattern or a table
    if not file.is_file():
        raise InvalidGroups(f"{file} does not exist")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns = list(reader.fieldnames or [])
            if by.column not in columns:
                raise InvalidGroups(f"{file} has no column {by.column!r}, only {', '.join(columns) or 'none'}")
            name_column = next((name for name in ("file", "path") if name in columns), columns[0])
            rows = _rows(((row[name_column] or "", row[by.column] or "") for row in reader), file)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidGroups(f"{file} is not a CSV file in UTF-8: {error}") from error
    return _Table(rows, file)


def _rows(pairs: Iterator[tuple[str, str]], file: Path) -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, value in pairs:
        if not value.strip():
            continue  # `names_of_parts` reports the image
        key = PurePosixPath(name.strip().replace("\\", "/")).as_posix()
        if rows.setdefault(key, value.strip()) != value.strip():
            raise InvalidGroups(f"{file} lists {key} twice, with different parts or lots")
    return rows
