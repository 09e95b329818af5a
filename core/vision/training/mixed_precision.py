"""Mixed precision: on a GPU, the forward pass may use 16-bit floats.

Follows Micikevicius et al., "Mixed Precision Training" (ICLR 2018): weights, their updates and the loss stay float32.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


class MixedPrecision:
    """The precision of a training step. Has no effect on a CPU, or if `mixed` is False.

    Uses bfloat16 if the GPU supports it, because it has the range of float32. Otherwise it uses float16, and scales the
    loss up so that gradients do not vanish in its small range.
    """

    def __init__(self, device: str, *, mixed: bool) -> None:
        self._device = device
        self._mixed = mixed and device == "cuda"
        self._half = torch.bfloat16 if not self._mixed or torch.cuda.is_bf16_supported() else torch.float16
        self._scaler = torch.amp.GradScaler(device, enabled=self._half is torch.float16)

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context for the forward pass and the loss."""
        return torch.autocast(self._device, dtype=self._half, enabled=self._mixed)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Run the backward pass and a step of the optimizer."""
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self._scaler.load_state_dict(state)
