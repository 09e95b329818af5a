"""Which images belong together: copies, shots of one part, parts of one lot. A group is never torn apart by a split.

A part that is trained on and also calibrated with flatters the threshold. Where nobody says which images show the
same part, those that are much more alike than the set's images usually are count as such.
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
"""Two images closer than this fraction of what is usual, in the set and around them, count as shots of one part.

Tried on rendered parts: where each has its own grain, different ones lie above 0.7 and shots of one at 0.1 to 0.3."""

_LARGEST_SHARE = 0.25
_SAMPLE = 1000
_BLOCK = 512
_EXACT = 8000  # images whose distances are all computed
_CELL = 2048
_NEIGHBOUR = 50
_DRAWINGS = 3
_FLOOR = 0.02

Labels = NDArray[np.int32]
Edges = tuple[NDArray[np.intp], NDArray[np.intp]]


class InvalidGroups(ValueError):  # noqa: N818 - it reads as what it is
    """Images cannot be grouped as requested; the message is one line that says why."""


@dataclass(frozen=True)
class GroupBy:
    """What names the part or lot of an image: a regular expression on its path, or a column of a CSV file.

    Attributes:
        pattern: with a group, named or not; None where a table is used.
        table: a CSV file with a header; None where a pattern is used.
        column: of the table.
    """

    pattern: re.Pattern[str] | None = None
    table: Path | None = None
    column: str = ""

    @classmethod
    def parse(cls, text: str) -> "GroupBy":
        r"""Read `part(\d+)_` or `FILE.csv:COLUMN`.

        Raises:
            InvalidGroups: it is neither.
        """
        if found := re.fullmatch(r"(.+\.csv):(.+)", text, re.IGNORECASE):
            return cls(table=Path(found[1]), column=found[2].strip())
        if text.lower().endswith(".csv"):
            raise InvalidGroups(f"{text} lacks the column that names the part or lot: {text}:COLUMN")
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise InvalidGroups(f"'{text}' is no regular expression: {error}") from error
        if pattern.groups == 0:
            raise InvalidGroups(rf"'{text}' has no group that holds the part or lot: put it in parentheses, part(\d+)_")
        return cls(pattern=pattern)


@dataclass(frozen=True)
class Grouping:
    """What belongs together among N images.

    Attributes:
        groups: the group of each image, counted from 0 in the order of their first images.
        near_duplicates: images that share a group with an image of other contents because they look alike.
        notes: lines for people.
    """

    groups: list[int]
    near_duplicates: int
    notes: list[str]

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(set(self.groups))


def group_parts(
    paths: Sequence[Path], root: Path, digests: Sequence[str], thumbnails: Thumbnails, by: GroupBy | None
) -> Grouping:
    """Group N images: by what names their part or lot, or, where nothing does, by how they look.

    Images with the same contents always belong together.

    Args:
        paths, root: of the images, and the folder that their names are relative to.
        digests: of their contents.
        thumbnails: float32, (N, D), 0 to 255; see `core.vision.input.thumbnails.make_thumbnails`.
        by: what names the part or lot; None to look for near-duplicates.

    Raises:
        InvalidGroups: an image's part or lot cannot be determined.
        OSError: the table cannot be read.
    """
    copies = _numbered(digests)
    if by is not None:
        groups = _numbered(_joined(copies, _numbered(_names(paths, root, by))).tolist())
        return Grouping(groups.tolist(), 0, _group_notes(groups, copies))
    alike = _numbered(_near_duplicates(thumbnails, copies).tolist())
    largest = int(np.bincount(alike).max(initial=0))
    contents = [len(np.unique(copies[alike == group])) for group in np.flatnonzero(np.bincount(alike) > 1)]
    if sum(count > 1 for count in contents) == 0:
        return Grouping(copies.tolist(), 0, [])
    if largest > _LARGEST_SHARE * len(paths):
        note = (
            f"the images are so alike that {largest} of {len(paths)} would count as one part, so near-duplicates "
            "are not kept together: where there are several images of a part, say which with --group-by"
        )
        return Grouping(copies.tolist(), 0, [note])
    return _of_near_duplicates(alike, copies)


def effective_sample_size(groups: Sequence[int]) -> float:
    """How many independent parts N images in groups are worth at least: N² / Σ (size of each group)².

    It is Kish's effective sample size where images of a group tell no more than one of them (Kish, "Survey
    Sampling", Wiley 1965, sections 5.4 and 8.2: design effect 1 + (size - 1) · correlation, with the correlation 1):
    conservative. N where each is a group of its own, the number of groups where all are of one size.
    """
    sizes = np.unique(np.asarray(groups), return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _numbered(names: Sequence[Any]) -> Labels:
    """The same number for the same name, counted from 0 in the order in which they first appear."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int32)


