"""An api that starts before the database is migrated refuses requests, and goes on by itself afterwards."""

import time
from pathlib import Path

from sqlalchemy import Engine, text

from core.settings import Settings
from migrations.revisions import newest_revision
from tests.fixtures.api_process import api_process
from tests.fixtures.part_images import png

OLDER = "0014"


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def test_it_waits_for_the_migration(engine: Engine, settings: Settings, tmp_path: Path) -> None:
    set_revision(engine, OLDER)
    log = tmp_path / "api.log"
    with api_process(settings, output=log) as api:
        why = f"The schema has revision {OLDER}; this version needs {newest_revision()}. Run `linewatch migrate`."
        for answer in (
            api.http.get("/readyz"),
            api.http.get("/v1/recipes"),
            api.http.post("/v1/inspections?recipe=ring", content=png(1)),
            api.http.post("/predict"),
            api.http.get("/metrics"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert answer.json()["detail"] == why
            assert answer.headers["Retry-After"]
        assert [api.http.get(path).status_code for path in ("/healthz", "/", "/openapi.json")] == [200, 200, 200]
        assert log.read_text().count(why) == 1

        set_revision(engine, newest_revision())
        deadline = time.monotonic() + 30
        while api.http.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert api.http.get("/v1/recipes").status_code == 200


def test_a_schema_of_a_newer_version_is_used(engine: Engine, settings: Settings, tmp_path: Path) -> None:
    set_revision(engine, "of the next version")
    with api_process(settings, output=tmp_path / "api.log") as api:
        assert api.http.get("/readyz").status_code == 200
        assert api.http.get("/v1/recipes").status_code == 200
