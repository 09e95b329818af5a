"""Alignment is learned from good parts where it works, and not elsewhere."""

import numpy as np
import pytest

from core.vision.input.alignment import find_match
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.template import Motion
from core.vision.training.alignment_learning import learn_alignment
from tests.fixtures.still_parts import draw_plate

SIZE = (96, 96)


def plates(count: int) -> list[PreparedImage]:
    return [draw_plate(seed) for seed in range(count)]


def test_the_references_stay_where_the_parts_are() -> None:
    """Parts that lie around their place by up to 3 % and 3° give the same alignment as parts in their place."""
    random = np.random.default_rng(3)
    shaken = [
        draw_plate(seed, moved=Motion(right, down, degrees).affine(*SIZE))
        for seed, (right, down, degrees) in enumerate(random.uniform(-1, 1, (20, 3)) * (0.03, 0.03, 3))
    ]
    learned = learn_alignment(shaken, SIZE).alignment
    assert learned is not None
    motion = find_match(draw_plate(99), learned.templates).motion
    assert (motion.right, motion.down) == pytest.approx((0, 0), abs=0.01)
    assert motion.degrees == pytest.approx(0, abs=0.6)


def test_the_same_images_give_the_same_alignment() -> None:
    assert learn_alignment(plates(12), SIZE) == learn_alignment(plates(12), SIZE)


def test_the_note_says_how_well_it_works() -> None:
    note = learn_alignment(plates(12), SIZE).note
    assert note.startswith("known shifts and turns of good parts were found with a median error of 0.")
    assert note.endswith("0% were not found")


def test_two_kinds_of_parts_get_two_references() -> None:
    """Mirrored plates are another kind: their slot and bores are elsewhere."""
    mixed = [draw_plate(seed)[:, :: 1 if seed % 3 else -1] for seed in range(36)]
    learned = learn_alignment(mixed, SIZE).alignment
    assert learned is not None
    kinds = [find_match(image, learned.templates).kind for image in mixed]
    assert len(learned.references) >= 2
    assert not {kind for seed, kind in enumerate(kinds) if seed % 3} & {
        kind for seed, kind in enumerate(kinds) if not seed % 3
    }


def textures() -> list[PreparedImage]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (96, 96, 3)).astype(np.uint8) for _ in range(16)]


def stripes() -> list[PreparedImage]:
    """Stripes that run through the whole image say nothing about a shift along them."""
    random = np.random.default_rng(0)
    levels = 120 + 40 * np.sin(np.arange(96) / 5)[:, None, None] + random.normal(0, 3, (16, 96, 96, 1))
    return list(np.repeat(levels, 3, axis=3).round().clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (textures(), "images are not aligned"),
        (stripes(), "images are not aligned"),
        ([np.full((96, 96, 3), 90, np.uint8)] * 20, "nothing to align them by"),
        (plates(9), "too few"),
    ],
    ids=["textures", "stripes", "flat images", "few images"],
)
def test_images_that_cannot_be_aligned_are_left_as_they_are(images: list[PreparedImage], reason: str) -> None:
    learned = learn_alignment(images, SIZE)
    assert learned.alignment is None
    assert reason in learned.note