def _joined(labels: Labels, more: Labels) -> Labels:
    """Groups in which everything is together that either of the labels puts together."""
    first = {label: index for index, label in reversed(list(enumerate(more.tolist())))}
    return _linked(labels, (np.arange(len(more)), np.array([first[label] for label in more.tolist()], dtype=np.intp)))


def _linked(labels: Labels, edges: Edges) -> Labels:
    """The labels once the images of each edge belong together."""
    if len(edges[0]) == 0:
        return labels
    count = len(labels)
    ends = labels[edges[0]], labels[edges[1]]
    graph = coo_matrix((np.ones(len(ends[0]), dtype=bool), ends), shape=(count, count))
    components: Labels = connected_components(graph, directed=False)[1]
    return components[labels]


def _group_notes(groups: Labels, copies: Labels) -> list[str]:
    if len(np.unique(groups)) == len(np.unique(copies)) > 1 and len(groups) > 1:
        return ["--group-by puts no two different images together: is it what names the part or lot?"]
    return []


def _of_near_duplicates(alike: Labels, copies: Labels) -> Grouping:
    pairs = np.unique(np.stack([alike, copies]), axis=1)[0]
    mixed = np.flatnonzero(np.bincount(pairs) > 1)  # groups with more than one content
    count = int(np.isin(alike, mixed).sum())
    note = (
        f"{count} of {len(alike)} images look like several shots of the same parts, in {len(mixed)} groups: each "
        "group is kept on one side of the split; say which images show the same part, or lot, with --group-by"
    )
    return Grouping(alike.tolist(), count, [note])


# By name


def _names(paths: Sequence[Path], root: Path, by: GroupBy) -> list[str]:
    """The part or lot of each image."""
    relative = [path.relative_to(root).as_posix() for path in paths]
    if by.pattern is not None:
        names = [_matched(by.pattern, name) for name in relative]
        what = f"'{by.pattern.pattern}'"
    else:
        known = _table(by)
        names = [known.get(name) for name in relative]
        what = f"{by.table}, column {by.column!r},"
    missing = [path for path, name in zip(relative, names, strict=True) if name is None]
    if missing:
        how_many = "none" if len(missing) == len(relative) else f"{len(relative) - len(missing)}"
        raise InvalidGroups(
            f"{what} tells the part or lot of {how_many} of the {len(relative)} images; not, for example, of "
            f"{missing[0]}: every image needs one"
        )
    return [name for name in names if name is not None]


def _matched(pattern: re.Pattern[str], name: str) -> str | None:
    found = pattern.search(name)
    return None if found is None else found[next(iter(pattern.groupindex.values()), 1)]


class _Table:
    """Values by the names of images: a name may leave out the folders above, in the table or in the folder."""

    def __init__(self, rows: dict[str, str], file: Path) -> None:
        self._rows = rows
        self._file = file
        self._by_end: dict[str, set[str]] = {}
        for name, value in rows.items():
            self._by_end.setdefault(PurePosixPath(name).name, set()).add(value)

    def get(self, path: str) -> str | None:
        """The value for an image, by its path relative to the folder; None where there is none."""
        parts = PurePosixPath(path).parts
        for start in range(len(parts)):
            if (value := self._rows.get("/".join(parts[start:]))) is not None:
                return value
        values = self._by_end.get(parts[-1], set())
        if len(values) > 1:
            raise InvalidGroups(f"{self._file} holds several images {parts[-1]}, and none of them is {path}")
        return next(iter(values), None)


def _table(by: GroupBy) -> _Table:
    file = by.table
    assert file is not None  # noqa: S101 - a GroupBy has a pattern or a table
    if not file.is_file():
        raise InvalidGroups(f"there is no {file}")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            columns = list(reader.fieldnames or [])
            if by.column not in columns:
                raise InvalidGroups(f"{file} has no column {by.column!r}, only {', '.join(columns) or 'none'}")
            naming = next((name for name in ("file", "path") if name in columns), columns[0])
            rows = _rows(((row[naming] or "", row[by.column] or "") for row in reader), file)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InvalidGroups(f"{file} is no CSV file in UTF-8: {error}") from error
    return _Table(rows, file)


def _rows(pairs: Iterator[tuple[str, str]], file: Path) -> dict[str, str]:
    rows: dict[str, str] = {}
    for name, value in pairs:
        if not value.strip():
            continue  # the image will be reported as one without a part
        key = PurePosixPath(name.strip().replace("\\", "/")).as_posix()
        if rows.setdefault(key, value.strip()) != value.strip():
            raise InvalidGroups(f"{file} names {key} twice, with different parts or lots")
    return rows


# By looks


