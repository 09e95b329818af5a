"""Group images that belong together: copies, shots of the same part, parts of the same lot. A split keeps groups whole.

If images of a part are used both for training and for calibration, the threshold is too low. Without information on
which images show the same part, images count as such if they are much more alike than images of the set usually are.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from core.vision.input.thumbnails import Thumbnails

ALIKE: Final = 0.25
"""Images count as shots of the same part if their distance is below this fraction of the usual one, both in the set and
among their neighbours.

Measured on rendered parts with individual grain: different parts are above 0.7, shots of the same part at 0.1 to 0.3.
"""

_LARGEST_SHARE = 0.25
_SAMPLE = 1000
_BLOCK = 512
_EXACT = 8000  # up to this many images, all distances are computed
_CELL = 2048
_NEIGHBOUR = 50
_DRAWINGS = 3
_FLOOR = 0.02

Labels = NDArray[np.int32]
Edges = tuple[NDArray[np.intp], NDArray[np.intp]]


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


@dataclass(frozen=True)
class Grouping:
    """The groups of N images.

    Attributes:
        groups: the group of each image; groups are numbered from 0 in the order of their first images.
        near_duplicates: the number of images that are grouped with a different image because they look alike.
        notes: lines for people.
    """

    groups: list[int]
    near_duplicates: int
    notes: list[str]

    @property
    def count(self) -> int:
        """The number of groups."""
        return len(set(self.groups))


def group_parts(
    paths: Sequence[Path], root: Path, digests: Sequence[str], thumbnails: Thumbnails, by: GroupBy | None
) -> Grouping:
    """Group N images by part or lot, or by similarity if `by` is None. Identical files are always grouped.

    Args:
        paths: of the images.
        root: the folder that their names are relative to.
        digests: of their contents.
        thumbnails: float32, (N, D), 0 to 255; see `core.vision.input.thumbnails.make_thumbnails`.
        by: determines the part or lot; None to look for near-duplicates.

    Raises:
        InvalidGroups: an image's part or lot cannot be determined.
        OSError: the table cannot be read.
    """
    copies = _numbered(digests)
    if by is not None:
        groups = _numbered(_merge(copies, _numbered(_names(paths, root, by))).tolist())
        return Grouping(groups.tolist(), 0, _group_notes(groups, copies))
    alike = _numbered(_near_duplicates(thumbnails, copies).tolist())
    largest = int(np.bincount(alike).max(initial=0))
    contents = [len(np.unique(copies[alike == group])) for group in np.flatnonzero(np.bincount(alike) > 1)]
    if sum(count > 1 for count in contents) == 0:
        return Grouping(copies.tolist(), 0, [])
    if largest > _LARGEST_SHARE * len(paths):
        note = (
            f"the images are so alike that {largest} of {len(paths)} would count as one part, so near-duplicates "
            "are not grouped: if there are several images of a part, name its images with --group-by"
        )
        return Grouping(copies.tolist(), 0, [note])
    return _of_near_duplicates(alike, copies)


def _numbered(names: Sequence[Any]) -> Labels:
    """Number the names from 0 in the order in which they first appear; equal names get the same number."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int32)


def _merge(labels: Labels, others: Labels) -> Labels:
    """Return groups that contain together what either of the labels groups."""
    first = {label: index for index, label in reversed(list(enumerate(others.tolist())))}
    edges = (np.arange(len(others)), np.array([first[label] for label in others.tolist()], dtype=np.intp))
    return _link(labels, edges)


def _link(labels: Labels, edges: Edges) -> Labels:
    """Return the labels after the two images of each edge were grouped."""
    if len(edges[0]) == 0:
        return labels
    count = len(labels)
    ends = labels[edges[0]], labels[edges[1]]
    graph = coo_matrix((np.ones(len(ends[0]), dtype=bool), ends), shape=(count, count))
    components: Labels = connected_components(graph, directed=False)[1]
    return components[labels]


def _group_notes(groups: Labels, copies: Labels) -> list[str]:
    if len(np.unique(groups)) == len(np.unique(copies)) > 1 and len(groups) > 1:
        return ["--group-by puts no two different images together: check that it matches the part or lot"]
    return []


def _of_near_duplicates(alike: Labels, copies: Labels) -> Grouping:
    pairs = np.unique(np.stack([alike, copies]), axis=1)[0]
    mixed = np.flatnonzero(np.bincount(pairs) > 1)  # groups with different images
    count = int(np.isin(alike, mixed).sum())
    note = (
        f"{count} of {len(alike)} images look like several shots of the same parts, in {len(mixed)} groups: each "
        "group stays together in the split; name the images of a part or lot with --group-by"
    )
    return Grouping(alike.tolist(), count, [note])


# By name


def _names(paths: Sequence[Path], root: Path, by: GroupBy) -> list[str]:
    """Return the part or lot of each image."""
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
            continue  # `_names` reports the image
        key = PurePosixPath(name.strip().replace("\\", "/")).as_posix()
        if rows.setdefault(key, value.strip()) != value.strip():
            raise InvalidGroups(f"{file} lists {key} twice, with different parts or lots")
    return rows


