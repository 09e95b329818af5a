"""The view Train on a real system: folders and inspections become versions, which are activated."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import Faults, axe_violations
from tests.browser.shown_figures import shown_number
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png, write_folder

TRAINED_MS = 120_000  # a training takes seconds; the machine may be busy
LOT = "L-7"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in MVTec layout: twelve good parts, a broken image, a text, and three parts of each kind to test."""
    folder = write_folder(tmp_path / "parts", good=12, defective=3)
    (folder / "train" / "good" / "broken.png").write_bytes(b"no image")
    (folder / "readme.txt").write_text("no image")
    return folder


def training(page: Page) -> Locator:
    """The newest training."""
    return page.locator("section.training").first


def status(page: Page) -> Locator:
    return training(page).locator("header .verdict")


def choose_quick_options(page: Page, *, epochs: int = 2) -> None:
    """Choose the detector that trains fastest, on small images."""
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("architecture").select_option("conv-autoencoder")
    page.get_by_label("pose").select_option("as-is")
    page.get_by_label("false_reject_rate").fill("10")
    page.get_by_label("epochs").fill(str(epochs))
    page.get_by_label("input_size").fill("32")


def drop(page: Page, folder: Path) -> None:
    """Drag a folder onto the form and drop it, as a file manager does."""
    box = page.locator(".drop").first.bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    devtools = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": box["x"] + 20, "y": box["y"] + 20, "data": data}
        devtools.send("Input.dispatchDragEvent", event)


def newest(client: httpx.Client, recipe: str) -> dict[str, Any]:
    """The newest training of a recipe, as the API describes it."""
    run: dict[str, Any] = client.get(f"/v1/recipes/{recipe}/training-runs", params={"limit": 1}).json()["items"][0]
    return run


def answer_unfit(route: Route) -> None:
    """Answer that the newest training finds nothing, which no quick training does."""
    answer = route.fetch()
    runs = answer.json()
    runs["items"][0]["result"] |= {"fit_for_use": False, "reasons": ["It finds nothing."]}
    route.fulfill(response=answer, body=json.dumps(runs))


def test_a_folder_is_trained_and_activated(page: Page, client: httpx.Client, recipe: str, folder: Path) -> None:
    for seed in range(3):
        final(client, submit(client, recipe, png(seed))["id"])
    page.goto(f"/train?recipe={recipe}")
    expect(page.get_by_role("heading", name="No training yet")).to_be_visible()
    expect(page.get_by_role("button", name="Start training")).to_be_disabled()
    page.get_by_label("Choose a folder").set_input_files(folder)
    expect(page.get_by_text("13 good parts, 6 test images")).to_be_visible()
    choose_quick_options(page)
    page.get_by_role("button", name="Start training").click()
    expect(training(page).get_by_role("alert")).to_contain_text("1 image was refused; the others are used")
    expect(training(page).get_by_role("alert")).to_contain_text("parts/train/good/broken.png unsupported file format")
    expect(status(page)).to_have_text("Running")
    expect(training(page).get_by_role("progressbar")).to_be_visible()
    expect(training(page).get_by_role("img", name="Loss by epoch")).to_be_visible(timeout=TRAINED_MS)
    expect(status(page)).to_have_text("Completed", timeout=TRAINED_MS)

    run = newest(client, recipe)
    result = run["result"]
    assert run["images"] == {"good": 12, "test/good": 3, "test/scratch": 3}
    expect(training(page)).to_contain_text("12 good parts, 3 good test images, 3 test/scratch")
    facts = training(page).locator(".facts dd")
    expect(facts.nth(1)).to_have_text("conv-autoencoder")
    expect(facts.nth(2)).to_have_text(shown_number(result["threshold"]))
    for sentence in result["statement"]:
        expect(training(page)).to_contain_text(sentence)
    expect(training(page).get_by_role("heading", name="Compared with the newest 3 inspections")).to_be_visible()
    for change in result["comparison"]["changes"]:
        line = training(page).locator("li", has=page.get_by_text(str(change["count"]), exact=True))
        expect(line.locator(".verdict").first).to_have_text(change["from"], ignore_case=True)
    report = training(page).get_by_role("link", name="Report").get_attribute("href")
    assert report is not None
    assert f"Training on {recipe}" in client.get(report).text

    assert axe_violations(page) == []

    training(page).get_by_role("button", name="Activate").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).not_to_contain_text("Not fit for use")
    page.route("**/training-runs?*", answer_unfit)
    expect(dialog).to_contain_text("Not fit for use: It finds nothing.")
    page.unroute("**/training-runs?*")
    dialog.get_by_role("button", name="Activate").click()
    expect(facts.first).to_have_text("version 2, active")
    expect(training(page).get_by_role("button", name="Activate")).to_have_count(0)
    assert client.get(f"/v1/recipes/{recipe}").json()["active_version"] == 2