def _near_duplicates(thumbnails: Thumbnails, copies: Labels) -> Labels:
    """Single linkage: images belong together where a chain of pairs leads from one to the other."""
    count = len(thumbnails)
    if count < 2:
        return copies
    seen = _features(thumbnails)
    reach = ALIKE * _median_distance(seen)
    if reach == 0:
        return copies
    labels = copies
    for edges in _close_pairs(seen, reach) if count <= _EXACT else _close_within_cells(seen, reach):
        labels = _linked(labels, edges)
    return labels


def _features(thumbnails: Thumbnails) -> NDArray[np.float32]:
    """Thumbnails without their brightness, on principal axes, the largest first, halfway to equal variance.

    Without it, one thing that varies from image to image (where the part lies, how the light falls) would decide
    alone who looks like whom, and some of many parts agree in one thing by chance.
    """
    centred = thumbnails - thumbnails.mean(axis=1, keepdims=True)
    centred -= centred.mean(axis=0)
    size = centred.shape[1]
    covariance = np.zeros((size, size))
    for start in range(0, len(centred), _EXACT):
        some = centred[start : start + _EXACT].astype(np.float64)
        covariance += some.T @ some / len(centred)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1].clip(min=0), axes[:, ::-1]
    if variances.sum() == 0:
        return np.zeros_like(centred)
    scale = (variances + _FLOOR * variances.sum()) ** 0.25
    features: NDArray[np.float32] = centred @ (axes / scale).astype(np.float32)
    return features


def _median_distance(seen: NDArray[np.float32]) -> float:
    """Between two images, of a thousand drawn by chance where there are more."""
    some = seen
    if len(seen) > _SAMPLE:
        some = seen[np.random.default_rng(0).choice(len(seen), _SAMPLE, replace=False)]
    above = np.triu_indices(len(some), 1)
    return float(np.sqrt(np.median(_squares(some, some)[above])))


def _squares(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None, :]
    squares: NDArray[np.float32] = np.maximum(lengths - 2 * some @ others.T, 0)
    return squares


def _reaches(squares: NDArray[np.float32], reach: float) -> NDArray[np.float32]:
    """How far, squared, each of some images reaches, from its squared distances to all others.

    No further than `ALIKE` times its distance to one of its next neighbours: where one kind of part varies less than
    the others, its images are near each other without being shots of one part.
    """
    neighbour = min(_NEIGHBOUR, squares.shape[1] // 2)
    usual = np.partition(squares, neighbour, axis=1)[:, neighbour]
    reaches: NDArray[np.float32] = np.minimum(reach**2, ALIKE**2 * usual)
    return reaches


def _close_pairs(seen: NDArray[np.float32], reach: float) -> Iterator[Edges]:
    """All pairs within reach of each other, in blocks that do not fill the memory."""
    starts = range(0, len(seen), _BLOCK)
    reaches = np.concatenate([_reaches(_squares(seen[start : start + _BLOCK], seen), reach) for start in starts])
    for start in starts:
        squares = _squares(seen[start : start + _BLOCK], seen[start:])
        own, other = reaches[start : start + _BLOCK, None], reaches[None, start:]
        rows, columns = np.nonzero(squares < np.minimum(own, other))
        yield rows + start, columns + start


def _close_within_cells(seen: NDArray[np.float32], reach: float) -> Iterator[Edges]:
    """Pairs within reach of each other in one cell: what is nearest to one of at most √N images drawn by chance.

    A cell holds enough to tell what is usual in it. Cells are drawn anew a few times: a pair that one drawing has
    torn apart is seldom torn by all. Nobody is compared with more than `_CELL` others a time, so N images take
    N · (√N + `_CELL`) comparisons a drawing at most.
    """
    random = np.random.default_rng(0)
    number = max(1, min(int(len(seen) ** 0.5), len(seen) // (4 * _NEIGHBOUR)))
    for _ in range(_DRAWINGS):
        centres = seen[random.choice(len(seen), number, replace=False)]
        blocks = [seen[start : start + _BLOCK] for start in range(0, len(seen), _BLOCK)]
        cells = np.concatenate([_squares(block, centres).argmin(axis=1) for block in blocks])
        order = np.lexsort((seen[:, 0], cells))
        ends = []
        for cell in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1):
            ends += [_chained(seen, cell[start : start + _CELL], reach) for start in range(0, len(cell), _CELL)]
        yield np.concatenate([one for one, _ in ends]), np.concatenate([other for _, other in ends])


def _chained(seen: NDArray[np.float32], some: NDArray[np.intp], reach: float) -> Edges:
    """Edges from each of some images to the first one that a chain of close pairs leads to."""
    squares = _squares(seen[some], seen[some])
    reaches = _reaches(squares, reach)
    near = squares < np.minimum(reaches[:, None], reaches[None, :])
    component = connected_components(near, directed=False)[1]
    first = np.unique(component, return_index=True)[1]
    return some, some[first[component]]
