"""The alerts, the dashboard and the documentation name metrics that the code exports, with labels that these have."""

import json
import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from core.settings import Settings
from linewatch.server import up
from tests.fixtures.compose import ROOT, SERVICES
from tests.fixtures.exported_metrics import SUFFIX, exported

PROMETHEUS = ROOT / "deploy" / "prometheus"
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
NAME = re.compile(r"\blinewatch_\w+")
SELECTOR = re.compile(r"(linewatch_\w+)\{([^}]*)\}")
LABEL = re.compile(r"(\w+)\s*=~?")
METRICS = exported()


def yaml(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((PROMETHEUS / name).read_text())


RULES: list[dict[str, Any]] = [rule for group in yaml("alerts.yml")["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "linewatch.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = {rule["alert"]: rule["expr"] for rule in RULES} | {
    f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]
}


def family(name: str) -> str:
    """The metric that a sample belongs to: that of a histogram has a suffix."""
    return name if name in METRICS else SUFFIX.sub("", name)


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_an_expression_uses_metrics_and_labels_that_exist(expression: str) -> None:
    names = NAME.findall(expression)
    assert names or "up{" in expression
    assert {family(name) for name in names} <= METRICS.keys()
    for name, selector in SELECTOR.findall(expression):
        assert set(LABEL.findall(selector)) <= METRICS[family(name)], name
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    known = set().union({"instance", "le"}, *(METRICS[family(name)] for name in names))
    assert {label.strip() for labels in grouped for label in labels.split(",")} <= known


def test_each_alert_says_what_is_wrong_and_how_serious_it_is() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_each_alert_is_tested_to_fire_and_to_be_quiet() -> None:
    tested = [test for case in yaml("alerts_test.yml")["tests"] for test in case["alert_rule_test"]]
    names = {rule["alert"] for rule in RULES}
    assert {test["alertname"] for test in tested if test["exp_alerts"]} == names
    assert {test["alertname"] for test in tested if not test["exp_alerts"]} == names


def test_the_page_describes_every_metric_and_alert_and_no_other() -> None:
    documented = {
        cell for row in re.findall(r"^\| (`linewatch_.*?) \|", PAGE, re.MULTILINE) for cell in row.split(", ")
    }
    assert documented == {f"`{name}`" for name in METRICS}
    assert set(re.findall(r"^\| `(Linewatch\w+)`", PAGE, re.MULTILINE)) == {rule["alert"] for rule in RULES}


def test_panels_do_not_overlap() -> None:
    cells = [
        (column, line)
        for panel in DASHBOARD["panels"]
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_prometheus_scrapes_every_service_where_it_serves_metrics() -> None:
    api, workers = (
        {name: source["port"] for source in job["dns_sd_configs"] for name in source["names"]}
        for job in yaml("prometheus.yml")["scrape_configs"]
    )
    assert api == {"api": int(SERVICES["api"]["environment"]["LINEWATCH_PORT"])}
    serving = {name for name, service in SERVICES.items() if "worker." in service.get("command", "")}
    assert workers == {name: int(SERVICES[name]["environment"]["LINEWATCH_METRICS_PORT"]) for name in serving}
    assert all("ports" not in SERVICES[name] for name in serving)  # metrics need no key


def test_one_machine_serves_metrics_on_the_documented_ports() -> None:
    assert Settings.model_fields["metrics_port"].default is None
    for name, port in zip(("dispatcher", "io", "training", "scoring"), range(up._METRICS_PORT, 65536), strict=False):
        assert f"| {name} | {port}" in PAGE
