"""The record of what a model version can find, and the sentences about it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.vision.bundle.detectability import Detectability, DetectabilityCell, state
from core.vision.bundle.manifest import GoldenScore, Manifest, Threshold, checksums, verify_bundle
from core.vision.detectors.architecture import WEIGHTS, Architecture
from core.vision.input.record import Preprocessing
from tests.fixtures.detectability_records import CELLS, STATEMENT, cell, record

FILES = {WEIGHTS: b"weights", "golden/0.png": b"image"}


def manifest(**changes: Any) -> Manifest:
    return Manifest(
        architecture=Architecture(name="conv-autoencoder", settings={"width": 128}),
        preprocessing=Preprocessing(width=128, height=128, scaled_decode=True),
        score_method="mse",
        threshold=Threshold(value=0.002, calibration=None),
        training=None,
        metrics=None,
        libraries={},
        golden=[GoldenScore(file="golden/0.png", score=0.001)],
        golden_tolerance={"cpu/float32": 1e-5},
        files=checksums(FILES),
        **changes,
    )


def test_the_statement_names_what_is_caught_and_what_is_missed() -> None:
    assert state(CELLS) == STATEMENT


def test_nothing_missed_is_not_mentioned() -> None:
    assert state([cell("spot", 6, 20, 20), cell("spot", 12, 20, 20)]) == [
        "At the threshold it catches 100 % of spots of 6 px and 20 % contrast."
    ]


def test_a_faint_defect_caught_by_luck_is_not_shown() -> None:
    cells = [cell("spot", 6, 10, 20), cell("spot", 6, 20, 3), cell("spot", 12, 10, 20), cell("spot", 12, 20, 20)]
    assert state(cells)[0] == "At the threshold it catches 100 % of spots of 12 px and 10 % contrast."
    assert state(cells)[1] == "It misses most spots of 6 px and 20 % contrast."


@given(st.lists(st.integers(0, 20), min_size=8, max_size=8))
def test_the_statement_shows_a_reliable_or_the_strongest_defect_of_each_kind(caught: list[int]) -> None:
    places = [(kind, size, contrast) for kind in ("spot", "scratch") for size in (3, 9) for contrast in (10, 30)]
    cells = [cell(*place, number) for place, number in zip(places, caught, strict=True)]
    sentence = state(cells)[0]
    for kind, name in (("spot", "spots"), ("scratch", "scratches")):
        [shown] = [some for some in cells if some.kind == kind and some.describe() in sentence]
        assert f"{100 * shown.share:.0f} % of {name}" in sentence
        assert shown.share >= 0.9 or (shown.size_px, shown.contrast_percent) == (9, 30)


def test_a_manifest_keeps_the_record() -> None:
    encoded = manifest(detectability=record()).to_json()
    decoded = verify_bundle({**FILES, "manifest.json": encoded})
    assert decoded.detectability == record()
    assert decoded.to_json() == encoded


def test_old_manifests_have_no_record() -> None:
    encoded = manifest().to_json().replace(b'  "detectability": null,\n', b"")
    assert b"detectability" not in encoded
    assert verify_bundle({**FILES, "manifest.json": encoded}).detectability is None


def test_the_record_is_consistent() -> None:
    with pytest.raises(ValidationError, match="caught is larger than count"):
        DetectabilityCell.model_validate({**CELLS[0].model_dump(), "caught": 21})
    for changes in ({"fit_for_use": False}, {"reasons": ["it is blind"]}):
        with pytest.raises(ValidationError, match="reasons are for"):
            Detectability.model_validate({**record().model_dump(), **changes})
