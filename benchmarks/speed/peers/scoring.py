"""The same decoding and the same forward pass for every peer: those of the product."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.bundle.manifest import verify_bundle

BUNDLE_VARIABLE: Final = "BENCH_BUNDLE"
_MAX_PIXELS: Final = 64_000_000


class Scorer:
    """The detector of the bundle in `BENCH_BUNDLE`."""

    def __init__(self) -> None:
        files = read_folder(Path(os.environ[BUNDLE_VARIABLE]))
        detector = load_detector(files, device="auto", max_pixels=_MAX_PIXELS)
        detector.compile()
        self._threshold = verify_bundle(files).threshold.value
        self.prepare = detector.prepare
        self._score = detector.score

    def score(self, images: Sequence[Any]) -> list[dict[str, Any]]:
        """Score prepared images. Returns what is answered for each."""
        scores = self._score(images).scores.tolist()
        return [{"score": score, "verdict": "ng" if score >= self._threshold else "ok"} for score in scores]
