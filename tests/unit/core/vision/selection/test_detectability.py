"""Measuring what a detector can find."""

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from core.vision.bundle.detectability import Detectability
from core.vision.evaluation.metrics import Scores
from core.vision.input.prepared_image import PreparedImage
from core.vision.selection.detectability import HeldOutPart, measure_detectability
from core.vision.selection.part_appearance import learn_appearance
from tests.fixtures.textured_parts import texture

IMAGES = [np.repeat(np.full((64, 64, 1), 120, np.uint8), 3, axis=2) for _ in range(12)]
APPEARANCE = learn_appearance(IMAGES)


def largest_change(images: Sequence[PreparedImage]) -> Scores:
    """Score images by the largest change of a level of 120, which an ideal detector of flat parts sees."""
    return np.array([np.abs(image.astype(float) - 120).max() for image in images])


def measure(score: Any = largest_change, threshold: float = 25.0, **options: Any) -> Detectability:
    options = {"appearance": APPEARANCE, "covered": (640.0, 640.0), **options}
    parts = [HeldOutPart(image, score) for image in options.pop("images", IMAGES)]
    return measure_detectability(parts, threshold=threshold, **options)


def test_an_ideal_detector_catches_what_exceeds_its_threshold() -> None:
    record = measure(threshold=25.0)  # 9.8 % of the full scale
    spots = [cell for cell in record.cells if cell.kind == "spot" and cell.size_px >= 20]
    assert all(cell.caught == cell.count for cell in spots if (cell.contrast_percent or 0) > 10)
    assert all(cell.caught == 0 for cell in spots if (cell.contrast_percent or 0) < 9)
    assert record.fit_for_use
    assert record.images == 10
    assert record.statement[0].startswith("At the threshold it catches 100 % of spots of ")


def test_each_kind_has_sizes_in_pixels_of_the_image_as_sent() -> None:
    record = measure()
    spots = sorted({cell.size_px for cell in record.cells if cell.kind == "spot"})
    assert spots == [6, 13, 26, 51]
    assert {cell.contrast_percent for cell in record.cells if cell.kind == "spot"} == {5, 10, 20, 40}
    assert all(cell.size_share == pytest.approx(cell.size_px / 640) for cell in record.cells)
    small = measure(covered=(64.0, 64.0))
    for kind in {cell.kind for cell in small.cells}:
        sizes = sorted({cell.size_px for cell in small.cells if cell.kind == kind})
        assert sizes[0] >= 1
        assert all(low < high for low, high in pairwise(sizes))


def test_the_interval_is_that_of_clopper_and_pearson() -> None:
    for cell in measure(threshold=30.0).cells:
        low, high = cell.interval
        tail = 0.025
        if cell.caught > 0:
            assert stats.binom.sf(cell.caught - 1, cell.count, low) == pytest.approx(tail, abs=1e-6)
        else:
            assert low == 0
        if cell.caught < cell.count:
            assert stats.binom.cdf(cell.caught, cell.count, high) == pytest.approx(tail, abs=1e-6)
        else:
            assert high == 1


def test_a_stronger_defect_is_caught_no_less() -> None:
    cells = measure(threshold=30.0).cells
    for kind in ("spot", "scratch", "stain"):
        for size in {cell.size_px for cell in cells if cell.kind == kind}:
            of_size = [cell for cell in cells if cell.kind == kind and cell.size_px == size]
            caught = [cell.caught for cell in sorted(of_size, key=lambda cell: cell.contrast_percent or 0)]
            assert caught == sorted(caught)


def test_a_blind_detector_is_not_fit_for_use() -> None:
    record = measure(lambda images: np.zeros(len(images)), threshold=1.0)
    assert not record.fit_for_use
    assert record.reasons == ["it catches only 0 of 40 large, strong synthetic spots and scratches"]
    assert any("--pose upright" in advice for advice in record.advice)
    assert record.statement[0].startswith("At the threshold it catches 0 % of spots of 51 px and 40 % contrast;")


def test_a_threshold_that_is_too_high_is_named_as_the_cause() -> None:
    record = measure(threshold=250.0)
    assert not record.fit_for_use
    assert any("--false-reject-rate" in advice for advice in record.advice)


def test_defects_are_drawn_into_accepted_images_only() -> None:
    def score(images: Sequence[PreparedImage]) -> Scores:
        return np.asarray(
            largest_change(images) + 100 * np.array([image[0, 0, 0] != image[0, 0, 1] for image in images])
        )

    odd = IMAGES[0].copy()
    odd[0, 0, 0] = 119  # rejected without any defect
    record = measure(score, images=[odd, *IMAGES[:3]], threshold=60.0)
    assert record.images == 3
    assert all(cell.caught == 0 for cell in record.cells if cell.contrast_percent == 5)
    assert measure(score, images=[odd], threshold=60.0).images == 1


def test_the_same_seed_gives_the_same_record() -> None:
    images = [texture(seed, side=64) for seed in range(5)]

    def roughness(some: Sequence[PreparedImage]) -> Scores:
        return np.array([float(np.abs(np.diff(image.astype(float), axis=0)).max()) for image in some])

    options: dict[str, Any] = {"images": images, "appearance": learn_appearance(images), "rounds": 3}
    first, second = (measure(roughness, seed=4, **options) for _ in range(2))
    assert first == second
    assert measure(roughness, seed=5, **options) != first


def test_the_time_bounds_the_number_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 100_000, 10))
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("core.vision.selection.detectability.time", clock)
    updates: list[tuple[int, int]] = []
    record = measure(max_seconds=5.0, progress=lambda done, total: updates.append((done, total)))
    assert {cell.count for cell in record.cells} == {4}
    cells = len(record.cells)
    assert updates == [(cells * number, cells * 10) for number in range(1, 5)]
    without_limit = measure(rounds=4, max_seconds=1e9)
    assert without_limit == record
