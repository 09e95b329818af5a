"""The scores of the calibration in a bundle, from which the false-reject rate at any threshold can be computed."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from core.vision.bundle.manifest import Manifest, encode_json

HELD_OUT_SCORES: Final = "held_out_scores.json"
"""An object with the list `scores`: of the good parts of the calibration, ascending, each by a detector that was not
fitted to the part. A bundle that was made before this file does not have it."""


def encode_held_out_scores(scores: Iterable[float]) -> bytes:
    """Encode the file."""
    return encode_json({"scores": sorted(scores)})


def read_held_out_scores(files: Mapping[str, bytes], manifest: Manifest) -> list[float] | None:
    """Return the scores in a bundle, ascending; None if it has none, or not those of its calibration."""
    calibration = manifest.threshold.calibration
    if calibration is None or HELD_OUT_SCORES not in files:
        return None
    try:
        content: Any = json.loads(files[HELD_OUT_SCORES], parse_int=float)
    except (ValueError, RecursionError):
        return None
    scores = content.get("scores") if isinstance(content, dict) else None
    if not isinstance(scores, list) or len(scores) != calibration.sample_size:
        return None
    if not all(isinstance(score, float) and math.isfinite(score) for score in scores):
        return None
    return sorted(scores)
