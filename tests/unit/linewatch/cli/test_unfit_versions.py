"""What a version can find is shown, and one that is not fit for use is not activated by accident."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from linewatch import Client
from linewatch.cli import run
from tests.fixtures.detectability_records import ADVICE, REASON, STATEMENT, record
from tests.fixtures.mock_system import RECIPE, VERSION

Requests = list[str]
ACTIVATE = "POST /v1/recipes/bottle/model-versions/1/activate"
MANIFEST: dict[str, Any] = {
    "architecture": {"name": "memory-bank"},
    "score_method": "nearest",
    "training": None,
    "metrics": None,
}
THRESHOLD: dict[str, Any] = {
    "threshold": 1.0,
    "review_threshold": None,
    "station_id": None,
    "calibration": None,
    "created_at": "2026-01-01T00:00:00Z",
}


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Requests]:
    """`system(fit, active=False)` scripts a system with one version; returns the list of requests."""

    def use(fit: bool | None, *, active: bool = False) -> Requests:
        requests: Requests = []
        found = None if fit is None else record(fit_for_use=fit).model_dump(mode="json")
        manifest = {**MANIFEST, "detectability": found}
        version = {**VERSION, "active": active, "manifest": manifest, "thresholds": [THRESHOLD]}

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(f"{request.method} {request.url.path}")
            if requests[-1] == ACTIVATE:
                return httpx.Response(200, json={**version, "active": True})
            if request.url.path.endswith(("/model-versions", "/model-versions/1")):
                return httpx.Response(201 if request.method == "POST" else 200, json=version)
            return httpx.Response(200, json=RECIPE if request.method != "GET" else {"items": []})

        def client(*_: object, **__: object) -> Client:
            return Client("http://system.test", transport=httpx.MockTransport(answer))

        monkeypatch.setattr("linewatch.cli.commands.models.client", client)
        return requests

    return use


def test_show_prints_what_a_version_can_find(
    system: Callable[..., Requests], capsys: pytest.CaptureFixture[str]
) -> None:
    system(True)
    assert run(["models", "show", "-r", "bottle", "--version", "1"]) == 0
    shown = capsys.readouterr().out
    assert "\n".join(STATEMENT) in shown
    assert "NOT FIT" not in shown
    assert run(["models", "show", "-r", "bottle", "--version", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["detectability"] == record().model_dump(mode="json")


def test_show_says_why_a_version_is_not_fit(
    system: Callable[..., Requests], capsys: pytest.CaptureFixture[str]
) -> None:
    system(False)
    assert run(["models", "show", "-r", "bottle", "--version", "1"]) == 0
    assert f"NOT FIT FOR USE: {REASON}.\nWhat to try:\n- {ADVICE}\n" in capsys.readouterr().out


@pytest.mark.parametrize("fit", [True, None])
def test_a_fit_version_is_activated(system: Callable[..., Requests], fit: bool | None) -> None:
    requests = system(fit)
    assert run(["models", "activate", "-r", "bottle", "--version", "1"]) == 0
    assert ACTIVATE in requests


def test_an_unfit_version_is_activated_with_force_only(
    system: Callable[..., Requests], capsys: pytest.CaptureFixture[str]
) -> None:
    requests = system(False)
    assert run(["models", "activate", "-r", "bottle", "--version", "1"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "version 1 of recipe 'bottle' was not activated: it is not fit for use" in line
    assert REASON in line
    assert "`linewatch models activate --recipe bottle --version 1 --force`" in line
    assert ACTIVATE not in requests
    assert run(["models", "activate", "-r", "bottle", "--version", "1", "--force"]) == 0
    assert ACTIVATE in requests


@pytest.mark.parametrize(("active", "outcome"), [(False, "was not activated"), (True, "is active, but")])
def test_an_unfit_bundle_is_imported_but_not_activated(
    system: Callable[..., Requests],
    bundle_of_nothing: Path,
    capsys: pytest.CaptureFixture[str],
    active: bool,
    outcome: str,
) -> None:
    requests = system(False, active=active)
    arguments = ["models", "import", str(bundle_of_nothing), "-r", "bottle", "--activate"]
    assert run(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert outcome in line
    assert ACTIVATE not in requests
    assert run([*arguments, "--force"]) == 0
    assert ACTIVATE in requests


@pytest.fixture
def bundle_of_nothing(tmp_path: Path) -> Path:
    """A tar that the scripted system accepts."""
    path = tmp_path / "bundle.tar"
    path.write_bytes(bytes(10240))
    return path
