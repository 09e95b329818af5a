"""When a day has to be checked again."""

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from core.retention.images import next_check
from core.retention.rules import RecipeRules, Rules

TODAY = dt.date(2027, 3, 20)
limits = st.none() | st.integers(1, 400)
recipe_rules = st.builds(
    RecipeRules,
    recipe_id=st.just(1),
    ok=limits,
    ng=limits,
    review=limits,
    rows_before=st.none(),
    ended_before=st.none(),
)


def rules(*recipes: RecipeRules, today: dt.date = TODAY) -> Rules:
    return Rules(today, dict(enumerate(recipes)), [], [], [], "")


@given(recipes=st.lists(recipe_rules, max_size=3), age=st.integers(3, 500))
def test_no_image_can_end_before_the_next_check(recipes: list[RecipeRules], age: int) -> None:
    day = TODAY - dt.timedelta(days=age)
    numbers = {number for one in recipes for number in (one.ok, one.ng, one.review)} - {None}
    following = next_check(rules(*recipes), day, is_blocked=False)
    later = (TODAY + dt.timedelta(days=ahead) for ahead in range(1, 401))
    ends_on = [date for date in later if (date - day).days - 1 in numbers]
    assert following == (ends_on[0] if ends_on else None)


def test_a_day_with_an_image_in_use_is_checked_again_tomorrow() -> None:
    far = RecipeRules(1, 300, 300, 300, None, None)
    assert next_check(rules(far), TODAY, is_blocked=True) == TODAY + dt.timedelta(days=1)
    assert next_check(rules(), TODAY, is_blocked=True) == TODAY + dt.timedelta(days=1)
