"""Find the images that are most similar to each image, by their spectra."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.vision.input.spectra import Spectra

_NEIGHBOURS: Final = 8
_USUAL: Final = 50
_ALIKE: Final = 0.65
"""Neighbours are candidates if their squared distance is below this fraction of the usual one of both.

Of shots of the same part, 95 % are below 0.35, and weak grain with as much noise is at 0.6; different parts without a
common pose are above 0.8 (solar cells, magnetic tiles, synthetic parts).
"""
_BLOCK: Final = 512
_EXACT: Final = 8000  # up to this many images, all distances are computed
_CELL: Final = 2048
_DRAWINGS: Final = 8
_TINY: Final = np.finfo(np.float32).tiny

Vectors = NDArray[np.float32]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of N images, at most 8 of each.

    Attributes:
        indices: (N, K), nearest first.
        distances: float32, (N, K), squared distances, 0 to 4; infinite if an image has fewer neighbours.
        usual: float32, (N,): the squared distance of each image to its fiftieth neighbour, or to the middle one if
            there are fewer than 100 images.
    """

    indices: Indices
    distances: NDArray[np.float32]
    usual: NDArray[np.float32]

    def candidates(self, count: int) -> tuple[Indices, NDArray[np.float32]]:
        """Return pairs that are much more similar than usual, of each image and its `count` nearest neighbours.

        Returns:
            The pairs, (P, 2), each once and in ascending order, and their distances as fractions of the usual one.
        """
        rows = np.repeat(np.arange(len(self.indices)), min(count, self.indices.shape[1]))
        columns = self.indices[:, :count].ravel()
        usual = np.minimum(self.usual[rows], self.usual[columns]).clip(_TINY)
        fractions: NDArray[np.float32] = self.distances[:, :count].ravel() / usual
        near = fractions < _ALIKE
        pairs, first = np.unique(np.sort(np.stack([rows, columns], axis=1)[near], axis=1), axis=0, return_index=True)
        return pairs, fractions[near][first]


def find_neighbours(spectra: Spectra) -> Neighbours:
    """Find the nearest neighbours of N images: exactly up to 8,000 images, otherwise nearly all of them.

    Above, images are compared only within cells: the images nearest to one of at most √N random ones. Cells are drawn
    eight times, because two similar images are rarely separated by all drawings. An image is compared with at most
    `_CELL` others at a time, so N images need at most N · (√N + `_CELL`) comparisons per drawing.
    """
    vectors = _standardise(spectra)
    count = len(vectors)
    if count <= _EXACT:
        return _within(vectors, np.arange(count))
    drawings = []
    for cells in _draw_cells(vectors):
        indices = np.zeros((count, _NEIGHBOURS), dtype=np.intp)
        distances = np.full((count, _NEIGHBOURS), np.inf, dtype=np.float32)
        usual = np.full(count, np.inf, dtype=np.float32)
        for cell in cells:
            found = _within(vectors[cell], cell)
            width = found.indices.shape[1]
            indices[cell, :width], distances[cell, :width], usual[cell] = found.indices, found.distances, found.usual
        drawings.append(Neighbours(indices, distances, usual))
    return _nearest_of(drawings)


def _standardise(spectra: Spectra) -> Vectors:
    """Return unit vectors in which each frequency has the same variance, so that none determines the distances."""
    vectors = spectra.astype(np.float32)
    vectors -= vectors.mean(axis=0)
    vectors /= vectors.std(axis=0) + np.float32(1e-6)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + np.float32(1e-6)
    return vectors


def _squares(vectors: Vectors, others: Vectors) -> NDArray[np.float32]:
    """Return the squared distances between all rows of both."""
    lengths = (vectors**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None, :]
    squares: NDArray[np.float32] = np.maximum(lengths - 2 * vectors @ others.T, 0)
    return squares


def _within(vectors: Vectors, names: Indices) -> Neighbours:
    """Return the nearest neighbours among these vectors, under their names, in blocks that limit the memory."""
    count = len(vectors)
    number = min(_NEIGHBOURS, max(count - 1, 0))
    indices = np.zeros((count, number), dtype=np.intp)
    distances = np.zeros((count, number), dtype=np.float32)
    usual = np.zeros(count, dtype=np.float32)
    middle = min(_USUAL, count // 2)
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        squares = _squares(vectors[rows], vectors)
        usual[rows] = np.partition(squares, middle, axis=1)[:, middle]
        squares[rows - start, rows] = np.inf
        nearest = np.argpartition(squares, max(number - 1, 0), axis=1)[:, :number]
        order = np.argsort(np.take_along_axis(squares, nearest, axis=1), axis=1, kind="stable")
        nearest = np.take_along_axis(nearest, order, axis=1)
        indices[rows], distances[rows] = names[nearest], np.take_along_axis(squares, nearest, axis=1)
    return Neighbours(indices, distances, usual)


def _draw_cells(vectors: Vectors) -> Iterator[list[Indices]]:
    """Yield partitions of the images into cells of similar ones, of at most `_CELL` images."""
    random = np.random.default_rng(0)
    number = max(1, min(int(len(vectors) ** 0.5), len(vectors) // (4 * _USUAL)))
    for _ in range(_DRAWINGS):
        centres = vectors[random.choice(len(vectors), number, replace=False)]
        blocks = [vectors[start : start + _BLOCK] for start in range(0, len(vectors), _BLOCK)]
        nearest = np.concatenate([_squares(block, centres).argmin(axis=1) for block in blocks])
        order = np.argsort(nearest, kind="stable")
        cells = np.split(order, np.flatnonzero(np.diff(nearest[order])) + 1)
        yield [cell[start : start + _CELL] for cell in cells for start in range(0, len(cell), _CELL)]


def _nearest_of(drawings: list[Neighbours]) -> Neighbours:
    """Return the nearest neighbours of all drawings, each once."""
    indices = np.concatenate([drawing.indices for drawing in drawings], axis=1)
    distances = np.concatenate([drawing.distances for drawing in drawings], axis=1)
    order = np.lexsort((indices, distances), axis=1)
    indices, distances = (np.take_along_axis(values, order, axis=1) for values in (indices, distances))
    for column in range(1, indices.shape[1]):
        seen = (indices[:, :column] == indices[:, column, None]).any(axis=1)
        distances[seen, column] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")[:, :_NEIGHBOURS]
    usual = np.min([drawing.usual for drawing in drawings], axis=0)
    return Neighbours(np.take_along_axis(indices, order, axis=1), np.take_along_axis(distances, order, axis=1), usual)
