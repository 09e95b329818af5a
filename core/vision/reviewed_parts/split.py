"""Split images of reviewed and of other good parts: to train on, or to judge with. No part is on both sides."""

from collections import Counter
from collections.abc import Collection, Hashable, Sequence
from typing import Final, Literal

import numpy as np

HELD_SHARE: Final = 0.25
"""The share of the images reviewed ok that are held out to judge."""

ENOUGH_GOOD: Final = 20
"""If fewer good images than this can judge, ordinary good parts are held out, too."""

MAX_HELD_ORDINARY: Final = 0.1
"""At most this share of them."""

Kind = Literal["ok", "ordinary", "test good", "test defective"]
"""An image reviewed ok, an ordinary good part, or an image that is only for judging. The first two may do either."""

Room = dict[Kind, int]
"""How many more images of a kind may be drawn."""


def group(keys: Sequence[Collection[Hashable]]) -> list[int]:
    """Group images that share a key, also through others. Groups are numbered from 0 in the order of their first image.

    Args:
        keys: the keys of each image, such as its content and the id of its part.
    """
    parents = list(range(len(keys)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first: dict[Hashable, int] = {}
    for index, keys_of_image in enumerate(keys):
        for key in keys_of_image:
            one, other = sorted((root(first.setdefault(key, index)), root(index)))
            parents[other] = one
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(keys))]


def hold_out(groups: Sequence[int], kinds: Sequence[Kind], *, seed: int) -> list[bool]:
    """Return for each image whether it is held out to judge. Groups stay together.

    Groups with an image that is only for judging are held out. Without defective images among these nothing can be
    judged, so all other groups are trained on. Otherwise groups with images reviewed ok are drawn at random until
    `HELD_SHARE` of these are held out. If then fewer than `ENOUGH_GOOD` good images are held out, groups of ordinary
    good parts are drawn, too. A group is left to train on if it would bring the images that were drawn above half of
    those reviewed ok, or above `MAX_HELD_ORDINARY` of the ordinary ones.

    Args:
        groups: the group of each of N images.
        kinds: the kind of each.
        seed: of the random order.
    """
    sizes = Counter(zip(groups, kinds, strict=True))
    held = {group for group, kind in sizes if kind.startswith("test")}
    if "test defective" in kinds:
        counts = Counter(kinds)
        room: Room = {"ok": counts["ok"] // 2, "ordinary": int(MAX_HELD_ORDINARY * counts["ordinary"])}
        others = np.random.default_rng(seed).permutation(sorted(set(groups) - held)).tolist()
        reviewed = [group for group in others if sizes[group, "ok"]]
        ordinary = [group for group in others if not sizes[group, "ok"]]
        _draw(held, reviewed, sizes, room, wanted=max(1, round(HELD_SHARE * counts["ok"])), kinds=("ok",))
        _draw(held, ordinary, sizes, room, wanted=ENOUGH_GOOD, kinds=("ok", "ordinary", "test good"))
    return [group in held for group in groups]


def _draw(
    held: set[int],
    groups: Sequence[int],
    sizes: Counter[tuple[int, Kind]],
    room: Room,
    *,
    wanted: int,
    kinds: Sequence[Kind],
) -> None:
    """Hold groups out, in this order and within the room, until there are `wanted` images of these kinds."""
    done = sum(sizes[group, kind] for group in held for kind in kinds)
    for group in groups:
        if done >= wanted:
            return
        if all(sizes[group, kind] <= left for kind, left in room.items()):
            held.add(group)
            done += sum(sizes[group, kind] for kind in kinds)
            for kind in room:
                room[kind] -= sizes[group, kind]
