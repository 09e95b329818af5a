"""Find near-duplicates: images that show the same shot of the same part up to noise.

Images with similar spectra are compared in detail (`core.vision.training.same_shot`). A pair counts if it differs by no
more than noise, and if it is also much more alike than its images are to the most similar others of the set: where
parts of one kind differ by no more than noise anyway, looks say nothing about which images show the same part.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from core.vision.input.spectra import Spectra
from core.vision.training.labels import Labels, link, merge
from core.vision.training.neighbours import Indices, Neighbours, find_neighbours
from core.vision.training.same_shot import Comparison, Detail, Pixels, compare, make_detail

STANDS_OUT: Final = 0.4
"""A group stands out if its images differ by at most this fraction of the difference to any other image.

Of different parts, the most alike are above 0.65 in solar cells, 0.39 in fabric, 0.34 in bottles and 0.24 in screws, of
which those in `core.vision.training.same_shot` remain; repeated shots are below 0.46 in solar cells, mostly 0.2.
"""
_LARGEST_SHARE: Final = 0.25
_MOST_SHOTS: Final = 16
"""Groups are not believed if the group of an image has more images than this on average: parts in few poses look so."""
_PER_IMAGE: Final = 3
_MOST_PAIRS: Final = 1500
_ROUNDS: Final = 3
_SAMPLE: Final = 24
_PRECISION: Final = 0.95
_TINY: Final = 1e-9
_CHUNK: Final = 32
_KEPT: Final = 128


@dataclass(frozen=True)
class Looks:
    """What N images look like.

    Attributes:
        spectra: float16, (N, D); see `core.vision.input.spectra.make_spectrum`.
        pictures: yields the images with these indices, in this order: grey, float32, (height, width), 0 to 255. All
            have the same scale, and whatever size.
    """

    spectra: Spectra
    pictures: Callable[[Sequence[int]], Iterator[Pixels]]


@dataclass(frozen=True)
class Pair:
    """Two images of different content that count as shots of one part.

    Attributes:
        first, second: their indices.
        similarity: the share of their detail that is common to both, 0 to 1.
    """

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class NearDuplicates:
    """The near-duplicates among N images.

    Attributes:
        labels: int32, (N,): the same for all images of a group.
        pairs: the pairs that the groups consist of, most similar first.
        doubtful: how many images were not grouped because too many look alike.
        alike: whether even different images mostly differ by no more than noise.
    """

    labels: Labels
    pairs: list[Pair]
    doubtful: int
    alike: bool


def find_near_duplicates(looks: Looks) -> NearDuplicates:
    """Group images of different content that are near-duplicates, by single linkage."""
    count = len(looks.spectra)
    neighbours = find_neighbours(looks.spectra)
    candidates, fractions = neighbours.candidates(_PER_IMAGE)
    order = _by_component(count, candidates, fractions)
    candidates, fractions = candidates[order], fractions[order]
    compared = _Compared(looks, count)
    compared.add(candidates[:_MOST_PAIRS])
    compared.add_outsiders(neighbours)
    labels, doubtful = compared.groups()
    alike = _mostly_same(compared, neighbours, labels)
    labels = _extended(labels, candidates, fractions)
    sizes = np.bincount(labels)
    if float((sizes**2).sum()) > _MOST_SHOTS * count:
        doubtful += int(sizes[sizes > 1].sum())
        labels = np.arange(count, dtype=np.int32)
    return NearDuplicates(labels, compared.pairs_within(labels), doubtful, alike)


class _Compared:
    """Pairs of images and what their comparison found."""

    def __init__(self, looks: Looks, count: int) -> None:
        self._looks = looks
        self._count = count
        self._found: dict[tuple[int, int], Comparison] = {}

    def add(self, pairs: Indices) -> None:
        """Compare pairs, (P, 2). Pairs that share images follow one another, so few images are read twice."""
        new = [(int(low), int(high)) for low, high in _in_band_order(self._count, pairs)]
        kept: dict[int, Detail] = {}
        for chunk in _chunks([pair for pair in new if pair not in self._found]):
            missing = [index for index in dict.fromkeys(index for pair in chunk for index in pair) if index not in kept]
            kept |= zip(missing, map(make_detail, self._looks.pictures(missing)), strict=True)
            self._found |= {pair: compare(kept[pair[0]], kept[pair[1]]) for pair in chunk}
            for index in list(kept)[: max(0, len(kept) - _KEPT)]:
                del kept[index]

    def add_outsiders(self, neighbours: Neighbours) -> None:
        """Compare the images of each group with the most similar ones outside, until that changes no group."""
        for _ in range(_ROUNDS):
            before = len(self._found)
            labels, _ = self.groups(unless_compared=True)
            number = max(1, _MOST_PAIRS // max(1, int((np.bincount(labels) > 1).sum())))
            outsiders = [pair for group in _members(labels)[:_MOST_PAIRS] for pair in _outsiders(group, neighbours, number)]
            self.add(np.array(outsiders, dtype=np.intp).reshape(-1, 2))
            if len(self._found) == before:
                return

    def groups(self, *, unless_compared: bool = False) -> tuple[Labels, int]:
        """Return the groups that stand out, and the number of images in those that are too large to be believed.

        Args:
            unless_compared: whether images that were compared with no others stand out.
        """
        pairs = np.array(list(self._found), dtype=np.intp).reshape(-1, 2)
        same, residuals, disagreements = (
            np.array([getattr(found, name) for found in self._found.values()])
            for name in ("same", "residual", "disagreement")
        )
        labels = np.arange(self._count, dtype=np.int32)
        large = np.zeros(self._count, dtype=bool)
        for values in (residuals, disagreements):
            groups, too_large = _standing_out(self._count, pairs, same, values, unless_compared=unless_compared)
            labels = merge(labels, groups)
            large |= too_large
        return labels, int(large.sum())

    def same(self, pairs: Indices) -> NDArray[np.bool_]:
        """Compare pairs, and return which differ by no more than noise."""
        self.add(pairs)
        return np.array([self._found[int(low), int(high)].same for low, high in pairs], dtype=bool)

    def pairs_within(self, labels: Labels) -> list[Pair]:
        """Return the pairs that were compared, found the same and grouped, most similar first."""
        grouped = [
            Pair(low, high, 1 - found.residual)
            for (low, high), found in self._found.items()
            if found.same and labels[low] == labels[high]
        ]
        return sorted(grouped, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _by_component(count: int, pairs: Indices, fractions: NDArray[np.float32]) -> Indices:
    """Return the order of the candidates: small components first, each whole, and its most similar pairs first.

    If there are too many, the first ones show up to which similarity candidates are shots of the same part.
    """
    components = link(count, pairs)[pairs[:, 0]]
    sizes = np.bincount(components, minlength=count)
    shuffled = np.random.default_rng(0).permutation(count)
    return np.lexsort((fractions, shuffled[components], sizes[components]))


def _in_band_order(count: int, pairs: Indices) -> Indices:
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    place = np.argsort(reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True))
    return pairs[np.argsort(place[pairs].max(axis=1), kind="stable")]


def _chunks(pairs: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(pairs), _CHUNK):
        yield pairs[start : start + _CHUNK]


def _members(labels: Labels) -> list[Indices]:
    """Return the indices of the images of each group of several."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [group for group in groups if len(group) > 1]


