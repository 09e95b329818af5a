"""Group images that belong together: copies, shots of the same part, parts of the same lot. Folds keep groups whole.

If images of a part are used both to train and to calibrate, the threshold is too low. Without information on which
images show the same part, near-duplicates count as such.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from core.vision.training.dataset import ScannedImages
from core.vision.training.group_by import GroupBy, names_of_parts
from core.vision.training.labels import Labels, merge, number
from core.vision.training.looks import Looks, looks_of
from core.vision.training.near_duplicates import NearDuplicates, Pair, find_near_duplicates

MAX_PAIRS: Final = 100


@dataclass(frozen=True)
class Grouping:
    """The groups of N images.

    Attributes:
        groups: the group of each image; groups are numbered from 0 in the order of their first images.
        near_duplicates: the number of images that are grouped with a different image because they look alike.
        notes: lines for people.
        near_duplicate_groups: the number of groups that these images form.
        pairs: pairs of such images, most similar first. If there are many, `MAX_PAIRS` of all similarities.
    """

    groups: list[int]
    near_duplicates: int
    notes: list[str]
    near_duplicate_groups: int = 0
    pairs: list[Pair] = field(default_factory=list)

    @property
    def count(self) -> int:
        """The number of groups."""
        return len(set(self.groups))

    def subset(self, indices: Sequence[int]) -> "Grouping":
        """Return the grouping of the images with these indices, in this order. What is said about looks stays."""
        groups = number([self.groups[index] for index in indices]).tolist()
        places = {index: place for place, index in enumerate(indices)}
        pairs = [
            Pair(places[pair.first], places[pair.second], pair.similarity)
            for pair in self.pairs
            if pair.first in places and pair.second in places
        ]
        return replace(self, groups=groups, pairs=pairs)


def group_parts(images: ScannedImages, root: Path, by: GroupBy | None) -> Grouping:
    """Group N images by part or lot, or by looks if `by` is None.

    Raises:
        InvalidGroups, InvalidDataset, OSError: see `group_by_names` and `group_by_looks`.
    """
    if by is None:
        return group_by_looks(images.digests, looks_of(images))
    return group_by_names(images.paths, root, images.digests, by)


def group_by_names(paths: Sequence[Path], root: Path, digests: Sequence[str], by: GroupBy) -> Grouping:
    """Group N images by part or lot. Identical files are grouped, too.

    Args:
        paths: of the images.
        root: the folder that their names are relative to.
        digests: of their contents.
        by: determines the part or lot.

    Raises:
        InvalidGroups: an image's part or lot cannot be determined.
        OSError: the table cannot be read.
    """
    copies = number(digests)
    names = names_of_parts(paths, root, by)
    groups = number(merge(copies, number(names)).tolist())
    on_purpose = names == [path.relative_to(root).as_posix() for path in paths]
    return Grouping(groups.tolist(), 0, [] if on_purpose else _group_notes(groups, copies))


def group_by_looks(digests: Sequence[str], looks: Looks) -> Grouping:
    """Group N images that are near-duplicates. Identical files are grouped, too.

    Args:
        digests: of their contents.
        looks: what they look like. Of identical files, only the first is looked at.

    Raises:
        InvalidDataset: a file was deleted or has changed since it was first read.
    """
    copies = number(digests)
    firsts = np.unique(copies, return_index=True)[1].tolist()
    found = find_near_duplicates(looks.subset(firsts))
    groups = number(found.labels[copies].tolist())
    sizes = np.bincount(found.labels, minlength=1)
    near = int((sizes[found.labels[copies]] > 1).sum())
    several = int((sizes > 1).sum())
    notes = _looks_notes(found, near, several, len(copies))
    return Grouping(groups.tolist(), near, notes, several, _some_pairs(found.pairs, firsts))


def _some_pairs(pairs: Sequence[Pair], names: Sequence[int]) -> list[Pair]:
    """Return at most `MAX_PAIRS` pairs, evenly spread, under the names of their images."""
    chosen = np.linspace(0, len(pairs) - 1, min(len(pairs), MAX_PAIRS)).round().astype(int).tolist()
    return [Pair(names[pairs[index].first], names[pairs[index].second], pairs[index].similarity) for index in chosen]


def _group_notes(groups: Labels, copies: Labels) -> list[str]:
    if len(np.unique(groups)) == len(np.unique(copies)) > 1 and len(groups) > 1:
        return ["--group-by puts no two different images together: check that it matches the part or lot"]
    return []


def _looks_notes(found: NearDuplicates, near: int, groups: int, count: int) -> list[str]:
    notes = []
    if near:
        plural = "s" if groups > 1 else ""
        notes.append(
            f"{near} of {count} images look like several shots of the same parts, in {groups} group{plural}, and each "
            "group counts as one part: name the images of a part or lot with --group-by, or use --group-by '(.*)' if "
            "each image shows another part"
        )
    if found.doubtful:
        notes.append(
            f"{found.doubtful} of {count} images look like shots of only a few parts, which is hard to believe, so "
            "they are not grouped: if there are several images of a part, name its images with --group-by"
        )
    elif found.alike and not near:
        notes.append(
            "even images of different parts look alike, apart from noise, so looks do not show which images show the "
            "same part, and none are grouped: if there are several images of a part, name its images with --group-by"
        )
    return notes
