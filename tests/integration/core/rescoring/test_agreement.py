"""A run is compared with the newest review of each of its inspections."""

from sqlalchemy import Engine, text

from core.rescoring.reports import agreement
from tests.fixtures.rescore_runs import ResultGroup, make_completed_run, make_versions

RESULT_GROUPS = (
    ResultGroup("ok", "ok", "ok", 5),
    ResultGroup("ok", "ok", "ng", 3),
    ResultGroup("ok", None, "ng", 1),
    ResultGroup("ok", "ng", "review", 2),
    ResultGroup("ok", "ng", "failed", 1),
    ResultGroup("ng", "ng", "ok", 4),
    ResultGroup("ng", "ok", "ng", 6),
    ResultGroup("ng", "ok", "failed", 1),
    ResultGroup(None, "ok", "ng", 7),
)


def test_the_confusion_matrix_before_and_after_a_run(engine: Engine) -> None:
    make_versions(engine)
    run_id = make_completed_run(engine, RESULT_GROUPS)
    make_completed_run(engine, RESULT_GROUPS)  # results of another run must not count
    with engine.begin() as connection:
        measured = agreement.measure_agreement(connection, run_id)
    assert measured.count() == 23
    assert measured.before == {
        "ok": {"ok": 8, "ng": 3, "review": 0, "none": 1},
        "ng": {"ok": 7, "ng": 4, "review": 0, "none": 0},
    }
    assert measured.after == {
        "ok": {"ok": 5, "ng": 4, "review": 2, "failed": 1},
        "ng": {"ok": 4, "ng": 6, "review": 0, "failed": 1},
    }
    assert (measured.new_false_rejects, measured.false_rejects_gone) == (4, 2)
    assert (measured.new_misses, measured.misses_gone) == (4, 6)


def test_the_newest_review_counts(engine: Engine) -> None:
    make_versions(engine)
    run_id = make_completed_run(engine, [ResultGroup("ok", "ok", "ng")])
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO reviews (inspection_id, verdict, reviewer, reason, actor)
                SELECT inspection_id, 'ng', 'another', 'looked again', 'test' FROM reviews
            """)
        )
        assert agreement.measure_agreement(connection, run_id).cells == {("ng", "ok", "ng"): 1}


def test_a_run_without_reviews_has_no_agreement(engine: Engine) -> None:
    make_versions(engine)
    run_id = make_completed_run(engine, [ResultGroup(None, "ok", "ng", 3)])
    with engine.begin() as connection:
        measured = agreement.measure_agreement(connection, run_id)
        assert (measured.count(), measured.new_false_rejects) == (0, 0)
        # The temporary data of the query is gone.
        assert connection.execute(text("SHOW enable_nestloop")).scalar_one() == "on"
