"""From prepared images to a tensor on the device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.vision.input.prepared_image import PreparedImage


def to_device(images: Sequence[PreparedImage], device: str) -> Tensor:
    """Stack N prepared images of one size: (N, 3, height, width), channels last, 0 to 255, of their dtype.

    To a GPU they are copied from pinned memory, while the processor goes on.
    """
    stacked = torch.from_numpy(np.stack(images))
    if device == "cuda":
        stacked = stacked.pin_memory().to(device, non_blocking=True)
    return stacked.permute(0, 3, 1, 2)
