"""The comparison of two versions uses every stored result of both, and judges them by the thresholds in force."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from core.errors import Code, Refused
from core.models import model_versions, thresholds
from core.models.verdicts import Verdict, decide_verdict
from core.rescoring import runs
from core.rescoring.reports import version_comparison
from core.rescoring.reports.version_comparison import compare_versions
from core.rescoring.requests import RunRequest
from tests.fixtures.finished_inspections import RECIPE
from tests.fixtures.rescore_runs import make_versions

A, B = 1, 2
LIMITS: dict[int, dict[str | None, float]] = {1: {None: 0.5}, 2: {None: 0.25, "st-1": 1.0}, 3: {None: 0.5}}
INSERT = text("""
    INSERT INTO inspections (recipe_id, id, priority, metadata, image_day, image_sha256, status, timings_ms, verdict,
        model_version_id, anomaly_score, threshold, reasons, station_id)
    VALUES (:recipe_id, uuidv7(), 'live', '{}', now(), '', 'completed', '{}', 'ok',
        :version, :score, 0.1, :reasons, :station)
    RETURNING id
""")
RESULT = text("""
    INSERT INTO rescore_results (run_id, number, inspection_id, station_id, before_model_version_id, before_score,
        anomaly_score, verdict, reasons)
    VALUES (:run, :number, :id, :station, :version, :before, :score, 'ok', :reasons)
