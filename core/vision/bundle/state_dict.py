"""Moving over from the synchronous demo: a plain `.pth` state dict of the reference network becomes a bundle."""

import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from core.vision.bundle.manifest import Manifest, Threshold
from core.vision.bundle.writing import write_bundle
from core.vision.detectors.autoencoder import AutoencoderDetector, AutoencoderSettings, network_from_state_dict
from core.vision.input.preprocessing import Preprocessing

_GOLDEN_SEEDS = (0, 1, 2)
_PARALLEL_PREFIX = "module."


class InvalidStateDict(ValueError):  # noqa: N818 - it reads as what it is
    """A file that is not a plain state dict of the reference network; the message is one line that says why."""


def import_state_dict(
    path: Path, out: Path, *, threshold: float, input_size: int = 128, max_pixels: int = 64_000_000
) -> Manifest:
    """Write a bundle that scores as the demo did: images resized by Pillow, the whole decoded, mean squared error.

    Args:
        path: what `torch.save(model.state_dict(), path)` wrote; keys `encoder.0|3|6` and `decoder.1|4|7`, each with
            `.weight` and `.bias`; a leading `module.` of every key is dropped.
        out: the bundle's folder; must not exist.
        threshold: scores at or above it are `ng`; nothing is known of what it costs.
        input_size: both sides of the network's input, pixels.

    Raises:
        InvalidStateDict: the file is not such a state dict, or the threshold is not a finite number.
        FileExistsError: `out` exists.
        OSError: the file cannot be read.
    """
    if not math.isfinite(threshold):
        raise InvalidStateDict(f"the threshold must be a finite number, not {threshold}")
    try:
        settings = AutoencoderSettings(width=input_size, height=input_size)
        network = network_from_state_dict(settings, _read(path))
    except ValueError as error:
        raise InvalidStateDict(f"{path} cannot be imported: {error}") from error
    preprocessing = Preprocessing(width=input_size, height=input_size, scaled_decode=False)
    detector = AutoencoderDetector(network, settings, preprocessing, device="cpu", max_pixels=max_pixels)
    return write_bundle(
        detector,
        out,
        golden={f"golden/{seed}.png": _synthetic_image(seed, input_size) for seed in _GOLDEN_SEEDS},
        extra_files={},
        threshold=Threshold(value=threshold, calibration=None),
        training=None,
        metrics=None,
    )


def _read(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a state dict, loaded without running anything that the file may hold."""
    content = path.read_bytes()
    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises every kind
        raise ValueError(
            "it is not a file of weights alone; write it with torch.save(model.state_dict(), path)"
        ) from error
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(name, str) for name in loaded):
        raise ValueError("it holds no state dict; write it with torch.save(model.state_dict(), path)")
    if not all(isinstance(weight, Tensor) for weight in loaded.values()):
        raise ValueError("it holds more than weights, perhaps a checkpoint: save its state dict alone")
    if all(name.startswith(_PARALLEL_PREFIX) for name in loaded):
        return {name.removeprefix(_PARALLEL_PREFIX): weight for name, weight in loaded.items()}
    return loaded


def _synthetic_image(seed: int, size: int) -> bytes:
    """A synthetic part as PNG: a smooth pattern with noise, larger than the network's input so that it is resized."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : 2 * size, 0 : 2 * size] / (2 * size)
    waves = [np.sin(2 * np.pi * (random.integers(1, 6) * rows + random.integers(1, 6) * columns)) for _ in range(3)]
    image = 128 + 90 * np.stack(waves, axis=2) + random.normal(0, 12, (2 * size, 2 * size, 3))
    encoded = io.BytesIO()
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(encoded, format="PNG")
    return encoded.getvalue()
