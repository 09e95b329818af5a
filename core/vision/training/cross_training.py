"""Train a network for each fold, on the images of all other folds, and one on all images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.fit_interface import Checkpoint, Epoch
from core.vision.training.folds import Folds

Network = TypeVar("Network")


@dataclass(frozen=True)
class FoldTraining:
    """One of the trainings.

    Attributes:
        fold: the fold that is held out; None for the network that is trained on all images.
        training: the indices of the images to train on.
        held_out: the indices of the images of the fold, to measure the loss on; empty without a fold.
        losses: by epoch, the mean validation loss of the folds; only without a fold.
        on_epoch: called with every epoch.
        checkpoint: of this training.
    """

    fold: int | None
    training: list[int]
    held_out: list[int]
    losses: list[float]
    on_epoch: Callable[[Epoch], None]
    checkpoint: Checkpoint | None

    def validation(self, loss: Callable[[Sequence[int]], float]) -> Callable[[int], float]:
        """Return a function from the number of an epoch to the validation loss after it.

        Args:
            loss: returns the current mean loss on images.
        """
        if self.fold is None:
            return lambda number: self.losses[number - 1]
        return lambda _: loss(self.held_out)


def cross_train(
    folds: Folds,
    train: Callable[[FoldTraining], Network],
    epochs: int,
    on_epoch: Callable[[Epoch], None],
    checkpoint: Checkpoint | None,
) -> CrossFitted[Network]:
    """Train a network for each fold, and then one on all images.

    Args:
        train: trains one network.
        epochs: of each training.
        on_epoch: called with every epoch of every training.
        checkpoint: the state of all trainings.
    """
    curves: list[list[Epoch]] = []
    states = _States(checkpoint)

    def on_fold_epoch(fold: int, epoch: Epoch) -> None:
        curves[fold].append(epoch)
        on_epoch(replace(epoch, fold=fold))

    held_out = []
    for fold in range(folds.count):
        curves.append([])
        task = FoldTraining(
            fold,
            folds.training(fold),
            folds.held_out(fold),
            [],
            lambda epoch, fold=fold: on_fold_epoch(fold, epoch),  # type: ignore[misc]
            states.part(str(fold)),
        )
        held_out.append(train(task))
    losses = [sum(curve[number].validation_loss for curve in curves) / len(curves) for number in range(epochs)]
    everything = list(range(len(folds.labels)))
    final = train(FoldTraining(None, everything, [], losses, on_epoch, states.part("final")))
    return CrossFitted(final, held_out)


class _States:
    """The states of several trainings in one checkpoint."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self._checkpoint = checkpoint
        self._states: dict[str, Any] = (checkpoint.read() if checkpoint else None) or {}

    def part(self, name: str) -> Checkpoint | None:
        """Return the checkpoint of one training; None if no state is kept."""
        return None if self._checkpoint is None else _Part(name, self._states, self._checkpoint)


@dataclass(frozen=True)
class _Part:
    name: str
    states: dict[str, Any]
    checkpoint: Checkpoint

    def read(self) -> dict[str, Any] | None:
        state: dict[str, Any] | None = self.states.get(self.name)
        return state

    def write(self, state: dict[str, Any]) -> None:
        self.states[self.name] = state
        self.checkpoint.write(self.states)
