"""An upgrade from an older commit, one service after the other, while clients upload."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.fixtures.containers import REGISTRY, Project, Services, run
from tests.fixtures.faults.steady_uploads import Uploads

UPGRADED = ("dispatcher", "io", "training", "scoring-cpu", "api")
FINAL_SECONDS = 120
SOME = 50


def older_commit() -> str:
    """The last release; without one, the commit before the newest migration. UPGRADE_FROM names another one."""
    if commit := os.environ.get("UPGRADE_FROM"):
        return commit
    if tags := run("git", "tag", "--merged", "HEAD", "--sort", "-version:refname", "--list", "v*").split():
        return tags[0]
    added = run("git", "log", "-1", "--diff-filter=A", "--format=%H", "--", "migrations/versions").strip()
    return f"{added}^"


def results(services: Services, ids: list[UUID]) -> list[dict[str, Any]]:
    with services.client() as client:
        return [client.get(f"/v1/inspections/{one}").raise_for_status().json() for one in ids]


def migrated_to(project: Project) -> str:
    with project.oracle().connection() as connection:
        return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())


@pytest.fixture(scope="module")
def services(project: Project, python_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The running services of an older commit; `project` is the same one with the code of today."""
    old = project.of_commit(tmp_path_factory.mktemp("old"), older_commit(), python_image, TAG="old")
    old.build("api", "scoring-cpu")
    with old.running() as services:
        yield services


def test_an_upgrade_loses_nothing(services: Services, project: Project, bundle: Path, report: list[str]) -> None:
    uploads = Uploads.of_a_new_recipe(services.url, bundle, seed=2, headers=services.headers)
    old_schema = migrated_to(project)
    with uploads.running(20):
        ids = uploads.wait_for(SOME)[:SOME]
        project.oracle().require_final(ids, FINAL_SECONDS)
        before = results(services, ids)
        project.compose("run", "--rm", "-T", "migrate")
        uploads.wait_for(len(uploads.accepted) + SOME)  # the old code on the new schema
        for service in UPGRADED:
            project.compose("up", "--detach", "--wait", "--no-deps", service)
            uploads.wait_for(len(uploads.accepted) + SOME)
    for service in UPGRADED:
        assert project.inspect(service, "{{.Config.Image}}").partition("/")[0] == REGISTRY
        assert project.inspect(service, "{{.Config.Image}}").endswith(":new")
    assert uploads.errors == []
    oracle = project.oracle()
    oracle.require_final(uploads.ids, FINAL_SECONDS)
    assert oracle.faults_of(uploads.accepted, uploads.recipe) == []
    after = results(services, ids)
    assert [{name: new[name] for name in old} for old, new in zip(before, after, strict=True)] == before
    report.append(
        f"upgrade from {run('git', 'rev-parse', '--short', older_commit()).strip()}, schema {old_schema} to "
        f"{migrated_to(project)}: {len(uploads.accepted)} accepted, all final once, {len(before)} earlier results as "
        "they were"
    )