# By looks


def _near_duplicates(thumbnails: Thumbnails, copies: Labels) -> Labels:
    """Group near-duplicates by single linkage: images that are connected by a chain of close pairs belong together."""
    count = len(thumbnails)
    if count < 2:
        return copies
    features = _features(thumbnails)
    reach = ALIKE * _median_distance(features)
    if reach == 0:
        return copies
    labels = copies
    for edges in _close_pairs(features, reach) if count <= _EXACT else _close_within_cells(features, reach):
        labels = _link(labels, edges)
    return labels


def _features(thumbnails: Thumbnails) -> NDArray[np.float32]:
    """Return thumbnails without their brightness, on principal axes, largest first, partly scaled to equal variance.

    Without the scaling, a single property that varies from image to image, such as the position of the part or the
    light, would determine the distances; and among many parts, some agree in one property by chance.
    """
    centred = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    centred -= centred.mean(axis=0)
    size = centred.shape[1]
    covariance = np.zeros((size, size))
    for start in range(0, len(centred), _EXACT):
        block = centred[start : start + _EXACT].astype(np.float64)
        covariance += block.T @ block / len(centred)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1].clip(min=0), axes[:, ::-1]
    if variances.sum() == 0:
        return np.zeros_like(centred)
    scale = (variances + _FLOOR * variances.sum()) ** 0.25
    features: NDArray[np.float32] = centred @ (axes / scale).astype(np.float32)
    return features


def _median_distance(features: NDArray[np.float32]) -> float:
    """Return the median distance between two images, of a random sample if there are more than a thousand."""
    sample = features
    if len(features) > _SAMPLE:
        sample = features[np.random.default_rng(0).choice(len(features), _SAMPLE, replace=False)]
    pairs = np.triu_indices(len(sample), 1)
    return float(np.sqrt(np.median(_squares(sample, sample)[pairs])))


def _squares(features: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the squared distances between all rows of both."""
    lengths = (features**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None, :]
    squares: NDArray[np.float32] = np.maximum(lengths - 2 * features @ others.T, 0)
    return squares


def _reaches(squares: NDArray[np.float32], reach: float) -> NDArray[np.float32]:
    """Return the squared reach of each image from its squared distances to all others.

    It is at most `ALIKE` times the distance to one of its nearest neighbours: if one kind of part varies less than
    others, its images are close to each other without being shots of the same part.
    """
    neighbour = min(_NEIGHBOUR, squares.shape[1] // 2)
    usual = np.partition(squares, neighbour, axis=1)[:, neighbour]
    reaches: NDArray[np.float32] = np.minimum(reach**2, ALIKE**2 * usual)
    return reaches


def _close_pairs(features: NDArray[np.float32], reach: float) -> Iterator[Edges]:
    """Yield all pairs within reach of each other, in blocks that limit the memory."""
    starts = range(0, len(features), _BLOCK)
    reaches = np.concatenate(
        [_reaches(_squares(features[start : start + _BLOCK], features), reach) for start in starts]
    )
    for start in starts:
        squares = _squares(features[start : start + _BLOCK], features[start:])
        row_reaches, column_reaches = reaches[start : start + _BLOCK, None], reaches[None, start:]
        rows, columns = np.nonzero(squares < np.minimum(row_reaches, column_reaches))
        yield rows + start, columns + start


def _close_within_cells(features: NDArray[np.float32], reach: float) -> Iterator[Edges]:
    """Yield pairs within reach of each other in the same cell: the images nearest to one of at most √N random images.

    A cell has enough images to determine the usual distance in it. Cells are drawn `_DRAWINGS` times, because a pair is
    rarely separated by all drawings. An image is compared with at most `_CELL` others at a time, so N images need at
    most N · (√N + `_CELL`) comparisons per drawing.
    """
    random = np.random.default_rng(0)
    number = max(1, min(int(len(features) ** 0.5), len(features) // (4 * _NEIGHBOUR)))
    for _ in range(_DRAWINGS):
        centres = features[random.choice(len(features), number, replace=False)]
        blocks = [features[start : start + _BLOCK] for start in range(0, len(features), _BLOCK)]
        cells = np.concatenate([_squares(block, centres).argmin(axis=1) for block in blocks])
        order = np.lexsort((features[:, 0], cells))
        ends = []
        for cell in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
            ends += [
                _linked_pairs(features, cell[start : start + _CELL], reach) for start in range(0, len(cell), _CELL)
            ]
        yield np.concatenate([left for left, _ in ends]), np.concatenate([right for _, right in ends])


def _linked_pairs(features: NDArray[np.float32], indices: NDArray[np.intp], reach: float) -> Edges:
    """Return an edge from each of these images to the first one that a chain of close pairs connects it to."""
    squares = _squares(features[indices], features[indices])
    reaches = _reaches(squares, reach)
    near = squares < np.minimum(reaches[:, None], reaches[None, :])
    component = connected_components(near, directed=False)[1]
    first = np.unique(component, return_index=True)[1]
    return indices, indices[first[component]]
