"""Mixed precision: on a GPU the network's products may be taken in half the digits, its weights never are.

After Micikevicius et al., "Mixed Precision Training" (ICLR 2018): weights, their updates and the loss stay float32.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor


class MixedPrecision:
    """How a training step computes. Nothing changes on a CPU, or where it is not wished for.

    bfloat16 where the GPU has it: its range is that of float32. Else float16, whose range is small: the loss is scaled
    up so that gradients do not vanish.
    """

    def __init__(self, device: str, *, mixed: bool) -> None:
        self._device = device
        self._mixed = mixed and device == "cuda"
        self._half = torch.bfloat16 if not self._mixed or torch.cuda.is_bf16_supported() else torch.float16
        self._scaler = torch.amp.GradScaler(device, enabled=self._half is torch.float16)

    def forward(self) -> AbstractContextManager[Any]:
        """The context of the forward pass and the loss."""
        return torch.autocast(self._device, dtype=self._half, enabled=self._mixed)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Go back through the network and let the optimizer take a step."""
        optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(optimizer)
        self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must keep."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._scaler.load_state_dict(state)