""")


@dataclass(frozen=True)
class Score:
    score: float
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """An inspection: the version that scored it live, its score, and the results of runs, by run."""

    live: int
    score: Score
    results: tuple[Score | None, ...]
    station: str | None
    reviewed: Verdict | None


RUNS = (B, A, 3, B)  # the version of each run, the oldest first
scores = st.builds(
    Score, st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 1.0, 2.0]), st.sampled_from([(), (), ("input_dark",)])
)
subjects = st.lists(
    st.builds(
        Subject,
        st.sampled_from([1, 2, 3]),
        scores,
        st.tuples(*[st.none() | scores for _ in RUNS]),
        st.sampled_from([None, "st-1", "st-2"]),
        st.sampled_from([None, "ok", "ng"]),
    ),
    max_size=6,
)


def version_ids(connection: Connection) -> dict[int, int]:
    return {version: model_versions.get(connection, RECIPE, version).id for version in (1, 2, 3)}


def store(connection: Connection, drawn: Sequence[Subject]) -> list[UUID]:
    """Store the inspections, their reviews and the results of all runs; return the ids."""
    ids, versions = [], version_ids(connection)
    run_ids = [
        runs.create(
            connection,
            RunRequest.model_validate({"recipe": RECIPE, "model_version": version, "source": {"where": {}}}),
            actor="test",
        ).id
        for version in RUNS
    ]
    for number, subject in enumerate(drawn):
        live = {"version": versions[subject.live], "station": subject.station}
        inspection_id = connection.execute(
            INSERT,
            {**live, "recipe_id": 1, "score": subject.score.score, "reasons": list(subject.score.reasons)},
        ).scalar_one()
        ids.append(inspection_id)
        for run_id, result in zip(run_ids, subject.results, strict=True):
            if result is not None:
                connection.execute(
                    RESULT,
                    {
                        **live,
                        "run": run_id,
                        "number": number,
                        "id": inspection_id,
                        "before": subject.score.score,
                        "score": result.score,
                        "reasons": list(result.reasons),
                    },
                )
    insert = text("""
        INSERT INTO reviews (inspection_id, verdict, reviewer, reason, actor) VALUES (:id, :verdict, 'Jo', 'r', 'test')
    """)
    for inspection_id, subject in zip(ids, drawn, strict=True):
        if subject.reviewed is not None:
            connection.execute(insert, {"id": inspection_id, "verdict": subject.reviewed})
    return ids


def score_of(subject: Subject, version: int) -> Score | None:
    """The stored score of a version: the live one, or that of its newest run."""
    if subject.live == version:
        return subject.score
    of_runs = [result for run, result in zip(RUNS, subject.results, strict=True) if run == version and result]
    return of_runs[-1] if of_runs else None


def verdict_of(score: Score, version: int, station: str | None) -> Verdict:
    limits = LIMITS[version]
    return decide_verdict(score.score, limits.get(station, limits[None]), None, score.reasons)


@pytest.fixture
def versions(engine: Engine) -> None:
    make_versions(engine)
    with engine.begin() as connection:
        for number, limits in LIMITS.items():
            version = model_versions.get(connection, RECIPE, number)
            for station, limit in limits.items():
                thresholds.append(
                    connection,
                    version,
                    threshold=limit,
                    review_threshold=None,
                    station_id=station,
                    calibration=None,
                    actor="test",
                )


@given(subjects)
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("versions")
def test_every_inspection_with_a_stored_result_of_both_is_compared(engine: Engine, drawn: list[Subject]) -> None:
    with engine.begin() as connection:
        for table in ("rescore_results", "rescore_runs", "reviews", "inspections"):
            connection.execute(text(f"DELETE FROM {table}"))  # noqa: S608 - constants
        ids = store(connection, drawn)
        comparison = compare_versions(connection, RECIPE, A, B)
    expected = [
        (inspection_id, subject, a, b)
        for inspection_id, subject in reversed(list(zip(ids, drawn, strict=True)))
        if (a := score_of(subject, A)) and (b := score_of(subject, B))
    ]
    assert [pair.inspection_id for pair in comparison.pairs] == [inspection_id for inspection_id, *_ in expected]
    for pair, (_, subject, a, b) in zip(comparison.pairs, expected, strict=True):
        assert (pair.a.anomaly_score, pair.b.anomaly_score) == (a.score, b.score)
        assert (pair.a.verdict, pair.b.verdict) == tuple(
            verdict_of(score, version, subject.station) for score, version in ((a, A), (b, B))
        )
        assert pair.b.ratio == b.score / (1.0 if subject.station == "st-1" else 0.25)
        assert pair.reviewed == subject.reviewed
    assert sum(comparison.flips.values()) == sum(pair.a.verdict != pair.b.verdict for pair in comparison.pairs)
    assert comparison.agreement.count() == sum(pair.reviewed is not None for pair in comparison.pairs)
    assert comparison.newest == len(drawn)
    assert [missing.inspections for missing in comparison.missing] == [
        sum(score_of(subject, version) is None for subject in drawn) for version in (A, B)
    ]


@pytest.mark.usefixtures("versions")
def test_only_the_newest_are_compared(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(A, Score(0.1), (Score(0.2), None, None, None), None, None)
    with engine.begin() as connection:
        ids = store(connection, [subject] * 5)
        newest = compare_versions(connection, RECIPE, A, B, at_most=2)
        assert [pair.inspection_id for pair in newest.pairs] == [ids[4], ids[3]]
        assert (newest.newest, newest.missing[1].inspections) == (2, 0)
        monkeypatch.setattr(version_comparison, "MAX_RESULTS", 3)
        fewer = compare_versions(connection, RECIPE, A, B)
        assert [pair.inspection_id for pair in fewer.pairs] == ids[:1:-1]
        missing = fewer.missing[1]
        assert (missing.inspections, missing.since is not None) == (2, True)


@pytest.mark.usefixtures("versions")
def test_a_version_is_compared_with_another_one(engine: Engine) -> None:
    with engine.begin() as connection:
        with pytest.raises(Refused) as refused:
            compare_versions(connection, RECIPE, 1, 1)
        assert refused.value.code == Code.INVALID_FIELD
        with pytest.raises(Refused) as refused:
            compare_versions(connection, RECIPE, 1, 9)
        assert refused.value.code == Code.NOT_FOUND
        empty = compare_versions(connection, RECIPE, 1, 2)
        assert (empty.pairs, empty.newest, empty.flips) == ([], 0, {})
