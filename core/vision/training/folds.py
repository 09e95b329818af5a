"""Folds for cross-conformal calibration: every good part is scored once by a model that was not fitted on its group.

Cross-conformal prediction is from Vovk, "Cross-Conformal Predictors", Annals of Mathematics and Artificial Intelligence
74 (2015), 9-28; see also CV+ in Barber, Candès, Ramdas & Tibshirani, "Predictive Inference with the Jackknife+", Annals
of Statistics 49 (2021), 486-507. The final model is fitted on all good parts, so no part is lost to calibration.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Folds:
    """The fold of each of N images, counted from 0. Images of one group are in one fold.

    Attributes:
        labels: the fold of each image.
        count: number of folds, at least 2; none is empty.
    """

    labels: tuple[int, ...]
    count: int

    def training(self, fold: int) -> list[int]:
        """Return the indices of the images that the model of this fold is fitted on, ascending."""
        return [index for index, label in enumerate(self.labels) if label != fold]

    def held_out(self, fold: int) -> list[int]:
        """Return the indices of the images in this fold, ascending."""
        return [index for index, label in enumerate(self.labels) if label == fold]


def make_folds(groups: Sequence[int], count: int, seed: int) -> Folds:
    """Distribute N images evenly over folds, without dividing a group.

    Groups are placed from the largest to the smallest, each into the smallest fold; groups of the same size are placed
    in random order.

    Args:
        groups: the group of each image; at least two different ones.
        count: the number of folds; fewer if there are fewer groups.
        seed: of the random order.

    Raises:
        ValueError: all images belong to one group.
    """
    numbers, sizes = np.unique(np.asarray(groups), return_counts=True)
    if len(numbers) < 2:
        raise ValueError("folds need images of at least two groups")
    folds = min(count, len(numbers))
    shuffled = np.random.default_rng(seed).permutation(len(numbers))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    totals = np.zeros(folds, dtype=np.int64)
    fold_of_group: dict[int, int] = {}
    for index in order.tolist():
        smallest = int(np.argmin(totals))
        fold_of_group[int(numbers[index])] = smallest
        totals[smallest] += sizes[index]
    return Folds(tuple(fold_of_group[group] for group in groups), folds)
