"""The pose of a part on an even background: its turn, its place and its size, and what good parts have in common."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.vision.input.part_mask import SIDE, Channels, find_part, shrink
from core.vision.input.part_pose import Poses, find_pose, learn_poses
from tests.fixtures.posed_parts import (
    Placement,
    Shape,
    disc,
    draw_part,
    lined_square,
    plain_rectangle,
    random_placement,
    screw,
    silhouette,
    wedge,
)
from tests.fixtures.textured_parts import texture

_TURN_ERROR = 2.5
"""Degrees: the parts are about 60 pixels long in the copy in which their pose is found."""

turns = st.floats(0, 360, exclude_max=True)
places = st.floats(0.42, 0.58)


def small(shape: Shape, placement: Placement, *, seed: int = 0, shadow: float = 0.0) -> Channels:
    return shrink(draw_part(shape, placement, seed=seed, shadow=shadow))


def learned(shape: Shape, placements: Sequence[Placement], *, shadow: float = 0.0) -> Poses | None:
    return learn_poses([small(shape, placement, seed=seed, shadow=shadow) for seed, placement in enumerate(placements)])


def in_any_pose(shape: Shape, *, shadow: float = 0.0) -> Poses:
    poses = learned(shape, [random_placement(seed) for seed in range(16)], shadow=shadow)
    assert poses is not None
    return poses


@pytest.fixture(scope="module")
def poses() -> Callable[[Shape], Poses]:
    """The poses of 16 parts of a shape that lie in any pose."""
    known: dict[Shape, Poses] = {}

    def learn(shape: Shape) -> Poses:
        if shape not in known:
            known[shape] = in_any_pose(shape)
        return known[shape]

    return learn


def difference(degrees: float, other: float, fold: int = 1) -> float:
    """Return by how much turns differ, degrees, if the part looks alike after a `fold`-th of a turn."""
    period = 360 / fold
    return abs((degrees - other + period / 2) % period - period / 2)


@pytest.mark.parametrize(
    ("shape", "axis", "lopsided", "fold"),
    [
        pytest.param(wedge, "area", True, 1, id="wedge"),
        pytest.param(silhouette, "area", True, 1, id="silhouette"),
        pytest.param(screw, "area", True, 1, id="screw"),
        pytest.param(lined_square, "lines", False, 1, id="lined-square"),
        pytest.param(plain_rectangle, "sides", False, 2, id="plain-rectangle"),
    ],
)
@settings(max_examples=10)
@given(degrees=turns, x=places, y=places, seed=st.integers(1000, 2000))
def test_a_part_is_found_at_any_turn_and_place(
    poses: Callable[[Shape], Poses],
    shape: Shape,
    axis: str,
    lopsided: bool,
    fold: int,
    degrees: float,
    x: float,
    y: float,
    seed: int,
) -> None:
    upright = poses(shape).upright
    assert (upright.axis, upright.lopsided, upright.inside) == (axis, lopsided, True)
    pose = find_pose(small(shape, Placement(degrees, x, y), seed=seed), upright)
    assert pose is not None
    assert pose.fits(upright)
    assert difference(pose.degrees, degrees, fold) < _TURN_ERROR
    assert np.hypot(pose.x - x, pose.y - y) < 0.02
    assert pose.degrees / 0.05 == pytest.approx(round(pose.degrees / 0.05), abs=1e-6)  # the same on all machines
    assert (pose.x * 4096, pose.y * 4096) == (round(pose.x * 4096), round(pose.y * 4096))


@given(degrees=turns)
@settings(max_examples=10)
def test_a_disc_is_not_turned(poses: Callable[[Shape], Poses], degrees: float) -> None:
    assert poses(disc).upright.axis == "none"
    assert poses(disc).deviation == 0
    pose = find_pose(small(disc, Placement(degrees)), poses(disc).upright)
    assert pose is not None
    assert pose.degrees == 0
    assert pose.fits(poses(disc).upright)


@pytest.mark.parametrize("shape", [screw, lined_square, disc, silhouette])
def test_a_shadow_is_left_out(poses: Callable[[Shape], Poses], shape: Shape) -> None:
    shadowed, bare = in_any_pose(shape, shadow=25), poses(shape)
    assert shadowed.upright.shadow
    assert not bare.upright.shadow
    assert shadowed.upright.axis == bare.upright.axis
    for seed in range(100, 104):
        placement = random_placement(seed)
        with_shadow = find_pose(small(shape, placement, shadow=25), shadowed.upright)
        without = find_pose(small(shape, placement), bare.upright)
        assert with_shadow is not None
        assert without is not None
        assert np.hypot(with_shadow.x - without.x, with_shadow.y - without.y) < 0.012  # the shadow would add 0.025
        assert difference(with_shadow.degrees, without.degrees, 2) < _TURN_ERROR


@pytest.mark.parametrize(
    ("placements", "vary"),
    [
        pytest.param([Placement(20 + seed % 3) for seed in range(12)], False, id="still"),
        pytest.param([Placement(15 * seed) for seed in range(12)], True, id="turned"),
        pytest.param([Placement(20 + 180 * (seed % 2)) for seed in range(12)], True, id="turned-round"),
        pytest.param([Placement(20, 0.42 + 0.015 * seed) for seed in range(12)], True, id="shifted"),
    ],
)
def test_parts_vary_if_their_turns_or_places_do(placements: list[Placement], vary: bool) -> None:
    poses = learned(wedge, placements)
    assert poses is not None
    assert poses.vary is vary


@pytest.mark.parametrize("shape", [plain_rectangle, disc])
def test_parts_that_look_alike_both_ways_lie_still_if_only_noise_turns_them_round(shape: Shape) -> None:
    poses = learned(shape, [Placement(20 + seed % 3) for seed in range(12)])
    assert poses is not None
    assert not poses.vary


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).normal(120, 30, (100, 120, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def stained(seed: int) -> Image.Image:
    """A texture with a dark stain of another size on each."""
    pixels = np.asarray(texture(seed)).copy()
    rows, columns = np.mgrid[0:96, 0:96]
    pixels[np.hypot(rows - 48, columns - 40) < 8 + 3 * (seed % 6)] = 20
    return Image.fromarray(pixels)


def striped(seed: int) -> Image.Image:
    """A part that fills the image, with stripes up to its border."""
    rows = np.arange(100)[:, None] + np.zeros(120) + seed
    return Image.fromarray(np.where(rows % 20 < 10, 90, 160).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(noise, id="noise"),
        pytest.param(lambda seed: Image.fromarray(texture(seed)), id="texture"),
        pytest.param(stained, id="stains"),
        pytest.param(striped, id="full-frame"),
        pytest.param(lambda seed: Image.new("RGB", (120, 100), (seed, seed, seed)), id="empty"),
        pytest.param(lambda seed: Image.new("RGB", (3, 2), (seed, seed, seed)), id="tiny"),
        pytest.param(lambda seed: draw_part(wedge, Placement(scale=[35, 60, 75][seed % 3])), id="sizes"),
    ],
)
def test_what_is_no_part_of_one_size_on_an_even_background_cannot_be_brought_upright(
    draw: Callable[[int], Image.Image],
) -> None:
    assert learn_poses([shrink(draw(seed)) for seed in range(12)]) is None


@pytest.mark.parametrize(
    "placement",
    [
        pytest.param(Placement(30, scale=30), id="half-the-size"),
        pytest.param(Placement(0, scale=95), id="larger"),
        pytest.param(Placement(0, x=0.85), id="cut-at-the-right"),
        pytest.param(Placement(90, y=0.2), id="cut-at-the-top"),
    ],
)
def test_a_part_of_another_size_or_cut_off_does_not_fit(poses: Callable[[Shape], Poses], placement: Placement) -> None:
    upright = poses(wedge).upright
    pose = find_pose(small(wedge, placement), upright)
    assert pose is None or not pose.fits(upright)


def test_a_part_at_the_border_fits_if_good_parts_lie_there() -> None:
    placements = [Placement(10 * (seed % 2), x=0.75 - 0.005 * seed) for seed in range(12)]
    poses = learned(wedge, placements)
    assert poses is not None
    assert not poses.upright.inside
    pose = find_pose(small(wedge, placements[3], seed=50), poses.upright)
    assert pose is not None
    assert not pose.complete
    assert pose.fits(poses.upright)


def test_one_part_among_good_ones_may_be_missing_but_not_several() -> None:
    images = [small(wedge, random_placement(seed), seed=seed) for seed in range(40)]
    empty = shrink(Image.new("RGB", (240, 200), (200, 200, 200)))
    assert learn_poses([*images, empty]) is not None
    assert learn_poses([*images, empty, empty]) is None


def test_several_threads_find_the_same_poses(poses: Callable[[Shape], Poses]) -> None:
    upright = poses(screw).upright
    images = [small(screw, random_placement(seed), seed=seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda image: find_pose(image, upright), images))
    assert together == [find_pose(image, upright) for image in images]


@settings(max_examples=30)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from(["RGB", "F"]))
def test_an_image_of_any_size_is_reduced_in_its_shape(width: int, height: int, mode: str) -> None:
    reduced = shrink(Image.new(mode, (width, height)))
    assert reduced.dtype == np.float32
    assert reduced.shape[0] == 3
    rows, columns = reduced.shape[1:]
    assert max(rows, columns) == min(SIDE, max(width, height))
    scale = max(rows, columns) / max(width, height)
    assert abs(rows - height * scale) <= 1
    assert abs(columns - width * scale) <= 1
    assert find_part(reduced, shadow=True) is None


def test_grey_levels_with_fractions_give_the_pose_of_the_colour_image(poses: Callable[[Shape], Poses]) -> None:
    image = draw_part(wedge, random_placement(7))
    colour, grey = (find_pose(shrink(each), poses(wedge).upright) for each in (image, image.convert("L").convert("F")))
    assert colour is not None
    assert grey is not None
    assert difference(colour.degrees, grey.degrees) < 0.5
    assert (grey.x, grey.y, grey.length) == pytest.approx((colour.x, colour.y, colour.length), abs=0.005)


def test_a_larger_copy_of_an_image_has_the_same_pose(poses: Callable[[Shape], Poses]) -> None:
    placement = random_placement(8)
    larger = replace(placement, scale=3 * placement.scale, size=(720, 600))
    first, second = (find_pose(small(wedge, each), poses(wedge).upright) for each in (placement, larger))
    assert first is not None
    assert second is not None
    assert difference(first.degrees, second.degrees) < _TURN_ERROR
    assert (second.x, second.y, second.length) == pytest.approx((first.x, first.y, first.length), abs=0.02)
