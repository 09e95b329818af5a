"""A diagnosis has the verdict of a worker, and shows the prepared image, its reconstruction and the anomaly map."""

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
from tests.fixtures.deep_images import deep_levels, deep_png
from tests.fixtures.part_images import encoded, part, png


def test_the_shown_image_is_the_scored_one(detector: AutoencoderDetector) -> None:
    data = png(1, scratched=True)
    scored = detector.score([detector.prepare(data)])
    score = float(scored.scores[0])
    diagnosis = diagnose(detector, data, threshold=score / 2, review_threshold=score / 4)
    assert (diagnosis.score, diagnosis.verdict, diagnosis.is_anomaly, diagnosis.reasons) == (score, "ng", True, [])
    assert list(diagnosis.panels) == ["reconstruction", "residue", "anomaly map"]
    np.testing.assert_array_equal(diagnosis.prepared, detector.prepare(data))
    np.testing.assert_array_equal(diagnosis.panels["anomaly map"], scored.maps[0])
    expected = overlay(decode(data, max_pixels=10**6), scale_to_threshold(scored.maps[0], score, score / 2))
    assert diagnosis.overlay.tobytes() == expected.tobytes()


def test_the_reconstruction_and_its_residual_explain_the_score(detector: AutoencoderDetector) -> None:
    image = detector.prepare(png(2))
    panels = detector.diagnosis(image)
    reconstructed, residue = panels["reconstruction"], panels["residue"]
    assert (str(reconstructed.dtype), reconstructed.shape) == ("uint8", image.shape)
    assert (str(residue.dtype), residue.shape) == ("float32", image.shape[:2])
    np.testing.assert_allclose(residue, np.abs(image - reconstructed.astype(float)).mean(axis=2), atol=0.51)


def test_an_image_that_fails_a_check_needs_review_with_its_reason(detector: AutoencoderDetector) -> None:
    settings = detector.preprocessing
    expected = learn_input_ranges([measure_image(prepare(png(seed), settings, max_pixels=10**6)) for seed in range(5)])
    diagnosis = diagnose(detector, encoded(Image.new("RGB", (96, 64))), threshold=1e-9, inputs=expected)
    assert (diagnosis.verdict, diagnosis.reasons, diagnosis.is_anomaly) == ("review", ["input_dark"], True)
    assert describe(diagnosis).startswith("review, because of input_dark: score ")
    assert diagnose(detector, png(9), threshold=1.0, inputs=expected).verdict == "ok"


@pytest.mark.parametrize("size", [(300, 200), (40, 900), (1500, 60)], ids=["wide", "tall", "flat"])
def test_a_sheet_contains_every_panel(detector: AutoencoderDetector, size: tuple[int, int]) -> None:
    diagnosis = diagnose(detector, encoded(part(3, size=size)), threshold=0.05)
    image = draw_sheet(diagnosis, "a part with a rather long name " * 6)
    assert image.mode == "RGB"
    assert image.width >= 900
    assert image.height < 600
    out = io.BytesIO()
    image.save(out, "PNG")
    assert len(np.unique(np.asarray(image).reshape(-1, 3), axis=0)) > 100


def test_a_deep_image_is_shown_with_its_depth(detector: AutoencoderDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "preprocessing", detector.preprocessing.model_copy(update={"bit_depth": 12}))
    data = deep_png(deep_levels(1))
    diagnosis = diagnose(detector, data, threshold=1e9)
    assert diagnosis.verdict == "ok"
    assert diagnosis.prepared.dtype == np.float32
    assert np.asarray(diagnosis.overlay).mean() > 60  # of 255: without the bit depth it would be almost black
    assert np.asarray(draw_sheet(diagnosis, "a deep image")).dtype == np.uint8
    of_8_bits = diagnose(detector, png(1), threshold=1e9)
    assert (of_8_bits.verdict, of_8_bits.reasons) == ("review", ["input_depth"])
    assert of_8_bits.score == pytest.approx(diagnosis.score, rel=0.05)


def test_an_image_without_a_score(detector: AutoencoderDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Undecodable):
        diagnose(detector, png(4)[:300], threshold=1)
    scored = detector.score([detector.prepare(png(4))])
    scored.scores[:] = np.nan
    monkeypatch.setattr(detector, "score", lambda images: scored)
    with pytest.raises(ScoreNotFinite, match="there is no verdict"):
        diagnose(detector, png(4), threshold=1)
