"""`linewatch recipes`, and the bit depth of the recipe in `linewatch train`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.vision.training_options import TrainingOptions
from linewatch import Client
from linewatch.cli import run
from linewatch.cli.failures import CommandFailed
from tests.fixtures.mock_system import RECIPE

Requests = list[httpx.Request]
POLICY = RECIPE["retention"]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    """Replaces the system by one with the recipe `bottle`; the list of requests to it."""
    sent: Requests = []

    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        sent.append(request)
        is_one = request.method == "PATCH" or request.url.path == "/v1/recipes/bottle"
        return httpx.Response(200, json=RECIPE if is_one else {"items": [RECIPE]})

    def client(*_: object) -> Client:
        return Client("http://system.test", transport=httpx.MockTransport(answer))

    monkeypatch.setattr("linewatch.cli.commands.recipes.client", client)
    monkeypatch.setattr("linewatch.server.commands.train.client", client)
    return sent


def test_recipes_are_listed(requests: Requests, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["recipes", "list"]) == 0
    values = "bottle active inspection 1 refuse 12 yes images of ok parts 30 days, inspections 730 days"
    assert " ".join(capsys.readouterr().out.splitlines()[1].split()) == values
    assert run(["recipes", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [RECIPE]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        (["--bit-depth", "12"], {"bit_depth": 12}),
        (["--bit-depth", "auto", "--without-model", "wait"], {"bit_depth": "auto", "without_model": "wait"}),
        (["--state", "archived"], {"state": "archived"}),
        (["--second-review", "--role", "reference"], {"second_review": True, "role": "reference"}),
        (["--no-second-review"], {"second_review": False}),
    ],
)
def test_only_the_named_fields_are_changed(
    requests: Requests, capsys: pytest.CaptureFixture[str], options: list[str], changes: dict[str, object]
) -> None:
    assert run(["recipes", "update", "--recipe", "bottle", *options]) == 0
    assert (requests[0].method, requests[0].url.path) == ("PATCH", "/v1/recipes/bottle")
    assert json.loads(requests[0].content) == changes
    assert "bit depth 12, second review yes" in capsys.readouterr().err
    assert run(["recipes", "update", "--recipe", "bottle", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == RECIPE


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        (["--ng-images-days", "365"], {**POLICY, "ng_images_days": 365}),
        (
            ["--ok-images-days", "7", "--review-images-days", "90"],
            {**POLICY, "ok_images_days": 7, "review_images_days": 90},
        ),
        (["--rows-days", "forever"], {**POLICY, "rows_days": None}),
        (["--rows-days", "forever", "--ok-images-days", "forever"], None),
        (["--no-retention"], None),
    ],
)
def test_the_other_days_of_the_retention_stay(
    requests: Requests, options: list[str], policy: dict[str, int | None] | None
) -> None:
    assert run(["recipes", "update", "--recipe", "bottle", *options]) == 0
    assert json.loads(requests[-1].content) == {"retention": policy}


@pytest.mark.parametrize(
    "options", ["--no-retention --rows-days 7", "--rows-days 0", "--rows-days soon", "--rows-days 1.5"]
)
def test_other_days_are_wrong_use(requests: Requests, options: str) -> None:
    assert run(["recipes", "update", "--recipe", "bottle", *options.split()]) == 2
    assert requests == []


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainingOptions]:
    """`trained(*arguments)` runs the command up to the training, and returns its options."""
    chosen: list[TrainingOptions] = []

    def stop(_data: Path, _out: Path, options: TrainingOptions, *_: Any, **__: Any) -> None:
        chosen.append(options)
        raise CommandFailed("stopped")

    monkeypatch.setattr("linewatch.server.commands.train.train_with_progress", stop)

    def run_command(*arguments: str) -> TrainingOptions:
        assert run(["train", "--data", ".", "--device", "cpu", *arguments]) == 1
        return chosen.pop()

    return run_command


@pytest.mark.parametrize(
    ("arguments", "bit_depth"),
    [
        (["--recipe", "bottle"], 12),
        (["--recipe", "bottle", "--bit-depth", "10"], 10),
        (["--recipe", "bottle", "--bit-depth", "auto"], "auto"),
        (["--recipe", "another"], "auto"),
        (["--recipe", "bottle", "--out", "bundle"], "auto"),
    ],
    ids=["that of the recipe", "chosen", "chosen auto", "a new recipe", "without a system"],
)
@pytest.mark.usefixtures("requests")
def test_a_training_takes_the_bit_depth_of_the_recipe_unless_it_gets_another(
    trained: Callable[..., TrainingOptions],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    bit_depth: int | str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert trained(*arguments).bit_depth == bit_depth