def _outsiders(group: Indices, neighbours: Neighbours, number: int) -> list[tuple[int, int]]:
    """Return up to `number` pairs of an image of the group and one outside, most similar first.

    If all neighbours of its images are in the group, any others are taken.
    """
    count = len(neighbours.indices)
    near = neighbours.indices[group]
    outside = ~np.isin(near, group) & np.isfinite(neighbours.distances[group])
    rows, columns = np.nonzero(outside)
    order = np.argsort(neighbours.distances[group][rows, columns], kind="stable")[:number]
    pairs = [_ascending(int(group[row]), int(near[row, column])) for row, column in zip(rows[order], columns[order], strict=True)]
    others = np.linspace(0, count - 1, 2 * len(group) + 2, dtype=np.intp)
    return pairs or [_ascending(int(group[0]), int(other)) for other in others[~np.isin(others, group)][:number]]


def _ascending(index: int, other: int) -> tuple[int, int]:
    return min(index, other), max(index, other)


def _standing_out(
    count: int, pairs: Indices, same: NDArray[np.bool_], values: NDArray[np.float64], *, unless_compared: bool
) -> tuple[Labels, NDArray[np.bool_]]:
    """Find the groups that stand out; of groups within groups, those that stand out most.

    Args:
        count: the number of images.
        pairs: (P, 2), the pairs that were compared.
        same: (P,), whether each differs by no more than noise; only such pairs connect a group.
        values: (P,), how much each differs.
        unless_compared: whether images that were compared with no others stand out.

    Returns:
        The labels, and for each image whether it is in a group that stands out but is too large to be believed.
    """
    largest = max(2, int(_LARGEST_SHARE * count))
    groups, clusters = np.arange(count, dtype=np.int32), np.arange(count, dtype=np.int32)
    ratios = np.full(count, np.inf)
    large = np.zeros(count, dtype=bool)
    for index in np.argsort(values, kind="stable"):
        low, high = clusters[pairs[index]]
        if not same[index] or low == high:
            continue
        clusters[clusters == high] = low
        members = clusters == low
        inside = members[pairs]
        leaving = values[inside[:, 0] != inside[:, 1]]
        ratio = values[index] / max(leaving.min(initial=np.inf), _TINY)
        if ratio > min(STANDS_OUT, ratios[members].min()) or not (unless_compared or len(leaving)):
            continue
        ratios[members] = ratio
        if members.sum() <= largest:
            groups[members] = low
        else:
            large |= members
    return groups, large


def _mostly_same(compared: _Compared, neighbours: Neighbours, labels: Labels) -> bool:
    """Return whether most images of a sample differ by no more than noise from the most similar one of another group."""
    if neighbours.indices.shape[1] == 0:
        return False
    pairs = []
    for index in np.unique(np.linspace(0, len(labels) - 1, _SAMPLE, dtype=np.intp)):
        others = neighbours.indices[index][labels[neighbours.indices[index]] != labels[index]]
        pairs += [_ascending(int(index), int(other)) for other in others[:1]]
    return len(pairs) > 0 and float(compared.same(np.array(pairs, dtype=np.intp)).mean()) >= 0.5


def _extended(labels: Labels, candidates: Indices, fractions: NDArray[np.float32]) -> Labels:
    """Group the candidates beyond the first `_MOST_PAIRS`, too, if nearly all equally similar ones were grouped."""
    if len(candidates) <= _MOST_PAIRS:
        return labels
    grouped = labels[candidates[:_MOST_PAIRS, 0]] == labels[candidates[:_MOST_PAIRS, 1]]
    order = np.argsort(fractions[:_MOST_PAIRS], kind="stable")
    precision = np.cumsum(grouped[order]) / np.arange(1, _MOST_PAIRS + 1)
    precise = np.flatnonzero(precision >= _PRECISION)
    if len(precise) == 0:
        return labels
    limit = fractions[order[precise[-1]]]
    more = candidates[_MOST_PAIRS:][fractions[_MOST_PAIRS:] <= limit]
    return merge(labels, link(len(labels), more))
