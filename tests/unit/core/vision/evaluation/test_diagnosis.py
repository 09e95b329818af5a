"""A diagnosis judges as a worker does and shows what the detector saw, made of it, and found."""

import io

import numpy as np
import pytest
from PIL import Image

from core.intake.image_decoding import Undecodable, decode
from core.vision.detectors.autoencoder import AutoencoderDetector
from core.vision.evaluation.diagnosis import describe, diagnose, draw_sheet
from core.vision.evaluation.evaluation import ScoreNotFinite
from core.vision.evaluation.heatmap import overlay, scale_to_threshold
from core.vision.input.input_checks import learn_input_ranges, measure_image
from core.vision.input.preprocessing import prepare
from tests.fixtures.part_images import encoded, part, png


def test_it_judges_and_shows_the_same_image(detector: AutoencoderDetector) -> None:
    data = png(1, scratched=True)
    scored = detector.score([detector.prepare(data)])
    score = float(scored.scores[0])
    found = diagnose(detector, data, threshold=score / 2, review_threshold=score / 4)
    assert (found.score, found.verdict, found.is_anomaly, found.reasons) == (score, "ng", True, [])
    assert list(found.panels) == ["reconstruction", "residue", "anomaly map"]
    np.testing.assert_array_equal(found.prepared, detector.prepare(data))
    np.testing.assert_array_equal(found.panels["anomaly map"], scored.maps[0])
    expected = overlay(decode(data, max_pixels=10**6), scale_to_threshold(scored.maps[0], score, score / 2))
    assert found.overlay.tobytes() == expected.tobytes()


def test_the_reconstruction_and_its_residue_explain_the_error(detector: AutoencoderDetector) -> None:
    image = detector.prepare(png(2))
    panels = detector.diagnosis(image)
    reconstructed, residue = panels["reconstruction"], panels["residue"]
    assert (str(reconstructed.dtype), reconstructed.shape) == ("uint8", image.shape)
    assert (str(residue.dtype), residue.shape) == ("float32", image.shape[:2])
    np.testing.assert_allclose(residue, np.abs(image - reconstructed.astype(float)).mean(axis=2), atol=0.51)


def test_an_odd_image_is_for_review_with_its_reason(detector: AutoencoderDetector) -> None:
    settings = detector.preprocessing
    expected = learn_input_ranges([measure_image(prepare(png(seed), settings, max_pixels=10**6)) for seed in range(5)])
    found = diagnose(detector, encoded(Image.new("RGB", (96, 64))), threshold=1e-9, inputs=expected)
    assert (found.verdict, found.reasons, found.is_anomaly) == ("review", ["input_dark"], True)
    assert describe(found).startswith("review, because of input_dark: score ")
    assert diagnose(detector, png(9), threshold=1.0, inputs=expected).verdict == "ok"


@pytest.mark.parametrize("size", [(300, 200), (40, 900), (1500, 60)], ids=["wide", "tall", "flat"])
def test_a_sheet_holds_every_panel(detector: AutoencoderDetector, size: tuple[int, int]) -> None:
    found = diagnose(detector, encoded(part(3, size=size)), threshold=0.05)
    image = draw_sheet(found, "a part with a rather long name " * 6)
    assert image.mode == "RGB"
    assert image.width >= 900
    assert image.height < 600
    out = io.BytesIO()
    image.save(out, "PNG")
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 100


def test_an_image_that_cannot_be_judged(detector: AutoencoderDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Undecodable):
        diagnose(detector, png(4)[:300], threshold=1)
    scored = detector.score([detector.prepare(png(4))])
    scored.scores[:] = np.nan
    monkeypatch.setattr(detector, "score", lambda images: scored)
    with pytest.raises(ScoreNotFinite, match="judges nothing"):
        diagnose(detector, png(4), threshold=1)
