"""The view System: its figures are those of the API; deliveries, keys and the audit log."""

import datetime as dt
import re
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from core.access import keys
from core.settings import Settings
from tests.browser.conftest import Faults, axe_violations, browsing
from tests.fixtures.api_process import running_api
from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System
from tests.fixtures.waiting import eventually
from tests.fixtures.webhook_receivers import Reply, Request, running_receiver

REASON = "the MES is full"


def rows(page: Page, table: str) -> Locator:
    return page.get_by_role("region", name=table, exact=True).locator("tbody tr")


def row(page: Page, table: str, words: str) -> Locator:
    """The row of a table with these words."""
    return rows(page, table).filter(has_text=words)


def test_queues_workers_and_consumers_equal_the_api(page: Page, client: httpx.Client, recipe: str) -> None:
    consumer = f"mes-{uuid4().hex[:8]}"
    cursor = client.get("/v1/results", params={"after": "now"}).json()["next_cursor"]
    client.post("/v1/results/acknowledge", json={"consumer": consumer, "cursor": cursor}).raise_for_status()
    for seed in range(3):
        final(client, submit(client, recipe, png(seed))["id"])
    page.goto("/system")
    system = client.get("/v1/system").json()
    expect(rows(page, "Queues")).to_have_count(len(system["queues"]))
    for shown, queue in zip(rows(page, "Queues").all(), system["queues"], strict=True):
        names = ("waiting", "running", "oldest_age_s", "waiting_for_model", "messages")
        figures = ["–" if queue[name] is None else str(queue[name]) for name in names]
        expect(shown.get_by_role("cell")).to_have_text([re.compile(rf"^{queue['name']} "), *figures])
    expect(rows(page, "Workers")).to_have_count(len(system["workers"]))
    for worker in system["workers"]:
        expect(row(page, "Workers", worker["name"])).to_contain_text("Ready")
    expect(row(page, "Workers", "Training")).to_have_count(1)
    expect(row(page, "Feed consumers", consumer).get_by_role("cell").nth(1)).to_have_text("3")
    figure = page.locator(".figure", has_text="Version")
    expect(figure.locator("dd")).to_have_text([system["version"], f"Schema {system['schema_version']}"])
    client.delete(f"/v1/results/consumers/{consumer}").raise_for_status()


@pytest.fixture
def failing(client: httpx.Client, system: System, recipe: str) -> Iterator[dict[str, Any]]:
    """An endpoint with two deliveries that were given up, whose receiver accepts them now."""
    accepts = threading.Event()

    def answer(_: int, __: Request) -> Reply:
        return Reply() if accepts.is_set() else Reply(status=503, body=lambda: iter([REASON.encode()]))

    with running_receiver(answer, port=system.webhook_port) as (_, url):
        request = {"url": url, "events": ["inspection.completed"], "recipes": [recipe]}
        endpoint: dict[str, Any] = client.post("/v1/webhook-endpoints", json=request).json()
        path = f"/v1/webhook-endpoints/{endpoint['id']}"
        for seed in (1, 2):
            submit(client, recipe, png(seed))

        def tried() -> list[bool]:
            return [each["tries"] > 0 for each in client.get(f"{path}/deliveries").json()["items"]]

        eventually(tried, [True, True])
        give_up(system, endpoint["id"])
        accepts.set()
        yield endpoint
        client.delete(path).raise_for_status()


def give_up(system: System, endpoint_id: str) -> None:
    """Let the last try of these deliveries have been their last one, which takes a day otherwise."""
    engine = create_engine(system.child("-m api").environ()["LINEWATCH_DATABASE_URL"], poolclass=NullPool)
    query = "UPDATE deliveries SET state = 'exhausted', finished_at = now() WHERE endpoint_id = :id"
    with engine.begin() as connection:
        connection.execute(text(query), {"id": endpoint_id})


def test_failed_deliveries_say_why_and_are_sent_again(
    page: Page, client: httpx.Client, failing: dict[str, Any]
) -> None:
    page.goto("/system")
    endpoint = row(page, "Webhook endpoints", failing["url"])
    expect(endpoint).to_contain_text("Enabled")
    page.get_by_role("button", name="Given up: 2").click()
    deliveries = rows(page, "Webhook endpoints").get_by_role("listitem")
    expect(deliveries).to_have_count(2)
    for delivery in deliveries.all():
        expect(delivery).to_contain_text("inspection.completed")
        expect(delivery).to_contain_text("Refused with status 503")
        expect(delivery).to_contain_text(REASON)
    assert axe_violations(page) == []
    deliveries.first.get_by_role("button", name="Send again").click()
    expect(page.get_by_text("1 delivery is sent again")).to_be_visible()
    expect(deliveries).to_have_count(1)
    deliveries.first.get_by_role("button", name="Send again").click()
    expect(page.get_by_text("There are none any more.")).to_be_visible()
    path = f"/v1/webhook-endpoints/{failing['id']}/deliveries"
    eventually(lambda: {each["state"] for each in client.get(path).json()["items"]}, {"delivered"})


