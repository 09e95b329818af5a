"""`linewatch train --from-reviews`: what it learns from, what it would have changed; it activates nothing."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest

from linewatch import Client
from linewatch.cli import run
from linewatch.client import Fields, Submitted
from linewatch.types.results import Inspection
from tests.fixtures.part_images import encoded, part, png, write_folder
from tests.fixtures.running_system import System

QUICK = ["--architecture", "feature-gaussian", "--input-size", "64", "--device", "cpu", "--false-reject-rate", "0.1"]
PARTS = 12


@pytest.fixture
def lw(system: System, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Client]:
    monkeypatch.setenv("LINEWATCH_URL", system.url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with Client(system.url) as client:
        yield client


@dataclass(frozen=True)
class Reviewed:
    """Inspections of a recipe: false rejects with two shots of each part, missed defects, and a confirmed part."""

    recipe: str
    false_rejects: list[Inspection]
    missed: list[Inspection]
    confirmed: Inspection


def inspect(
    lw: Client, recipe: str, parts: list[tuple[bytes, str | None]], reviewed: Literal["ok", "ng"] | None = None
) -> list[Inspection]:
    """Inspect images of parts and review them."""
    images: list[tuple[bytes, Fields]] = [(image, {"part_id": part_id}) for image, part_id in parts]
    inspections = []
    for outcome in lw.submit_many(images, recipe=recipe, wait=60):
        assert isinstance(outcome, Submitted)
        inspections.append(outcome.inspection)
        if reviewed is not None:
            lw.review(outcome.inspection.id, reviewed, reviewer="Jo", reason="looked at it")
    return inspections


@pytest.fixture
def reviewed(lw: Client, bundle: Path) -> Reviewed:
    """A recipe whose first threshold rejected everything, and whose second one accepts everything."""
    recipe = f"reviewed-{uuid4().hex[:8]}"
    lw.create_recipe(recipe)
    lw.upload_bundle(recipe, bundle)
    lw.set_threshold(recipe, 1, 0.0)
    shots = [(encoded(part(seed), compress_level=1 + shot), f"P{seed}") for seed in range(PARTS) for shot in range(2)]
    false_rejects = inspect(lw, recipe, [*shots], "ok")
    lw.set_threshold(recipe, 1, 1e9)
    missed = inspect(lw, recipe, [(png(100 + seed, scratched=True), f"D{seed}") for seed in range(4)], "ng")
    [confirmed] = inspect(lw, recipe, [(png(200), None)], "ok")
    inspect(lw, recipe, [(png(seed), None) for seed in range(300, 303)])
    return Reviewed(recipe, false_rejects, missed, confirmed)


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The names of the images in the folder that the training reads, below their folders `train/good`, `test/good` …"""
    from core.vision import train as module

    folders: dict[str, list[str]] = {}
    original = module.train

    def train(folder: Path, *arguments: Any, **options: Any) -> Any:
        for path in sorted(folder.rglob("*.png")):
            inner = path.relative_to(folder)
            folders.setdefault("/".join(inner.parts[:2]), []).append(path.name)
        return original(folder, *arguments, **options)

    monkeypatch.setattr(module, "train", train)
    return folders


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the command; return the JSON on standard output, and standard error."""
    capsys.readouterr()
    assert run(["train", "--from-reviews", *QUICK, *arguments, "--json"]) == 0
    output = capsys.readouterr()
    [line] = output.out.splitlines()
    result: dict[str, Any] = json.loads(line)
    return result, output.err


def test_a_version_learns_from_reviews_and_is_not_activated(
    capsys: pytest.CaptureFixture[str],
    lw: Client,
    reviewed: Reviewed,
    trained_on: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    data = write_folder(tmp_path / "parts", good=30)
    for path in (data / "train" / "good").iterdir():  # other parts than those that were inspected
        path.write_bytes(png(1000 + int(path.stem)))
    result, remarks = answer(capsys, "--recipe", reviewed.recipe, "--data", str(data), "--compare", "26")
    assert "24 images rejected by the machine and reviewed ok: 6 held in test/good" in remarks
    assert "Only 4 images of defects to choose the detector by" in remarks
    assert result["reviews"].items() >= {
        "reviewed_ok": 2 * PARTS, "reviewed_ng": 4, "confirmed": 1, "missing": 0, "held_ok": 6, "held_ordinary": 3,
        "train_good": 2 * PARTS + 30 - 9, "test_good": 9, "test_defective": 4,
    }.items()  # fmt: skip

    assert trained_on["test/reviewed-ng"] == sorted(f"{inspection.id}.png" for inspection in reviewed.missed)
    part_of = {f"{inspection.id}.png": inspection.part_id for inspection in reviewed.false_rejects}
    sides = {
        folder: {part_of[name] for name in trained_on[folder] if name in part_of}
        for folder in ("train/good", "test/good")
    }
    assert (len(sides["train/good"]), len(sides["test/good"])) == (PARTS - 3, 3)
    assert not sides["train/good"] & sides["test/good"]
    assert f"{reviewed.confirmed.id}.png" not in [name for names in trained_on.values() for name in names]

    versions = lw.model_versions(reviewed.recipe)
    assert [(version.version, version.active) for version in versions] == [(2, False), (1, True)]
    manifest = versions[0].manifest
    assert (manifest["metrics"]["good"], manifest["metrics"]["defective"]) == (9, 4)
    assert manifest["training"]["options"]["choose_by"] == "test"
    assert manifest["training"]["options"]["group_by"] == f"{reviewed.recipe}-reviewed.csv:group"
    assert manifest["training"]["groups"] == PARTS - 3 + 27
    check_comparison(lw, reviewed, result)

    report = (tmp_path / f"{reviewed.recipe}-v2.html").read_text()
    assert "Learned from reviews" in report
    assert "24 images rejected by the machine and reviewed ok" in report
    assert result["comparison"]["changes"][0]["examples"][0] in report
    assert str(reviewed.missed[0].id) in report  # names lead back to the inspection


def check_comparison(lw: Client, reviewed: Reviewed, result: dict[str, Any]) -> None:
    """Compare the command's comparison with the verdicts that a worker gives with the new version."""
    comparison = result["comparison"]
    assert (comparison["inspections"], comparison["missing"], comparison["unscored"]) == (26, 0, 0)
    newest = [inspection for inspection, _ in zip(lw.inspections(recipe=reviewed.recipe), range(26), strict=False)]
    run_of = lw.rescore(reviewed.recipe, 2, where={"since": newest[-1].created_at}, wait=60)
    after = {item.inspection_id: item.verdict for item in lw.rescore_results(run_of.id)}
    flips: dict[tuple[str, str], list[str]] = {}
    for inspection in newest:
        verdicts = (str(inspection.verdict), str(after[inspection.id]))
        if verdicts[0] != verdicts[1]:
            flips.setdefault(verdicts, []).append(str(inspection.id))
    assert {(change["from"], change["to"]): change["count"] for change in comparison["changes"]} == {
        pair: len(ids) for pair, ids in flips.items()
    }
    for change in comparison["changes"]:
        assert change["examples"] == flips[change["from"], change["to"]][:5]
    people = {inspection.id: inspection.reviews[-1].verdict for inspection in newest if inspection.reviews}
    agreement = comparison["agreement"]
    assert agreement["reviewed"] == len(people) == 23
    assert agreement["after"] == sum(after[inspection_id] == said for inspection_id, said in people.items())
    assert agreement["before"] == 1  # the confirmed part
    assert agreement["misses_gone"] == 4
    assert comparison["trained_on"] + comparison["agreement_without_training"]["reviewed"] == 23