@pytest.fixture
def reviewed(client: httpx.Client, recipe: str) -> str:
    """A recipe with twelve parts of a lot that people called ok, and two that they called ng."""
    for seed in range(14):
        inspection = submit(client, recipe, png(seed, scratched=seed >= 12), part_id=f"SN-{seed}", lot_id=LOT)
        final(client, inspection["id"])
        review = {"verdict": "ok" if seed < 12 else "ng", "reviewer": "Ada", "reason": "seen"}
        client.post(f"/v1/inspections/{inspection['id']}/reviews", json=review).raise_for_status()
    return recipe


def test_a_training_from_inspections_is_cancelled_after_a_question(
    page: Page, client: httpx.Client, reviewed: str
) -> None:
    page.goto(f"/train?recipe={reviewed}")
    page.get_by_role("button", name="Inspections").click()
    page.get_by_label("Lot").fill(LOT)
    page.get_by_label("From").fill("2026-01-02T03:04")
    choose_quick_options(page, epochs=400)
    page.get_by_label("compare").fill("7")
    page.get_by_role("button", name="Start training").click()
    expect(training(page)).to_contain_text("12 good parts, 2 reviewed as NG", timeout=TRAINED_MS)
    run = newest(client, reviewed)
    assert run["inspections"] == {
        "good": "reviewed", "defects": True, "lot_id": LOT, "since": "2026-01-02T02:04:00Z", "limit": 2000,
    }  # fmt: skip
    assert run["compare"] == 7
    assert run["options"] == {
        "architecture": "conv-autoencoder", "pose": "as-is", "epochs": 400, "input_size": 32, "false_reject_rate": 0.1,
    }  # fmt: skip
    training(page).get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Back").click()
    expect(status(page)).to_have_text("Running")
    training(page).get_by_role("button", name="Cancel").click()
    dialog.get_by_role("button", name="Cancel the training").click()
    expect(status(page)).to_have_text("Cancelled")
    assert newest(client, reviewed)["status"] == "cancelled"


def test_a_dropped_folder_whose_upload_is_interrupted_is_continued(
    page: Page, client: httpx.Client, recipe: str, folder: Path, faults: Faults
) -> None:
    page.route("**/images", lambda route: route.abort(), times=1)
    page.goto(f"/train?recipe={recipe}")
    drop(page, folder)
    expect(page.get_by_text("13 good parts, 6 test images")).to_be_visible()
    choose_quick_options(page, epochs=400)
    page.get_by_role("button", name="Start training").click()
    expect(status(page)).to_have_text("Open")
    expect(training(page)).to_contain_text("The upload was interrupted: 19 images are missing.")
    assert all("Failed to load" in fault for fault in faults.seen)
    faults.seen.clear()
    training(page).get_by_role("button", name="Continue the upload").click()
    expect(training(page)).to_contain_text("12 good parts")
    expect(status(page)).to_have_text("Running")
    client.post(f"/v1/recipes/{recipe}/training-runs/{newest(client, recipe)['id']}/cancel").raise_for_status()


