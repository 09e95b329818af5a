"""Generated images of washers on a dark belt, some of them scratched or chipped, that look well on a screen."""

import io
from typing import Literal

import numpy as np
from PIL import Image
from scipy import ndimage

Defect = Literal["scratch", "chip"]

_SIDE = 256


def washer(seed: int, defect: Defect | None = None) -> bytes:
    """Draw a washer as a PNG. Each seed gives other noise, and a defect in another place."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] - (_SIDE - 1) / 2 + random.normal(0, 0.6, 2)[:, None, None]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    belt = 38 + 5 * ndimage.gaussian_filter(random.normal(0, 1, x.shape), 6) * 6 + 0.04 * y
    brushed = ndimage.gaussian_filter1d(random.normal(0, 1, 400), 1.5)[np.clip(radius * 3, 0, 399).astype(int)]
    metal = 150 + 26 * np.cos(2 * angle + 0.6) + 7 * brushed
    outside, inside = _edge(radius - 96), _edge(46 - radius)
    ring = (1 - outside) * (1 - inside)
    rim = np.exp(-(((radius - 91) / 2.5) ** 2)) + np.exp(-(((radius - 51) / 2.5) ** 2))
    grey = belt + (metal + 34 * rim - belt) * ring
    if defect == "chip":
        at = random.uniform(-np.pi, np.pi)
        chip = 1 - _edge(np.hypot(x - 96 * np.cos(at), y - 96 * np.sin(at)) - 11)
        grey += (belt - grey) * chip * ring
    if defect == "scratch":
        at, slope = random.uniform(-np.pi, np.pi), random.uniform(-np.pi, np.pi)
        along = (x - 71 * np.cos(at)) * np.cos(slope) + (y - 71 * np.sin(at)) * np.sin(slope)
        across = -(x - 71 * np.cos(at)) * np.sin(slope) + (y - 71 * np.sin(at)) * np.cos(slope)
        grey += 70 * np.exp(-((across / 1.4) ** 2)) * (np.abs(along) < 16) * ring
    grey = ndimage.gaussian_filter(grey, 0.7) + random.normal(0, 2.0, grey.shape)
    out = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def _edge(distance: np.ndarray) -> np.ndarray:
    """1 outside, 0 inside, and a slope of a few pixels between."""
    soft: np.ndarray = 1 / (1 + np.exp(-distance / 0.8))
    return soft