def test_few_reviews_are_said_and_a_missing_image_is_skipped(
    capsys: pytest.CaptureFixture[str], lw: Client, reviewed: Reviewed, system: System, tmp_path: Path
) -> None:
    gone = reviewed.false_rejects[0]
    [file] = (system.data / "store").rglob(gone.image.sha256)
    file.unlink()
    assert run(["train", "--from-reviews", *QUICK, "--recipe", reviewed.recipe, "--report", "page.html"]) == 0
    output = capsys.readouterr()
    assert "1 image skipped: no longer in the store" in output.err
    assert "Without --data, only false rejects are trained on" in output.err
    lines = output.out.splitlines()
    assert f"Version 2 of recipe {reviewed.recipe} is ready." in lines
    assert f"To activate it: linewatch models activate --recipe {reviewed.recipe} --version 2" in lines
    [compared] = [line for line in lines if line.startswith("Of the newest")]
    assert re.match(r"Of the newest inspections \(31\) it would have changed .*\d+ from ng to ok", compared)
    assert "Skipped, because the image is no longer in the store: 1." in lines
    [examples] = [line for line in lines if line.startswith("ng to ok: ")]
    ids = [
        UUID(text)
        for text in examples.removeprefix("ng to ok: ").removesuffix(" (see `linewatch show ID`)").split(", ")
    ]
    assert set(ids) <= {inspection.id for inspection in reviewed.false_rejects}
    assert "Missed defects: " in output.out
    assert (tmp_path / "page.html").exists()


def test_the_filters_limit_the_reviews_and_too_few_are_refused(
    capsys: pytest.CaptureFixture[str], lw: Client, recipe: str
) -> None:
    inspect(lw, recipe, [(png(100, scratched=True), None)], "ng")
    command = ["train", "--from-reviews", *QUICK, "--recipe", recipe]
    assert run(command) == 1
    assert "there is nothing to train on: name a folder of good parts with --data" in capsys.readouterr().err
    for filters in (["--lot", "nobody"], ["--since", "2100-01-01"], ["--until", "2000-01-01"], ["--station", "st-1"]):
        assert run([*command, *filters]) == 1
        assert f"no matching inspection of recipe {recipe!r} has a review" in capsys.readouterr().err
    assert run(["train", "--from-reviews", *QUICK, "--recipe", "nobody-here"]) == 1
    assert "recipe_unknown" in capsys.readouterr().err
