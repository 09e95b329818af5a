"""Synthetic pictures of parts, and what is made of them for tests."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.vision.bundle.state_dict import import_state_dict
from core.vision.detectors.autoencoder import Autoencoder, AutoencoderSettings


def part(seed: int, *, size: tuple[int, int] = (96, 64), scratched: bool = False) -> Image.Image:
    """A grey part with a ring on a plain ground; a scratched one has a bright line across."""
    random = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    ring = np.abs(np.hypot(x - width / 2, y - height / 2) - min(size) / 3) < 3
    picture = np.full((height, width, 3), 90.0) + 60 * ring[..., None] + random.normal(0, 4, (height, width, 3))
    if scratched:
        picture[np.abs(y - x * height / width) < 2] = 250
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """A picture as the bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(seed: int, *, scratched: bool = False) -> bytes:
    """A distinct part as PNG."""
    return encoded(part(seed, scratched=scratched))


def write_folder(folder: Path, *, good: int, defective: int = 0) -> Path:
    """A folder in MVTec layout."""
    (folder / "train" / "good").mkdir(parents=True)
    for seed in range(good):
        (folder / "train" / "good" / f"{seed:04}.png").write_bytes(png(seed))
    if defective:
        for kind, scratched in (("good", False), ("scratch", True)):
            (folder / "test" / kind).mkdir(parents=True)
            for seed in range(defective):
                (folder / "test" / kind / f"{seed:04}.png").write_bytes(png(10_000 + seed, scratched=scratched))
    return folder


def write_bundle(folder: Path, *, seed: int = 0, threshold: float = 0.05) -> Path:
    """A bundle of the reference network with random weights: enough for everything but detection."""
    torch.manual_seed(seed)
    weights = folder.with_suffix(".pth")
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(Autoencoder(AutoencoderSettings(width=128, height=128)).state_dict(), weights)
    import_state_dict(weights, folder, threshold=threshold)
    return folder