def test_all_failed_deliveries_are_sent_again_at_once(
    page: Page, client: httpx.Client, failing: dict[str, Any]
) -> None:
    page.goto("/system")
    page.get_by_role("button", name="Given up: 2").click()
    page.get_by_role("button", name="Send all of these again").click()
    expect(page.get_by_text("2 deliveries are sent again")).to_be_visible()
    path = f"/v1/webhook-endpoints/{failing['id']}/deliveries"
    eventually(lambda: {each["state"] for each in client.get(path).json()["items"]}, {"delivered"})


def test_a_refused_replay_is_shown(page: Page, client: httpx.Client, failing: dict[str, Any], faults: Faults) -> None:
    page.goto("/system")
    page.get_by_role("button", name="Given up: 2").click()
    replay = page.get_by_role("button", name="Send again").first
    expect(replay).to_be_visible()
    client.patch(f"/v1/webhook-endpoints/{failing['id']}", json={"state": "disabled"}).raise_for_status()
    replay.click()
    expect(page.locator(".toast")).to_contain_text("disabled")
    expect(page.get_by_text("The endpoint is disabled, so nothing can be sent again.")).to_be_visible()
    [fault] = faults.seen
    assert "409" in fault
    faults.seen.clear()


def test_a_key_is_shown_once_and_revoked(page: Page, client: httpx.Client) -> None:
    name = f"station {uuid4().hex[:8]}"
    page.goto("/system")
    page.get_by_role("button", name="Create a key").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("submit").check()
    dialog.get_by_label("Requests a minute").fill("600")
    dialog.get_by_role("button", name="Create a key").click()
    secret = page.locator("dialog code.secret")
    expect(secret).to_have_text(re.compile("^lw_[0-9a-f]{12}_"))
    prefix = (secret.text_content() or "").split("_")[1]
    page.get_by_role("button", name="Close").click()
    expect(secret).to_have_count(0)
    [key] = [key for key in client.get("/v1/api-keys").json()["items"] if key["name"] == name]
    assert (key["prefix"], key["scopes"], key["requests_per_minute"]) == (prefix, ["read", "submit"], 600)
    shown = row(page, "API keys", prefix)
    expect(shown).to_contain_text("read, submit")
    shown.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(shown).to_contain_text("Revoked")
    [key] = [key for key in client.get("/v1/api-keys").json()["items"] if key["prefix"] == prefix]
    assert key["revoked_at"] is not None


def test_the_audit_log_is_filtered(page: Page, client: httpx.Client, recipe: str) -> None:
    page.goto("/system")
    log = page.get_by_role("region", name="Audit log")
    log.get_by_label("Subject").fill(f"recipe:{recipe}")
    log.get_by_label("Subject").press("Enter")
    events = client.get("/v1/audit-events", params={"subject": f"recipe:{recipe}"}).json()["items"]
    expect(rows(page, "Audit log")).to_have_count(len(events))
    for shown, event in zip(rows(page, "Audit log").all(), events, strict=True):
        expect(shown.get_by_role("cell").nth(2)).to_have_text(event["action"])
    log.get_by_label("What").fill(events[-1]["action"])
    log.get_by_label("What").press("Enter")
    expect(rows(page, "Audit log")).to_have_count(sum(event["action"] == events[-1]["action"] for event in events))
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=2)
    log.get_by_label("From").fill(f"{tomorrow:%Y-%m-%dT%H:%M}")
    expect(log.get_by_text("No event matches.")).to_be_visible()
    page.reload()
    expect(log.get_by_label("From")).to_have_value(f"{tomorrow:%Y-%m-%dT%H:%M}")
    expect(log.get_by_text("No event matches.")).to_be_visible()


def test_a_reader_sees_figures_but_no_buttons(
    browser: Browser, settings: Settings, engine: Engine, faults: Faults
) -> None:
    with engine.begin() as connection:
        _, key = keys.create(connection, "reader", ["read"], actor="test")
    with (
        running_api(settings, LINEWATCH_AUTH="on") as http,
        browsing(browser, str(http.base_url), faults) as context,
    ):
        http.headers["Authorization"] = f"Bearer {key}"
        page = context.new_page()
        page.goto("/system")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        expect(rows(page, "Queues")).to_have_count(5)
        expect(page.get_by_text("No worker is running.")).to_be_visible()
        expect(page.get_by_role("heading", name="API keys")).to_have_count(0)
        expect(page.get_by_role("heading", name="Audit log")).to_have_count(0)
        page.get_by_role("link", name="Train").click()
        expect(page.get_by_role("heading", name="There is no recipe yet")).to_be_visible()
        expect(page.get_by_label("Name of the recipe")).to_have_count(0)
