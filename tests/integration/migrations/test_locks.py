"""A migration of a table that a long query reads, while the line goes on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from core.database import create_unbounded
from core.settings import Settings
from migrations.__main__ import MigrationError, migrate
from tests.fixtures.api_process import running_api
from tests.fixtures.later_migrations import later_release
from tests.fixtures.part_images import png


def upload(http: httpx.Client, number: int) -> int:
    return http.post("/v1/inspections", params={"recipe": "ring"}, content=png(number)).status_code


def test_uploads_are_accepted_while_a_migration_waits_for_their_table(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrations.__main__.PATIENCE_SECONDS", 3.0)
    monkeypatch.setattr("migrations.__main__.PAUSE_SECONDS", 0.1)
    engine = create_unbounded(settings, name="tests")
    with (
        running_api(settings) as http,
        engine.connect() as reader,
        later_release(tmp_path / "later", "ALTER TABLE work ADD COLUMN note text"),
        ThreadPoolExecutor(1) as pool,
    ):
        assert http.post("/v1/recipes", json={"name": "ring", "without_model": "wait"}).status_code == 201
        reader.execute(text("SELECT count(*) FROM work"))  # holds its lock until the transaction ends
        migrating = pool.submit(migrate, engine)
        answers: list[int] = []
        while not migrating.done():
            answers.append(upload(http, len(answers)))
        assert set(answers) == {202}
        with pytest.raises(MigrationError, match=r"^a table was in use for 3 s \(.*lock timeout.*\): end long queries"):
            migrating.result()

        reader.rollback()
        assert migrate(engine).endswith("to schema later.")
        assert upload(http, len(answers)) == 202
    with engine.connect() as connection:
        accepted = connection.execute(text("SELECT count(*) FROM work")).scalar_one()
    assert accepted == len(answers) + 1
