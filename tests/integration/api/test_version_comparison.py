"""`GET …/model-versions/{version}/compare/{other}`: two versions of a recipe on the same inspections."""

from sqlalchemy import Engine, text

from core.inspection import reviews
from core.settings import Settings
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE, finish_one
from tests.fixtures.rescore_runs import make_completed_run, make_versions

PATH = f"/v1/recipes/{RECIPE}/model-versions"
RESULT = text("""
    INSERT INTO rescore_results (run_id, number, inspection_id, before_model_version_id, before_score, before_threshold,
        before_verdict, anomaly_score, threshold, verdict)
    SELECT :run, 1, id, model_version_id, anomaly_score, threshold, verdict, 0.75, 0.5, 'ng' FROM inspections
    WHERE id = :id
""")


def test_a_comparison_has_pairs_flips_agreement_and_what_is_missing(engine: Engine, settings: Settings) -> None:
    make_versions(engine)
    with engine.begin() as connection:
        compared, missing = (finish_one(connection, 1, "ok") for _ in range(2))
        reviews.add(connection, compared, verdict="ng", reviewer="Jo", reason="scratch", actor="test")
    run_id = make_completed_run(engine, version=2)
    with engine.begin() as connection:
        connection.execute(RESULT, {"run": run_id, "id": compared})
    with running_api(settings) as http:
        answer = http.get(f"{PATH}/1/compare/2", params={"limit": 10})
        document = answer.json()
        listed = http.get(f"/v1/inspections/{missing}").json()
        assert http.get(f"{PATH}/2/compare/1").json()["pairs"][0]["a"] == document["pairs"][0]["b"]
        for path, status, code in (
            (f"{PATH}/1/compare/1", 422, "invalid_field"),
            (f"{PATH}/1/compare/2?limit=2001", 422, "invalid_field"),
            (f"{PATH}/1/compare/9", 404, "not_found"),
            ("/v1/recipes/unknown/model-versions/1/compare/2", 404, "recipe_unknown"),
        ):
            refused = http.get(path)
            assert (refused.status_code, refused.json()["code"]) == (status, code), path
    assert answer.status_code == 200
    general = {"general": {"threshold": 0.5, "review_threshold": None}, "stations": {}}
    assert document["a"] == {"version": 1, "state": "ready", "active": True, "thresholds": general}
    assert document["b"] == {"version": 2, "state": "ready", "active": False, "thresholds": general}
    assert (document["recipe"], document["compared"], document["newest"]) == (RECIPE, 1, 2)
    assert document["pairs"] == [
        {
            "inspection_id": str(compared),
            "a": {"anomaly_score": 0.25, "ratio": 0.5, "verdict": "ok"},
            "b": {"anomaly_score": 0.75, "ratio": 1.5, "verdict": "ng"},
            "reviewed_verdict": "ng",
        }
    ]
    assert document["flips"] == [{"flip": "ok_to_ng", "count": 1, "share": 1.0}]
    agreement = document["agreement"]
    assert (agreement["reviewed"], agreement["misses_gone"], agreement["new_misses"]) == (1, 1, 0)
    assert document["missing"] == [
        {"model_version": 1, "inspections": 0, "since": None},
        {"model_version": 2, "inspections": 1, "since": listed["created_at"]},
    ]
