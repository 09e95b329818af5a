"""The verdict of a part that was seen in several images."""

import random

from hypothesis import given
from hypothesis import strategies as st

from core.models.verdicts import Verdict, part_verdict

View = tuple[bool, Verdict | None]

VERDICTS: tuple[Verdict, ...] = ("ok", "ng", "review")
final_views = st.tuples(st.just(True), st.none() | st.sampled_from(VERDICTS))
# While it is in flight the machine has said nothing; a person may have.
views = final_views | st.tuples(st.just(False), st.none() | st.sampled_from(VERDICTS))


@given(st.lists(views, min_size=1))
def test_one_bad_view_is_enough_and_ok_takes_all(found: list[View]) -> None:
    verdict = part_verdict(found)
    assert (verdict == "ng") == any(said == "ng" for _, said in found)
    assert (verdict == "ok") == all(said == "ok" for _, said in found)


@given(st.lists(views, min_size=1))
def test_what_nobody_knows_is_for_a_person_to_judge(found: list[View]) -> None:
    unknown = any(said == "review" or (final and said is None) for final, said in found)
    assert (part_verdict(found) == "review") == (unknown and all(said != "ng" for _, said in found))


@given(st.lists(final_views, min_size=1))
def test_a_part_without_anything_in_flight_has_a_verdict(found: list[View]) -> None:
    assert part_verdict(found) is not None


@given(st.lists(views, min_size=1), st.lists(final_views))
def test_a_verdict_that_is_there_gets_only_worse_by_further_views(found: list[View], more: list[View]) -> None:
    order: list[Verdict | None] = ["ok", None, "review", "ng"]
    assert order.index(part_verdict(found + more)) >= order.index(part_verdict(found))


@given(st.lists(views, min_size=1), st.randoms())
def test_the_order_and_repetition_of_views_do_not_matter(found: list[View], order: random.Random) -> None:
    shuffled = [*found, *found]
    order.shuffle(shuffled)
    assert part_verdict(shuffled) == part_verdict(found)


def test_no_view_is_no_verdict() -> None:
    assert part_verdict([]) is None
