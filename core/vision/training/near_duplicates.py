"""Find near-duplicates: images that show the same shot of the same part up to noise.

Images with similar spectra are compared in detail (`core.vision.training.same_shot`). A pair counts if it differs by no
more than noise, and if it is also much more alike than its images are to the most similar others of the set: where
parts of one kind differ by no more than noise anyway, looks say nothing about which images show the same part.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from core.vision.training.labels import Labels, link, merge
from core.vision.training.looks import Looks
from core.vision.training.neighbours import Indices, Neighbours, find_neighbours
from core.vision.training.same_shot import Comparison, Detail, compare, make_detail

STANDS_OUT: Final = 0.4
"""A group stands out if its images differ by at most this fraction of their difference to any other image.

Chosen on solar cells and drawn parts: shots with half as much noise as grain differ by 0.2 of what different parts do;
at 0.5, a few smooth parts that happened to lie alike were grouped.
"""
_LARGEST_SHARE: Final = 0.25
"""A group with a larger share of the images is not believed."""
_MOST_SHOTS: Final = 16
"""Groups are not believed if the group of an image has more images than this on average."""
_PER_IMAGE: Final = 3
"""How many neighbours an image is compared with, at most."""
_MOST_PAIRS: Final = 1500
_ROUNDS: Final = 3
_SAMPLE: Final = 24
_PRECISION: Final = 0.95
_TINY: Final = 1e-9
_CHUNK: Final = 32
_KEPT: Final = 128
_NO_PAIRS: Final = np.zeros((0, 2), dtype=np.intp)


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
    """Group images of different content that are near-duplicates, by single linkage.

    At most `_MOST_PAIRS` candidates are compared, and as many pairs again in each of `_ROUNDS` rounds.
    """
    count = len(looks.spectra)
    if count < 2:
        return NearDuplicates(np.arange(count, dtype=np.int32), [], 0, alike=False)
    neighbours = find_neighbours(looks.spectra)
    candidates, fractions = _by_component(count, *neighbours.candidates(_PER_IMAGE))
    compared = _Compared(looks, count)
    compared.add(candidates[:_MOST_PAIRS])
    compared.add_outsiders(neighbours)
    labels, doubtful = compared.groups()
    alike = compared.mostly_same(_sample_of_different(neighbours, labels))
    for proposed in (_extended(labels, candidates, fractions), labels):
        if _are_believable(proposed):
            return NearDuplicates(proposed, compared.pairs_within(proposed), doubtful, alike)
    doubtful += sum(map(len, _groups_of_several(labels)))
    return NearDuplicates(np.arange(count, dtype=np.int32), [], doubtful, alike)


class _Compared:
    """Pairs of images and what their comparison found."""

    def __init__(self, looks: Looks, count: int) -> None:
        self._looks = looks
        self._count = count
        self._found: dict[tuple[int, int], Comparison] = {}

    def add(self, pairs: Indices) -> None:
        """Compare pairs, (P, 2), that have not been compared yet."""
        ordered = _in_band_order(self._count, pairs).tolist()
        new = [pair for pair in dict.fromkeys((low, high) for low, high in ordered) if pair not in self._found]
        kept: dict[int, Detail] = {}
        for start in range(0, len(new), _CHUNK):
            chunk = new[start : start + _CHUNK]
            missing = [index for index in dict.fromkeys(index for pair in chunk for index in pair) if index not in kept]
            kept |= zip(missing, map(make_detail, self._looks.pixels(missing)), strict=True)
            self._found |= {(low, high): compare(kept[low], kept[high]) for low, high in chunk}
            for index in list(kept)[: max(0, len(kept) - _KEPT)]:
                del kept[index]

    def add_outsiders(self, neighbours: Neighbours) -> None:
        """Compare the images of each group with the most similar ones outside, until that changes no group."""
        for _ in range(_ROUNDS):
            before = len(self._found)
            groups = _groups_of_several(self.groups(unless_compared=True)[0])[:_MOST_PAIRS]
            number = _MOST_PAIRS // max(1, len(groups))
            self.add(np.concatenate([_NO_PAIRS, *(_outsiders(group, neighbours, number) for group in groups)]))
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

    def mostly_same(self, pairs: Indices) -> bool:
        """Compare pairs, and return whether at least half of them differ by no more than noise."""
        self.add(pairs)
        same = [self._found[low, high].same for low, high in pairs.tolist()]
        return len(same) > 0 and 2 * sum(same) >= len(same)

    def pairs_within(self, labels: Labels) -> list[Pair]:
        """Return the pairs that were compared, found the same and grouped, most similar first."""
        grouped = [
            Pair(low, high, 1 - found.residual)
            for (low, high), found in self._found.items()
            if found.same and labels[low] == labels[high]
        ]
        return sorted(grouped, key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _by_component(count: int, pairs: Indices, fractions: NDArray[np.float32]) -> tuple[Indices, NDArray[np.float32]]:
    """Order candidates: small components first, each whole, and its most similar pairs first.

    So if there are too many, the first ones show up to which fraction candidates are shots of the same part.
    """
    components = link(count, pairs)[pairs[:, 0]]
    sizes = np.bincount(components, minlength=count)
    shuffled = np.random.default_rng(0).permutation(count)
    order = np.lexsort((fractions, shuffled[components], sizes[components]))
    return pairs[order], fractions[order]


def _in_band_order(count: int, pairs: Indices) -> Indices:
    """Order pairs so that those with the same image are close together, and few images are read twice."""
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    place = np.argsort(reverse_cuthill_mckee((graph + graph.T).tocsr(), symmetric_mode=True))
    return pairs[np.argsort(place[pairs].max(axis=1), kind="stable")]


def _groups_of_several(labels: Labels) -> list[Indices]:
    """Return the indices of the images of each group that has more than one."""
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [group for group in groups if len(group) > 1]


def _outsiders(group: Indices, neighbours: Neighbours, number: int) -> Indices:
    """Return up to `number` pairs, (P, 2), of an image of the group and one outside, most similar first.

    If all neighbours of its images are in the group, any others are taken.
    """
    near, distances = neighbours.indices[group], neighbours.distances[group]
    rows, columns = np.nonzero(~np.isin(near, group) & np.isfinite(distances))
    order = np.argsort(distances[rows, columns], kind="stable")[:number]
    pairs = np.stack([group[rows], near[rows, columns]], axis=1)[order]
    if len(pairs) == 0:
        others = np.linspace(0, len(neighbours.indices) - 1, 2 * len(group) + 2, dtype=np.intp)
        others = others[~np.isin(others, group)][:number]
        pairs = np.stack([np.full_like(others, group[0]), others], axis=1)
    return np.sort(pairs, axis=1)


def _sample_of_different(neighbours: Neighbours, labels: Labels) -> Indices:
    """Return pairs, (P, 2), of a sample of images with the most similar image of another group."""
    sample = np.unique(np.linspace(0, len(labels) - 1, _SAMPLE, dtype=np.intp))
    near = neighbours.indices[sample]
    different = (labels[near] != labels[sample][:, None]) & np.isfinite(neighbours.distances[sample])
    found = different.any(axis=1)
    others = near[found, different[found].argmax(axis=1)]
    return np.sort(np.stack([sample[found], others], axis=1), axis=1)


def _are_believable(labels: Labels) -> bool:
    """Return whether groups can be shots of the same parts: parts of the same kind in a few poses look so, too."""
    sizes = np.bincount(labels)
    return bool((sizes**2).sum() <= _MOST_SHOTS * len(labels) and sizes.max() <= _largest(len(labels)))


def _largest(count: int) -> int:
    """Return how many of so many images can be shots of one part."""
    return max(2, int(_LARGEST_SHARE * count))


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
        if members.sum() <= _largest(count):
            groups[members] = low
        else:
            large |= members
    return groups, large


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
