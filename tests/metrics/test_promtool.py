"""The alerts and what a running system exports, as Prometheus' own tool sees them (Debian's package prometheus)."""

import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.fixtures.http_inspections import final, submit
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

PROMETHEUS = Path(__file__).parents[2] / "deploy" / "prometheus"
PROMTOOL = shutil.which("promtool") or "/usr/bin/promtool"
PROCESSES = ("dispatcher", "io", "training", "scoring")
OWN = {
    "api": ("linewatch_http_requests_total", "linewatch_queue_depth", "linewatch_accepted_inspections_total"),
    "dispatcher": ("linewatch_dispatcher_round_duration_seconds_bucket", "linewatch_rescues_total"),
    "io": ("linewatch_webhook_attempts_total",),
    "training": ("linewatch_build_info",),
    "scoring": ("linewatch_stage_duration_seconds_bucket", "linewatch_anomaly_score_ratio_bucket"),
}
"""Some metrics of each process."""


def promtool(*arguments: str, text: str | None = None) -> str:
    completed = subprocess.run([PROMTOOL, *arguments], input=text, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout + completed.stderr


def test_the_alerts_and_the_configuration_are_valid(tmp_path: Path) -> None:
    for name in ("alerts.yml", "prometheus.yml"):
        shutil.copy(PROMETHEUS / name, tmp_path)
    (tmp_path / "linewatch-key").touch()
    assert "SUCCESS" in promtool("check", "config", "--lint=all", "--lint-fatal", str(tmp_path / "prometheus.yml"))


def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(PROMETHEUS / "alerts_test.yml"))


def scrape(url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.get(url, timeout=10).raise_for_status().text
        except httpx.TransportError:
            assert time.monotonic() < deadline, f"nothing is served at {url}"
            time.sleep(0.2)


@pytest.mark.timeout(300)  # starts a system
def test_what_a_running_system_exports_is_valid(system: System, client: httpx.Client, recipe: str) -> None:
    for seed in range(5):
        assert final(client, submit(client, recipe, png(seed))["id"])["status"] == "completed"
    urls = {"api": f"{system.url}/metrics"}
    urls |= {name: f"http://127.0.0.1:{system.metrics_port + index}/metrics" for index, name in enumerate(PROCESSES)}
    for name, url in urls.items():
        text = scrape(url)
        assert promtool("check", "metrics", text=text) == "", name
        for metric in OWN[name]:
            assert f"\n{metric}" in text, (name, metric)
    scored = scrape(urls["scoring"])
    assert f'linewatch_anomaly_score_ratio_count{{recipe="{recipe}",version="1"}} 5.0' in scored
    assert f'linewatch_inspections_total{{recipe="{recipe}",' in scored
