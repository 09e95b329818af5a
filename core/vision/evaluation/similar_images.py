"""The pairs of images in a report that count as shots of the same part, so that a person can say no."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from core.html.rendering import IMAGE_SIDE, jpeg
from core.intake.image_decoding import decode
from core.vision.training.grouping import Grouping

MAX_PAIRS: Final = 8
"""The maximum number of pairs on the page."""


@dataclass(frozen=True)
class SimilarPair:
    """Two images that count as shots of the same part.

    Attributes:
        names: of both.
        images: both as JPEGs.
        similarity: the share of their detail that is common to both, 0 to 1.
    """

    names: tuple[str, str]
    images: tuple[bytes, bytes]
    similarity: float


@dataclass(frozen=True)
class SimilarImages:
    """The images that count as shots of the same parts because of their looks.

    Attributes:
        count: how many there are.
        groups: how many parts they count as.
        pairs: some pairs, from the most to the least similar, at most `MAX_PAIRS`.
    """

    count: int
    groups: int
    pairs: Sequence[SimilarPair]


def choose_similar_images(root: Path, paths: Sequence[Path], grouping: Grouping, *, max_pixels: int) -> SimilarImages:
    """Choose the pairs of a report: the most similar, the least similar, and some between.

    Args:
        root: the folder that names are relative to.
        paths: of the images that were grouped.
        grouping: their groups.
        max_pixels: the largest accepted width times height of an image.

    Raises:
        core.intake.image_decoding.Undecodable: an image has changed since it was first read.
        OSError: a file cannot be read.
    """

    def shown(path: Path) -> bytes:
        image = decode(path.read_bytes(), max_pixels=max_pixels, at_least=(IMAGE_SIDE, IMAGE_SIDE))
        image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
        return jpeg(image)

    pairs = []
    chosen = np.linspace(0, len(grouping.pairs) - 1, min(len(grouping.pairs), MAX_PAIRS)).round().astype(int)
    for pair in (grouping.pairs[index] for index in chosen.tolist()):
        first, second = paths[pair.first], paths[pair.second]
        names = first.relative_to(root).as_posix(), second.relative_to(root).as_posix()
        pairs.append(SimilarPair(names, (shown(first), shown(second)), pair.similarity))
    return SimilarImages(grouping.near_duplicates, grouping.near_duplicate_groups, pairs)
