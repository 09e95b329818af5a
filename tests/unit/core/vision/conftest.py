"""Synthetic parts: small, seeded, and different enough from each other to train on."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.vision.detectors.autoencoder import Autoencoder, AutoencoderDetector, AutoencoderSettings
from core.vision.input.preprocessing import Preprocessing


def make_part(seed: int, *, side: int = 48, defective: bool = False) -> bytes:
    """A grey disc on a lighter ground as PNG; a defective one is scratched."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / side - 0.5
    disc = np.hypot(rows - random.uniform(-0.02, 0.02), columns) < 0.35
    grey = np.where(disc, 90.0, 170.0) + random.normal(0, 4, (side, side)) + random.uniform(-6, 6)
    if defective:
        grey[side // 3 : side // 3 + 6, 8 : side - 8] = 250
    file = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB").save(file, format="PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def part() -> Callable[..., bytes]:
    """`part(seed, side=48, defective=False)` makes an encoded image."""
    return make_part


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in MVTec layout: 40 good parts to train on, 8 good and 8 scratched ones to test."""
    root = tmp_path_factory.mktemp("parts")
    for kind, seeds in {"train/good": range(40), "test/good": range(40, 48), "test/scratch": range(48, 56)}.items():
        (root / kind).mkdir(parents=True)
        for seed in seeds:
            (root / kind / f"{seed:03}.png").write_bytes(make_part(seed, defective=kind == "test/scratch"))
    return root


@pytest.fixture(scope="session")
def detector() -> AutoencoderDetector:
    """An untrained detector at 128 × 128."""
    settings = AutoencoderSettings()
    preprocessing = Preprocessing(width=128, height=128, scaled_decode=False)
    return AutoencoderDetector(Autoencoder(settings), settings, preprocessing, device="cpu", max_pixels=10**6)