def test_an_open_training_gets_its_images_after_the_page_was_closed(
    page: Page, client: httpx.Client, recipe: str, folder: Path, faults: Faults
) -> None:
    path = f"/v1/recipes/{recipe}/training-runs"
    client.post(path, json={"options": {"architecture": "conv-autoencoder", "epochs": 400}}).raise_for_status()
    page.goto(f"/train?recipe={recipe}")
    expect(training(page)).to_contain_text("This training has not been started.")
    few = folder / "few"
    write_folder(few, good=3)
    training(page).get_by_label("Choose a folder").set_input_files(few)
    expect(training(page)).to_contain_text("at least 10 are needed")
    [fault] = faults.seen
    assert "409" in fault
    faults.seen.clear()
    training(page).get_by_label("Choose a folder").set_input_files(folder / "train")
    expect(status(page)).to_have_text("Running")
    assert newest(client, recipe)["images"] == {"good": 12}
    client.post(f"{path}/{newest(client, recipe)['id']}/cancel").raise_for_status()


def test_a_folder_of_which_nothing_can_be_used_names_each_image(
    page: Page, recipe: str, tmp_path: Path, faults: Faults
) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(b"no image")
    page.goto(f"/train?recipe={recipe}")
    page.get_by_label("Choose a folder").set_input_files(tmp_path)
    page.get_by_role("button", name="Start training").click()
    refused = training(page).get_by_role("alert").filter(has_text="3 images were refused")
    expect(refused.get_by_role("listitem")).to_have_count(3)
    expect(training(page)).to_contain_text("has 0 images of good parts, and at least 10 are needed")
    faults.seen.clear()
    training(page).get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the training").click()
    expect(status(page)).to_have_text("Cancelled")


def test_a_failed_training_says_why(page: Page, client: httpx.Client, recipe: str) -> None:
    path = f"/v1/recipes/{recipe}/training-runs"
    location = client.post(path, json={"inspections": {}}).headers["Location"]
    client.post(f"{location}/start").raise_for_status()
    page.goto(f"/train?recipe={recipe}")
    expect(status(page)).to_have_text("Failed", timeout=TRAINED_MS)
    expect(training(page).get_by_role("alert")).to_have_text(newest(client, recipe)["reason"])


def test_older_trainings_are_read_by_cursor(page: Page, client: httpx.Client, recipe: str) -> None:
    path = f"/v1/recipes/{recipe}/training-runs"
    for _ in range(12):
        client.post(path, json={}).raise_for_status()
    page.goto(f"/train?recipe={recipe}")
    expect(page.locator("section.training")).to_have_count(10)
    page.get_by_role("button", name="Older", exact=True).click()
    expect(page.locator("section.training")).to_have_count(2)
    page.get_by_role("button", name="Newest").click()
    expect(page.locator("section.training")).to_have_count(10)


def test_without_a_training_worker_the_page_says_what_to_do(page: Page, recipe: str) -> None:
    def without_training(route: Route) -> None:
        answer = route.fetch()
        system = answer.json()
        system["workers"] = [worker for worker in system["workers"] if worker["kind"] != "training"]
        route.fulfill(response=answer, body=json.dumps(system))

    page.route("**/v1/system", without_training)
    page.goto(f"/train?recipe={recipe}")
    hint = page.locator(".message", has_text="No training worker is running")
    expect(hint.locator("code")).to_have_text("linewatch up")
    expect(page.get_by_role("button", name="Start training")).to_be_visible()


def test_a_new_part_begins_with_a_recipe(page: Page, client: httpx.Client) -> None:
    name = f"recipe-{uuid4().hex[:12]}"
    page.goto("/train")
    page.get_by_label("Name of the recipe").fill(name)
    page.get_by_role("button", name="Create the recipe").click()
    expect(page.get_by_role("heading", name="New training")).to_be_visible()
    assert client.get(f"/v1/recipes/{name}").json()["active_version"] is None


def test_the_options_are_those_of_the_api(page: Page, client: httpx.Client, recipe: str) -> None:
    schema = client.get("/openapi.json").json()["components"]["schemas"]["TrainingChoices"]["properties"]
    page.goto(f"/train?recipe={recipe}")
    page.get_by_text("Options", exact=True).click()
    for name in ("architecture", "pose"):
        [allowed] = [choice["enum"] for choice in schema[name]["anyOf"] if "enum" in choice]
        values = page.get_by_label(name).locator("option").evaluate_all("all => all.map((option) => option.value)")
        assert sorted(value for value in values if value) == sorted(allowed)
