"""The verdict of a part with several images."""

import random

from hypothesis import given
from hypothesis import strategies as st

from core.models.verdicts import Verdict, part_verdict

View = tuple[bool, Verdict | None]

VERDICTS: tuple[Verdict, ...] = ("ok", "ng", "review")
final_views = st.tuples(st.just(True), st.none() | st.sampled_from(VERDICTS))
# An inspection in flight has no model verdict, but it can have a review.
views = final_views | st.tuples(st.just(False), st.none() | st.sampled_from(VERDICTS))


@given(st.lists(views, min_size=1))
def test_one_ng_view_suffices_and_ok_needs_all_views(views: list[View]) -> None:
    verdict = part_verdict(views)
    assert (verdict == "ng") == any(view_verdict == "ng" for _, view_verdict in views)
    assert (verdict == "ok") == all(view_verdict == "ok" for _, view_verdict in views)


@given(st.lists(views, min_size=1))
def test_a_part_with_an_undecided_view_needs_review(views: list[View]) -> None:
    unknown = any(verdict == "review" or (final and verdict is None) for final, verdict in views)
    assert (part_verdict(views) == "review") == (unknown and all(verdict != "ng" for _, verdict in views))


@given(st.lists(final_views, min_size=1))
def test_a_part_without_views_in_flight_has_a_verdict(views: list[View]) -> None:
    assert part_verdict(views) is not None


@given(st.lists(views, min_size=1), st.lists(final_views))
def test_further_views_never_improve_a_verdict(views: list[View], more: list[View]) -> None:
    order: list[Verdict | None] = ["ok", None, "review", "ng"]
    assert order.index(part_verdict(views + more)) >= order.index(part_verdict(views))


@given(st.lists(views, min_size=1), st.randoms())
def test_the_order_and_repetition_of_views_do_not_matter(views: list[View], order: random.Random) -> None:
    shuffled = [*views, *views]
    order.shuffle(shuffled)
    assert part_verdict(shuffled) == part_verdict(views)


def test_a_part_without_views_has_no_verdict() -> None:
    assert part_verdict([]) is None
