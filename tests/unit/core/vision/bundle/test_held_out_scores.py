"""The held-out scores of a bundle are read back, unless they are not those of its calibration."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.vision.bundle.folder import read_folder
from core.vision.bundle.held_out_scores import HELD_OUT_SCORES, encode_held_out_scores, read_held_out_scores
from core.vision.bundle.manifest import Manifest, Threshold, verify_bundle
from core.vision.calibration.calibration import calibrate

SCORES = np.random.default_rng(0).gamma(2.0, size=30).tolist()


@pytest.fixture
def manifest(bundle: Path) -> Manifest:
    """A manifest with a calibration."""
    calibration = calibrate(SCORES, 0.1)
    threshold = Threshold(value=calibration.threshold, calibration=calibration)
    return verify_bundle(read_folder(bundle)).model_copy(update={"threshold": threshold})


def test_scores_are_read_back_in_ascending_order(manifest: Manifest) -> None:
    files = {HELD_OUT_SCORES: encode_held_out_scores(SCORES)}
    assert read_held_out_scores(files, manifest) == sorted(SCORES)


def test_an_earlier_bundle_has_none(manifest: Manifest, bundle: Path) -> None:
    assert read_held_out_scores({}, manifest) is None
    without_calibration = verify_bundle(read_folder(bundle))
    assert read_held_out_scores({HELD_OUT_SCORES: encode_held_out_scores(SCORES)}, without_calibration) is None


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        *(json.dumps(each).encode() for each in ({}, {"scores": SCORES[1:]}, {"scores": ["0.5"] * 30})),
        b'{"scores": [' + b", ".join([b"1e999"] * 30) + b"]}",
    ],
)
def test_other_content_is_no_sample(manifest: Manifest, content: Any) -> None:
    assert read_held_out_scores({HELD_OUT_SCORES: content}, manifest) is None
