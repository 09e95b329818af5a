"""Counts of changed verdicts, and the agreement of the machine with people."""

from hypothesis import given
from hypothesis import strategies as st

from core.vision.evaluation.comparison import MAX_EXAMPLES, Agreement, ComparedInspection, Comparison

verdicts = st.sampled_from(["ok", "ng", "review"])
inspections = st.lists(
    st.builds(
        ComparedInspection,
        id=st.uuids().map(str),
        before=verdicts,
        after=verdicts,
        reviewed=st.none() | st.sampled_from(["ok", "ng"]),
        trained_on=st.booleans(),
    ),
    max_size=60,
    unique_by=lambda each: each.id,
)


@given(inspections)
def test_changes_count_every_changed_verdict_once(compared: list[ComparedInspection]) -> None:
    changes = Comparison(compared).changes
    assert sum(change.count for change in changes) == sum(each.before != each.after for each in compared)
    assert len({(change.before, change.after) for change in changes}) == len(changes)
    worst = [change for change in changes if {change.before, change.after} == {"ok", "ng"}]
    assert changes[: len(worst)] == worst
    for change in changes:
        ids = [each.id for each in compared if (each.before, each.after) == (change.before, change.after)]
        assert change.examples == ids[:MAX_EXAMPLES]
        assert change.count == len(ids)


@given(inspections)
def test_agreement_counts_reviewed_inspections(compared: list[ComparedInspection]) -> None:
    comparison = Comparison(compared)
    for with_training in (True, False):
        of = [each for each in compared if each.reviewed and (with_training or not each.trained_on)]
        agreement = comparison.agreement(with_training=with_training)
        assert agreement.reviewed == len(of)
        assert agreement.before == sum(each.before == each.reviewed for each in of)
        assert agreement.after == sum(each.after == each.reviewed for each in of)
        misses = [[each.reviewed == "ng" and verdict == "ok" for each in of for verdict in (each.before, each.after)]]
        before, after = sum(misses[0][::2]), sum(misses[0][1::2])
        assert after - before == agreement.new_misses - agreement.misses_gone
    assert comparison.trained_on == sum(each.trained_on for each in compared if each.reviewed)


def test_the_lines_say_what_changes_and_what_people_said() -> None:
    compared = [
        ComparedInspection("a", "ok", "ng", "ng"),
        ComparedInspection("b", "ng", "ok", "ok", trained_on=True),
        ComparedInspection("c", "ng", "ok", "ok"),
        ComparedInspection("d", "review", "ok"),
        ComparedInspection("e", "ok", "ok", "ng"),
    ]
    comparison = Comparison(compared, missing=2, unscored=1)
    assert comparison.agreement(with_training=True) == Agreement(4, 0, 3, 1, 0, 2, 0)
    assert comparison.agreement(with_training=False) == Agreement(3, 0, 2, 1, 0, 1, 0)
    assert comparison.lines() == [
        "Of the newest inspections (5) it would have changed 1 from ok to ng, 2 from ng to ok, 1 from review to ok.",
        "People reviewed 4 of them and agree with the recorded verdict on 0, with the new one on 3.",
        (
            "The new version was trained on 1 of these, which proves nothing. Of the other 3, they agree with 0 before "
            "and 2 now."
        ),
        "Missed defects: 1 fewer, 0 new. False rejects: 2 fewer, 0 new.",
        "Skipped, because the image is no longer in the store: 2.",
        "Skipped, because the new version cannot score the image: 1.",
    ]
    document = comparison.to_document()
    assert document["changes"][0] == {"from": "ok", "to": "ng", "count": 1, "examples": ["a"]}
    assert (document["inspections"], document["missing"], document["unscored"]) == (5, 2, 1)
    assert document["agreement_without_training"]["after"] == 2


def test_few_or_no_inspections_are_said() -> None:
    assert Comparison().lines() == ["There are no past inspections to compare with."]
    unreviewed = Comparison([ComparedInspection("a", "ok", "ok")])
    assert unreviewed.lines()[0] == "Of the newest inspections (1) it would have changed no verdict."
    assert unreviewed.lines()[1] == "None of them has a review."
    learned = Comparison([ComparedInspection("a", "ng", "ok", "ok", trained_on=True)])
    assert learned.lines()[2].endswith("There are no others.")
