"""The split of reviewed parts: no part is on both sides, and no more is held out than is needed to judge."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.vision.reviewed_parts.split import ENOUGH_GOOD, HELD_SHARE, MAX_HELD_ORDINARY, Kind, group, hold_out

kinds = st.sampled_from(["ok", "ordinary", "test good", "test defective"])
images = st.lists(st.tuples(st.integers(0, 30), kinds), max_size=120)
keys = st.lists(st.sets(st.integers(0, 12), max_size=3), max_size=40)


@given(keys)
def test_images_that_share_a_key_are_in_one_group(keys_of_images: list[set[int]]) -> None:
    groups = group(keys_of_images)
    assert list(dict.fromkeys(groups)) == list(range(len(set(groups))))
    by_key: dict[int, set[int]] = {}
    for number, keys_of_image in zip(groups, keys_of_images, strict=True):
        for key in keys_of_image:
            by_key.setdefault(key, set()).add(number)
    assert all(len(numbers) == 1 for numbers in by_key.values())


@given(keys)
def test_images_are_grouped_only_by_a_chain_of_shared_keys(keys_of_images: list[set[int]]) -> None:
    groups = group(keys_of_images)
    for number in set(groups):
        members = [set(each) for each, of in zip(keys_of_images, groups, strict=True) if of == number]
        reached, waiting = members[0], members[1:]
        while chained := [each for each in waiting if each & reached]:
            reached = reached.union(*chained)
            waiting = [each for each in waiting if each not in chained]
        assert not waiting


@given(images, st.integers(0, 2**32 - 1))
def test_no_group_is_on_both_sides(drawn: list[tuple[int, Kind]], seed: int) -> None:
    groups, kinds_of_images = [number for number, _ in drawn], [kind for _, kind in drawn]
    held = hold_out(groups, kinds_of_images, seed=seed)
    assert held == hold_out(groups, kinds_of_images, seed=seed)
    sides = {(number, side) for number, side in zip(groups, held, strict=True)}
    assert len(sides) == len(set(groups))
    assert all(side for kind, side in zip(kinds_of_images, held, strict=True) if kind.startswith("test"))


@given(images, st.integers(0, 2**32 - 1))
def test_what_is_held_is_bounded(drawn: list[tuple[int, Kind]], seed: int) -> None:
    groups, kinds_of_images = [number for number, _ in drawn], [kind for _, kind in drawn]
    held = hold_out(groups, kinds_of_images, seed=seed)
    fixed = {number for number, kind in drawn if kind.startswith("test")}
    all_images = Counter(kinds_of_images)
    by_drawing = Counter(kind for (number, kind), side in zip(drawn, held, strict=True) if side and number not in fixed)
    assert by_drawing["ok"] <= all_images["ok"] / 2
    assert by_drawing["ordinary"] <= MAX_HELD_ORDINARY * all_images["ordinary"]
    if "test defective" not in kinds_of_images:
        assert by_drawing.total() == 0


def test_a_quarter_of_single_images_is_held_and_ordinary_parts_fill_up() -> None:
    def held(ok: int, ordinary: int, *, defective: int = 3) -> Counter[Kind]:
        drawn: list[Kind] = [*["ok"] * ok, *["ordinary"] * ordinary, *["test defective"] * defective]  # type: ignore[list-item]
        sides = hold_out(range(len(drawn)), drawn, seed=0)
        return Counter(kind for kind, side in zip(drawn, sides, strict=True) if side)

    assert held(100, 300) == {"ok": HELD_SHARE * 100, "test defective": 3}
    assert held(40, 300) == {"ok": 10, "ordinary": ENOUGH_GOOD - 10, "test defective": 3}
    assert held(40, 50) == {"ok": 10, "ordinary": 5, "test defective": 3}
    assert held(2, 0) == {"ok": 1, "test defective": 3}
    assert held(1, 0) == {"test defective": 3}
    assert held(0, 300) == {"ordinary": ENOUGH_GOOD, "test defective": 3}
    assert held(100, 300, defective=0) == {}


def test_a_part_that_was_also_reviewed_ng_is_judged_with() -> None:
    groups, kinds_of_images = [0, 0, 1, 2, 2], ["test defective", "ok", "ok", "ordinary", "test good"]
    assert hold_out(groups, kinds_of_images, seed=1)[:2] == [True, True]  # type: ignore[arg-type]
    assert hold_out(groups, kinds_of_images, seed=1)[3:] == [True, True]  # type: ignore[arg-type]
