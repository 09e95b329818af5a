"""Synthetic defects: on the part, of the planned size and contrast, and the same each time."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.vision.input.prepared_image import PreparedImage
from core.vision.selection.part_appearance import learn_appearance
from core.vision.selection.synthetic_defects import KINDS, TONED, Defect, Kind, draw, plan_defects
from tests.fixtures.textured_parts import part_on_background, texture

PARTS = [part_on_background(seed) for seed in range(6)]
TEXTURES = [texture(seed) for seed in range(6)]
ON_BACKGROUND, TEXTURED = learn_appearance(PARTS), learn_appearance(TEXTURES)

shares = st.floats(0, 1, exclude_max=True)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def defects(draw_from: st.DrawFn) -> Defect:
    kind: Kind = draw_from(st.sampled_from(KINDS))
    size = draw_from(st.floats(0.002, 0.02) if kind == "scratch" else st.floats(0.005, 0.3))
    contrast = draw_from(st.floats(0.1, 255) if kind in TONED else st.floats(0.05, 1))
    return Defect(kind, size, contrast, (draw_from(shares), draw_from(shares)), draw_from(seeds))


@given(defects(), st.sampled_from([np.uint8, np.float32]), st.booleans())
def test_the_mask_is_what_changed_and_lies_on_the_part(defect: Defect, dtype: type, has_background: bool) -> None:
    images, appearance = (PARTS, ON_BACKGROUND) if has_background else (TEXTURES, TEXTURED)
    image: PreparedImage = images[0].astype(dtype)
    donor: PreparedImage = images[1].astype(dtype)
    before = image.copy()
    result = draw(image, defect, appearance, donor=donor)
    assert (image == before).all()
    assert result.pixels.dtype == dtype
    assert result.pixels.shape == image.shape
    assert result.pixels.min() >= 0
    assert result.pixels.max() <= 255
    assert (result.mask == (result.pixels != image).any(axis=2)).all()
    assert not (result.mask & ~appearance.foreground(image).mask).any()


@given(defects())
def test_the_same_defect_is_drawn_the_same_way(defect: Defect) -> None:
    first, second = (draw(PARTS[0], defect, ON_BACKGROUND, donor=PARTS[1]) for _ in range(2))
    assert (first.pixels == second.pixels).all()


@given(defects().filter(lambda defect: defect.kind != "noise"), st.floats(0.1, 0.9))
def test_a_stronger_defect_changes_no_pixel_less(defect: Defect, factor: float) -> None:
    image, donor = TEXTURES[0].astype(np.float32), TEXTURES[1].astype(np.float32)
    weaker = Defect(defect.kind, defect.size, defect.contrast * factor, defect.place, defect.seed)
    faint, strong = (np.abs(draw(image, each, TEXTURED, donor=donor).pixels - image) for each in (weaker, defect))
    assert (strong >= faint - 1e-3).all()


@pytest.mark.parametrize("kind", ["spot", "stain", "scratch"])
@pytest.mark.parametrize("contrast", [5.0, 20.0, 60.0])
def test_the_contrast_is_in_grey_levels(kind: Kind, contrast: float) -> None:
    image = np.full((128, 128, 3), 120.0, np.float32)
    size = 0.03 if kind == "scratch" else 0.3
    change = draw(image, Defect(kind, size, contrast, (0.5, 0.5), 1), TEXTURED).pixels - image
    assert np.abs(change).max() == pytest.approx(contrast, rel=0.05)


def test_noise_has_the_requested_deviation() -> None:
    changes = [
        draw(TEXTURES[0].astype(np.float32), Defect("noise", 0.5, 12.0, (0.5, 0.5), seed), TEXTURED).pixels
        - TEXTURES[0]
        for seed in range(5)
    ]
    middle = np.concatenate([change[40:56, 40:56].ravel() for change in changes])
    assert middle.std() == pytest.approx(12, rel=0.35)


@pytest.mark.parametrize(("kind", "size"), [("spot", 0.1), ("spot", 0.25), ("stain", 0.25)])
def test_the_size_is_a_share_of_the_part_at_each_resolution(kind: Kind, size: float) -> None:
    for side in (64, 128, 256):
        image = np.full((side, side, 3), 120.0, np.float32)
        changes = [
            np.abs(draw(image, Defect(kind, size, 50.0, (0.5, 0.5), seed), TEXTURED).pixels - image).max(axis=2)
            for seed in range(30)
        ]
        diameters = [2 * float((change > 25).sum() / np.pi) ** 0.5 / side for change in changes]
        assert np.mean(diameters) == pytest.approx(size, rel=0.12)


@pytest.mark.parametrize("width", [0.002, 0.005, 0.02])
def test_a_scratch_darkens_by_its_width_even_below_a_pixel(width: float) -> None:
    totals = []
    for side in (128, 512):
        image = np.full((side, side, 3), 120.0, np.float32)
        change = np.abs(draw(image, Defect("scratch", width, 50.0, (0.5, 0.5), 3), TEXTURED).pixels - image)
        totals.append(float(change.sum()) / side**2)
    assert totals[0] == pytest.approx(totals[1], rel=0.05)


@given(defects().filter(lambda defect: defect.kind in ("spot", "scratch", "stain")))
def test_a_defect_is_at_the_same_place_at_each_resolution(defect: Defect) -> None:
    # At 64 pixels, the centre of a scratch that the border cuts off depends on single pixels.
    images = [np.full((side, side, 3), 120.0, np.float32) for side in (160, 480)]
    changes = [np.abs(draw(image, defect, TEXTURED).pixels - image).max(axis=2) for image in images]
    if (changes[0] > 0).sum() < 40:
        return
    centers = [(np.indices(change.shape) * change).sum(axis=(1, 2)) / change.sum() / len(change) for change in changes]
    assert centers[0] == pytest.approx(centers[1], abs=0.05)


def test_a_spot_is_round_in_the_image_as_sent() -> None:
    image = np.full((128, 128, 3), 120.0, np.float32)  # prepared from 400 × 100 pixels
    sides = []
    for seed in range(20):
        mask = draw(image, Defect("spot", 0.2, 50.0, (0.5, 0.5), seed), TEXTURED, aspect=4.0).mask
        rows, columns = np.argwhere(mask).std(axis=0)
        sides.append(rows / columns)
    assert np.mean(sides) == pytest.approx(4, rel=0.15)


def test_a_missing_area_shows_the_background() -> None:
    result = draw(PARTS[0], Defect("missing", 0.3, 1.0, (0.5, 0.5), 0), ON_BACKGROUND)
    expected = ON_BACKGROUND.foreground(PARTS[0]).background
    assert expected is not None
    assert np.median(result.pixels[result.mask], axis=0) == pytest.approx(expected, abs=2)


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 1000))
def test_a_plan_is_reproducible_and_takes_turns(count: int, images: int, seed: int) -> None:
    plan = plan_defects(TEXTURED, images, count, seed)
    assert plan == plan_defects(TEXTURED, images, count + 5, seed)[:count]
    assert all(0 <= planned.image < images and 0 <= planned.donor < images for planned in plan)
    assert all(planned.image != planned.donor for planned in plan if images > 1)
    of_kinds = Counter(planned.defect.kind for planned in plan)
    of_images = Counter(planned.image for planned in plan)
    for turns, total in ((of_kinds, len(KINDS)), (of_images, images)):
        assert len(turns) == min(total, count)
        assert all(number in (count // total, -(-count // total)) for number in turns.values())


def test_planned_defects_run_from_faint_to_obvious() -> None:
    plan = [planned.defect for planned in plan_defects(TEXTURED, 10, 700, 0)]
    toned = np.array([defect.contrast / TEXTURED.deviation for defect in plan if defect.kind in TONED])
    assert toned.min() < 1.3
    assert toned.max() > 12
    assert plan_defects(TEXTURED, 10, 10, 0) != plan_defects(TEXTURED, 10, 10, 1)
