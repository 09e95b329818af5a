"""Whatever people review and retract, every reader sees what `core.models.verdicts.effective_verdict` decides."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from core.errors import Code, Refused
from core.inspection import inspections, review_queue, reviews
from core.inspection.inspections import Filters, Review
from core.models import recipes
from core.models.verdicts import Verdict, effective_verdict, reviewed_verdict
from core.rescoring.reports import agreement
from tests.fixtures.finished_inspections import finish_one
from tests.fixtures.queued_work import make_recipe, make_version
from tests.fixtures.rescore_runs import make_completed_run

MACHINE: tuple[Verdict | None, ...] = ("ok", "ng", "review", None)
PEOPLE = ("Jo", "JO", "Ann", "Straße", "STRASSE")


@dataclass(frozen=True)
class AddReview:
    """Inspection number, person, verdict."""

    inspection: int
    reviewer: str
    verdict: Verdict


@dataclass(frozen=True)
class Retract:
    """The review of an inspection with this number is retracted, if there is one."""

    inspection: int
    review: int


@dataclass(frozen=True)
class SetSecondReview:
    second_review: bool


Step = AddReview | Retract | SetSecondReview
numbers = st.integers(0, len(MACHINE) - 1)
steps = st.lists(
    st.builds(AddReview, numbers, st.sampled_from(PEOPLE), st.sampled_from(["ok", "ng"]))
    | st.builds(Retract, numbers, st.integers(0, 2))
    | st.builds(SetSecondReview, st.booleans()),
    max_size=9,
)


@dataclass
class Reviewed:
    """An inspection with the reviews that must count, and the number of changes of them."""

    id: UUID
    machine: Verdict | None
    standing: list[Review] = field(default_factory=list)
    changes: int = 0

    @property
    def effective(self) -> Verdict | None:
        return effective_verdict(self.machine, self.standing)

    @property
    def waits(self) -> bool:
        return self.effective == "review" or (self.machine is None and not self.standing)


@pytest.fixture
def ring(engine: Engine) -> int:
    """The id of the recipe `ring`, which has three versions."""
    with engine.begin() as connection:
        recipe_id = make_recipe(connection)
        for number in range(1, 4):
            make_version(connection, sha256=bytes([number]) * 32)
        make_recipe(connection, "other")
    return recipe_id


def apply(connection: Connection, step: Step, subjects: Sequence[Reviewed]) -> None:
    match step:
        case SetSecondReview(second_review):
            recipes.change(connection, "ring", actor="test", second_review=second_review)
        case AddReview(number, reviewer, verdict):
            subject = subjects[number]
            reviews.add(connection, subject.id, verdict=verdict, reviewer=reviewer, reason="dust", actor="test")
            subject.standing.append(
                Review(
                    **connection.execute(
                        text("""
                            SELECT id, inspection_id, verdict, reviewer, reason, actor, created_at,
                                (SELECT second_review FROM recipes WHERE name = 'ring') AS second_review
                            FROM reviews ORDER BY id DESC LIMIT 1
                        """)
                    )
                    .one()
                    ._mapping
                )
            )
            subject.changes += 1
        case Retract(number, index):
            subject = subjects[number]
            if index < len(subject.standing):
                review = subject.standing.pop(index)
                reviews.retract(connection, subject.id, review.id, reviewer=review.reviewer, actor="test")
                subject.changes += 1


TWICE = [SetSecondReview(True), AddReview(1, "Straße", "ok"), AddReview(1, "STRASSE", "ok")]


@given(steps)
@example([*TWICE])
@example([*TWICE, AddReview(1, "Ann", "ng"), AddReview(1, "Jo", "ng"), Retract(1, 2)])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_reader_follows_the_one_rule(engine: Engine, ring: int, drawn: list[Step]) -> None:
    with engine.begin() as connection:
        recipes.change(connection, "ring", actor="test", second_review=False)
        subjects = [Reviewed(finish_one(connection, ring, machine), machine) for machine in MACHINE]
    for step in drawn:
        with engine.begin() as connection:
            apply(connection, step, subjects)
    with engine.begin() as connection:
        check_documents(connection, subjects)
        check_filters(connection, subjects)
        check_queue(connection, subjects)
        check_feed(connection, subjects)
    check_agreement(engine, subjects)


def check_documents(connection: Connection, subjects: Sequence[Reviewed]) -> None:
    for subject in subjects:
        inspection = inspections.get(connection, subject.id)
        assert list(inspection.reviews) == subject.standing
        assert inspection.effective_verdict == subject.effective
        decided = reviewed_verdict(subject.standing)
        decisive = inspection.decisive_review
        assert (decisive and decisive.verdict) == (None if decided == "review" else decided)


def check_filters(connection: Connection, subjects: Sequence[Reviewed]) -> None:
    def listed(**filters: str) -> list[UUID]:
        items, _ = inspections.list_page(connection, Filters(**filters), before=None, limit=4)  # type: ignore[arg-type]
        return [item.id for item in items if item.id >= subjects[0].id]

    newest_first = list(reversed(subjects))
    for verdict in ("ok", "ng", "review"):
        expected = [subject.id for subject in newest_first if subject.effective == verdict]
        assert listed(effective_verdict=verdict) == listed(effective_verdict=verdict, recipe="ring") == expected
    for reviewed in ("ok", "ng", "any", "none"):
        expected = [subject.id for subject in newest_first if is_reviewed(subject, reviewed)]
        assert listed(reviewed=reviewed) == listed(reviewed=reviewed, recipe="ring") == expected
    assert listed(recipe="other", effective_verdict="review") == []


def is_reviewed(subject: Reviewed, wanted: str) -> bool:
    decided = reviewed_verdict(subject.standing)
    return wanted == "none" if decided is None else wanted in ("any", decided)


def check_queue(connection: Connection, subjects: Sequence[Reviewed]) -> None:
    after = UUID(int=subjects[0].id.int - 1)
    for reviewer in (None, "jo", "ANN", "strasse"):
        expected = [
            subject.id
            for subject in subjects
            if subject.waits and all(review.reviewer.casefold() != (reviewer or "").casefold()
                                     for review in subject.standing)
        ]  # fmt: skip
        page, _ = review_queue.list_page(connection, recipe="ring", reviewer=reviewer, after=after, limit=10)
        assert [waiting.inspection.id for waiting in page] == expected
        entries = text("SELECT inspection_id FROM review_queue WHERE inspection_id > :after ORDER BY 1")
        if reviewer is None:
            assert connection.execute(entries, {"after": after}).scalars().all() == expected


def check_feed(connection: Connection, subjects: Sequence[Reviewed]) -> None:
    repeated = text("SELECT count(*) FROM feed_unnumbered WHERE event = 'reviewed' AND inspection_id = :id")
    for subject in subjects:
        assert connection.execute(repeated, {"id": subject.id}).scalar_one() == subject.changes


def check_agreement(engine: Engine, subjects: Sequence[Reviewed]) -> None:
    """A run that calls everything ok agrees with people as often as they do."""
    run_id = make_completed_run(engine)
    insert = text("""
        INSERT INTO rescore_results (run_id, number, inspection_id, before_verdict, anomaly_score, verdict)
        VALUES (:run, :number, :id, :before, 0.1, 'ok')
    """)
    expected: dict[tuple[str, str, str], int] = {}
    with engine.begin() as connection:
        for number, subject in enumerate(subjects):
            row = {"run": run_id, "number": number, "id": subject.id, "before": subject.machine}
            connection.execute(insert, row)
            decided = reviewed_verdict(subject.standing)
            if decided in ("ok", "ng"):
                expected[(decided, subject.machine or "none", "ok")] = 1
        assert agreement.measure_agreement(connection, run_id).cells == expected


def test_only_the_same_person_retracts_a_review_and_only_for_a_while(engine: Engine, ring: int) -> None:
    with engine.begin() as connection:
        subject = finish_one(connection, ring, "ng")
        other = finish_one(connection, ring, "ng")
        [review] = reviews.add(connection, subject, verdict="ok", reviewer="Jo", reason="dust", actor="key:a").reviews

        def refusal(inspection_id: UUID, review_id: UUID, reviewer: str, actor: str) -> Code:
            with pytest.raises(Refused) as refused:
                reviews.retract(connection, inspection_id, review_id, reviewer=reviewer, actor=actor)
            return refused.value.code

        assert refusal(subject, review.id, "Ann", "key:a") == Code.FORBIDDEN
        assert refusal(subject, review.id, "Jo", "key:b") == Code.FORBIDDEN
        assert refusal(other, review.id, "Jo", "key:a") == Code.NOT_FOUND
        assert refusal(subject, other, "Jo", "key:a") == Code.NOT_FOUND
        connection.execute(text("UPDATE reviews SET created_at = now() - interval '11 minutes'"))
        assert refusal(subject, review.id, "Jo", "key:a") == Code.INVALID_TRANSITION
        assert inspections.get(connection, subject).effective_verdict == "ok"


def test_a_retraction_is_audited_and_repeating_it_changes_nothing(engine: Engine, ring: int) -> None:
    with engine.begin() as connection:
        subject = finish_one(connection, ring, "ng")
        [review] = reviews.add(connection, subject, verdict="ok", reviewer="Jo", reason="dust", actor="key:a").reviews
        for _ in range(2):
            retracted = reviews.retract(connection, subject, review.id, reviewer="Jo", actor="key:a")
            assert (retracted.reviews, retracted.effective_verdict) == ((), "ng")
        connection.execute(text("UPDATE reviews SET created_at = now() - interval '11 minutes'"))
        assert reviews.retract(connection, subject, review.id, reviewer="Jo", actor="key:a") == retracted
        events = connection.execute(
            text("SELECT action, actor, detail FROM audit_events WHERE subject = :of ORDER BY id"),
            {"of": f"inspection:{subject}"},
        ).all()
        assert [(event.action, event.actor) for event in events] == [
            ("inspection.reviewed", "key:a"),
            ("review.retracted", "key:a"),
        ]
        assert events[1].detail["review"] == str(review.id)
        assert (events[1].detail["before"], events[1].detail["reviewer"]) == ("ok", "Jo")
        assert connection.execute(text("SELECT count(*) FROM reviews")).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM feed_unnumbered WHERE event = 'reviewed'")).scalar() == 2


def test_two_people_who_review_at_once_decide_together(engine: Engine, ring: int) -> None:
    """The second transaction waits for the first, so that it sees its review."""
    with engine.begin() as connection:
        recipes.change(connection, "ring", actor="test", second_review=True)
        subject = finish_one(connection, ring, "ng")
    with engine.begin() as first, engine.begin() as second:
        reviews.add(first, subject, verdict="ok", reviewer="Jo", reason="dust", actor="test")
        second.execute(text("SET LOCAL lock_timeout = '100ms'"))
        with pytest.raises(OperationalError, match="lock timeout"):
            reviews.add(second, subject, verdict="ok", reviewer="Ann", reason="dust", actor="test")
        second.rollback()
    with engine.begin() as connection:
        decided = reviews.add(connection, subject, verdict="ok", reviewer="Ann", reason="dust", actor="test")
        assert decided.effective_verdict == "ok"
        assert review_queue.list_page(connection, recipe=None, reviewer=None, after=None, limit=9) == ([], None)
