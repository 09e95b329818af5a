"""Where the part is, and how much it varies."""

import numpy as np
import pytest

from core.vision.selection.part_appearance import learn_appearance
from tests.fixtures.textured_parts import BACKGROUND, disc, part_on_background, texture


@pytest.mark.parametrize("side", [64, 96, 256])
@pytest.mark.parametrize("center", [(0.5, 0.5), (0.35, 0.6), (0.7, 0.3)])
def test_a_part_is_found_wherever_it_lies(side: int, center: tuple[float, float]) -> None:
    images = [part_on_background(seed, side=side, center=center) for seed in range(6)]
    appearance = learn_appearance(images)
    assert appearance.has_background
    assert appearance.area == pytest.approx(np.pi * 0.25**2, rel=0.15)
    found = appearance.foreground(images[0])
    expected = disc(side, center)
    assert (found.mask & expected).sum() / (found.mask | expected).sum() > 0.85
    assert found.background == pytest.approx(BACKGROUND, abs=5)


def test_a_texture_is_the_part_itself() -> None:
    images = [texture(seed) for seed in range(6)]
    appearance = learn_appearance(images)
    assert not appearance.has_background
    assert appearance.area == 1
    assert appearance.foreground(images[0]).mask.all()
    assert appearance.deviation == pytest.approx(8, rel=0.25)


def test_an_image_without_the_background_is_all_part() -> None:
    appearance = learn_appearance([part_on_background(seed) for seed in range(6)])
    assert appearance.foreground(texture(0)).mask.all()
    assert appearance.foreground(texture(0)).background is None


def test_flat_images_have_a_small_deviation_and_no_background() -> None:
    appearance = learn_appearance([np.full((40, 60, 3), 90, np.uint8)] * 3)
    assert not appearance.has_background
    assert appearance.deviation == 1


def test_images_of_more_than_eight_bits_give_the_same() -> None:
    images = [part_on_background(seed) for seed in range(6)]
    deep = learn_appearance([image.astype(np.float32) for image in images])
    shallow = learn_appearance(images)
    assert deep.area == pytest.approx(shallow.area, rel=0.05)
    assert deep.deviation == pytest.approx(shallow.deviation, rel=0.05)


def test_the_side_of_the_part_is_the_root_of_its_area() -> None:
    appearance = learn_appearance([part_on_background(seed) for seed in range(6)])
    assert appearance.side(400, 100) == pytest.approx((appearance.area * 400 * 100) ** 0.5)
