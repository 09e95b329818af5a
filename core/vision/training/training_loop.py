"""The training loop, with its curve, and checkpoints to continue an interrupted training.

The number of epochs is fixed and the learning rate falls to zero, so no validation images decide when to stop: every
image can be trained on, and a held-out image has no influence on the model that scores it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.vision.training.fit_interface import Checkpoint, Epoch, FitOptions
from core.vision.training.mixed_precision import MixedPrecision


class TrainingLoop:
    """Minimises the mean squared error of a reconstruction with Adam (Kingma & Ba, 2015) and cosine annealing.

    Attributes:
        random: the generator for everything random in the training. A checkpoint has its state, so a continued
            training uses the same numbers.
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

    def run(
        self,
        epoch: Callable[[np.random.Generator], Iterable[Tensor]],
        validate: Callable[[int], float],
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None,
    ) -> None:
        """Train to the end, continuing from the checkpoint if it has a state.

        Args:
            epoch: returns the inputs of an epoch, in minibatches; the network learns to reconstruct them.
            validate: returns the validation loss after the epoch with this number.
            on_epoch: called with every epoch, including those before an interruption.
            checkpoint: written after every epoch.
        """
        state = checkpoint.read() if checkpoint else None
        if state is not None:
            self._load_state_dict(state)
            for earlier in self.curve:
                on_epoch(earlier)
        while len(self.curve) < self._options.epochs:
            training_loss = self._train(epoch(self.random))
            number = len(self.curve) + 1
            self.curve.append(Epoch(number, training_loss, validate(number)))
            if checkpoint:
                checkpoint.write(self._state_dict())
            on_epoch(self.curve[-1])

    def _train(self, inputs: Iterable[Tensor]) -> float:
        self._network.train()
        losses = []
        for minibatch in inputs:
            with self._precision.forward():
                loss = nn.functional.mse_loss(self._network(minibatch), minibatch)
            self._precision.step(loss, self._optimizer)
            losses.append(loss.detach())
        self._schedule.step()
        self._network.eval()
        return float(torch.stack(losses).mean())

    def _state_dict(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "precision": self._precision.state_dict(),
            "random": self.random.bit_generator.state,
            "curve": [asdict(epoch) for epoch in self.curve],
        }

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._precision.load_state_dict(state["precision"])
        self.random.bit_generator.state = state["random"]
        self.curve = [Epoch(**epoch) for epoch in state["curve"]]
