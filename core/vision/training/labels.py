"""Labels of images: images with the same label belong together."""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Labels = NDArray[np.int32]
"""int32, (N,)"""


def number(names: Sequence[Hashable]) -> Labels:
    """Number the names from 0 in the order in which they first appear; equal names get the same number."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int32)


def link(count: int, pairs: NDArray[np.intp]) -> Labels:
    """Label `count` images so that the two images of each pair, (P, 2), belong together."""
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels: Labels = connected_components(graph, directed=False)[1]
    return labels


def merge(labels: Labels, others: Labels) -> Labels:
    """Return labels of groups that contain together what either of the labels groups."""
    count = len(labels)
    firsts = [np.unique(values, return_index=True, return_inverse=True)[1:] for values in (labels, others)]
    return link(count, np.concatenate([np.stack([np.arange(count), first[of]], axis=1) for first, of in firsts]))
