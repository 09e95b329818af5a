"""The training loop: steps, curve, best weights, and the state that an interrupted training needs to continue."""

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.vision.training.fit_interface import Checkpoint, Epoch, FitOptions
from core.vision.training.mixed_precision import MixedPrecision


class TrainingLoop:
    """Adam (Kingma & Ba, 2015) on a reconstruction's mean squared error, its rate falling as a half cosine.

    Attributes:
        random: of everything random in the training; an interrupted one goes on with the same numbers.
        curve: the epochs so far.
    """

    def __init__(self, network: nn.Module, options: FitOptions, device: str) -> None:
        self._network = network
        self._options = options
        self.random = np.random.default_rng(options.seed)
        self._optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, options.epochs)
        self._precision = MixedPrecision(device, mixed=options.mixed_precision)
        self.curve: list[Epoch] = []
        self._best = copy.deepcopy(network.state_dict())

    def run(
        self,
        epoch: Callable[[np.random.Generator], Iterable[Tensor]],
        validate: Callable[[], float],
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None,
    ) -> None:
        """Train to the end, from the checkpoint's state where there is one; the network gets its best weights.

        Args:
            epoch: gives the inputs of one epoch, each what the network shall reconstruct.
            validate: the loss on images that are not trained on.
            on_epoch: called with every epoch, including those before an interruption.
            checkpoint: is written after every epoch.
        """
        state = checkpoint.read() if checkpoint else None
        if state is not None:
            self._load_state_dict(state)
            for earlier in self.curve:
                on_epoch(earlier)
        while not self._ended:
            training_loss = self._train(epoch(self.random))
            self._note(Epoch(len(self.curve) + 1, training_loss, validate()))
            if checkpoint:
                checkpoint.write(self._state_dict())
            on_epoch(self.curve[-1])
        self._network.load_state_dict(self._best)

    @property
    def _ended(self) -> bool:
        """Whether all epochs are done, or too many have gone by without a better one."""
        if not self.curve:
            return False
        best = min(self.curve, key=lambda epoch: epoch.validation_loss)
        return len(self.curve) >= self._options.epochs or len(self.curve) - best.number >= self._options.patience

    def _train(self, inputs: Iterable[Tensor]) -> float:
        self._network.train()
        losses = []
        for some in inputs:
            with self._precision.forward():
                loss = nn.functional.mse_loss(self._network(some), some)
            self._precision.step(loss, self._optimizer)
            losses.append(loss.detach())
        self._schedule.step()
        self._network.eval()
        return float(torch.stack(losses).mean())

    def _note(self, epoch: Epoch) -> None:
        """Enter an epoch that has just ended, and keep its weights if none were better."""
        if all(epoch.validation_loss < earlier.validation_loss for earlier in self.curve):
            self._best = copy.deepcopy(self._network.state_dict())
        self.curve.append(epoch)

    def _state_dict(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "precision": self._precision.state_dict(),
            "random": self.random.bit_generator.state,
            "curve": [asdict(epoch) for epoch in self.curve],
        }

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._precision.load_state_dict(state["precision"])
        self.random.bit_generator.state = state["random"]
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]
