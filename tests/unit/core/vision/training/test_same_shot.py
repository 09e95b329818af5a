"""Two images are compared in detail: noise, light and small shifts do not count, other parts do."""

import numpy as np
import pytest

from core.vision.training.same_shot import Comparison, compare, make_detail
from tests.fixtures.repeated_shots import Picture, grained_part, shot, smooth_screw


def compared(first: Picture, second: Picture) -> Comparison:
    return compare(make_detail(first.astype(np.float32)), make_detail(second.astype(np.float32)))


@pytest.mark.parametrize("side", [48, 96, 200])
def test_the_same_shot_has_the_same_detail(side: int) -> None:
    part = grained_part(1, side=side)
    found = compared(shot(part, 1), shot(part, 2, gain=0.9, offset=10, shift=(1.5, -0.5)))
    assert found.same
    assert found.residual < 0.1
    assert found.disagreement < 0.2


def test_an_image_is_the_same_as_itself() -> None:
    part = grained_part(1)
    found = compared(part, part)
    assert found.same
    assert max(found.residual, found.disagreement) < 1e-6


def test_another_grain_disagrees_even_if_the_shape_is_the_same() -> None:
    same = compared(shot(grained_part(1), 1), shot(grained_part(1), 2))
    other = compared(shot(grained_part(1), 1), shot(grained_part(2), 2))
    assert other.residual > 4 * same.residual
    assert other.disagreement > 4 * same.disagreement


@pytest.mark.parametrize(
    ("degrees", "x"), [(31.5, 0.0), (30, 0.1), (210, 0)], ids=["turned", "elsewhere", "upside down"]
)
def test_a_part_in_another_pose_is_not_the_same_shot(degrees: float, x: float) -> None:
    assert compared(shot(smooth_screw(30), 1), shot(smooth_screw(30), 2)).same
    assert not compared(shot(smooth_screw(30), 1), shot(smooth_screw(degrees, x=x), 2)).same


def test_a_local_difference_is_not_explained() -> None:
    part = smooth_screw(30)
    other = np.where(smooth_screw(30) < 200, smooth_screw(30, x=0.02), part)
    assert not compared(shot(part, 1), shot(other, 2)).same


@pytest.mark.parametrize("shape", [(8, 8), (8, 200), (100, 50)])
def test_images_without_common_detail_are_not_the_same(shape: tuple[int, int]) -> None:
    blank = np.full(shape, 50.0)
    assert not compared(blank, blank).same
    assert not compared(shot(blank, 1), shot(blank, 2)).same


def test_images_of_other_sizes_are_not_the_same() -> None:
    part = grained_part(1)
    assert compared(part, part[3:, :-3]).same
    assert not compared(part, part[20:]).same
