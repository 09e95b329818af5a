"""The Helm chart, rendered by Helm itself and checked against the schemas of Kubernetes."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from tests.fixtures import helm_chart
from tests.fixtures.helm_chart import KUBERNETES, Object

OF_OPERATORS = ("keda.sh/", "monitoring.coreos.com/")  # their schemas are not among those of Kubernetes
PAGE = (helm_chart.CHART.parents[2] / "docs" / "kubernetes.md").read_text()

GPU_CLASS: Mapping[str, Any] = {
    "enabled": True,
    "image": "worker",
    "device": "cuda",
    "threads": 8,
    "resources": {"requests": {"cpu": "8", "memory": "8Gi"}, "limits": {"memory": "16Gi", "nvidia.com/gpu": 1}},
    "replicas": {"min": 1, "max": 2},
}
VARIANTS: Mapping[str, dict[str, Any]] = {
    "defaults": {},
    "a bucket": {
        "store": {"url": "s3://images/line"},
        "aws": {"REGION": "eu-central-1", "ENDPOINT_URL": "http://s3.data:8333", "ALLOW_HTTP": True},
    },
    "an existing volume": {"store": {"volume": {"existingClaim": "images"}}},
    "GPUs": {"scoring": {"gpu": {"enabled": True, "nodeSelector": {"gpu": "l4"}}, "cpu": {"enabled": False}}},
    "kinds of GPUs": {
        "scoring": {
            "l4": {**GPU_CLASS, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
            "t4": GPU_CLASS,
        }
    },
    "KEDA": {"keda": {"enabled": True, "inspectionsPerReplica": 2_000_000}},
    "Prometheus Operator": {"metrics": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}},
    "an archive": {
        "settings": {"ARCHIVE_ROOTS": "/archive"},
        "extraVolumes": [{"name": "archive", "persistentVolumeClaim": {"claimName": "press", "readOnly": True}}],
        "extraVolumeMounts": [{"name": "archive", "mountPath": "/archive", "readOnly": True}],
        "scoring": {"gpu": {"enabled": True}},
    },
    "ingress": {"api": {"ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"}}},
    "small": {
        "metrics": {"enabled": False},
        "api": {"autoscaling": {"enabled": False}},
        "training": {"enabled": False},
        "networkPolicies": {"enabled": False},
        "podDisruptionBudgets": False,
    },
    "settings": {
        "settings": {"MINIBATCH": 16, "MAX_UPLOAD_BYTES": 67_108_864, "BULK_SHARE": 0.25, "AUTH": "on"},
        "openTelemetry": {"EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "BSP_MAX_QUEUE_SIZE": 1_000_000},
        "podAnnotations": {"example.com/team": "vision"},
        "aws": {"ACCOUNT_ID": 12_345_678_901},
        "image": {"pullSecrets": [{"name": "registry"}], "tag": 20261130},
    },
}


@cache
def rendered(variant: str) -> dict[str, Object]:
    return helm_chart.rendered(VARIANTS[variant])


def pod_specs(objects: Mapping[str, Object]) -> dict[str, Object]:
    return {
        name: each["spec"]["template"]["spec"]
        for name, each in objects.items()
        if each["kind"] in ("Deployment", "Job")
    }


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_finds_no_fault(variant: str) -> None:
    assert helm_chart.faults(VARIANTS[variant]) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_object_is_what_kubernetes_accepts(variant: str) -> None:
    for each in rendered(variant).values():
        if not each["apiVersion"].startswith(OF_OPERATORS):
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_have_no_privileges(variant: str) -> None:
    for name, pod in pod_specs(rendered(variant)).items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert not pod["automountServiceAccountToken"], name
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], name
            assert not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {"requests", "limits"} <= set(container["resources"]), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_selectors_find_exactly_the_pods_of_their_component(variant: str) -> None:
    objects = rendered(variant)
    deployments = {name: each for name, each in objects.items() if each["kind"] == "Deployment"}
    labels = {name: each["spec"]["template"]["metadata"]["labels"] for name, each in deployments.items()}

    def selected(selector: Mapping[str, str]) -> list[str]:
        return [name for name, own in labels.items() if selector.items() <= own.items()]

    for name, deployment in deployments.items():
        assert selected(deployment["spec"]["selector"]["matchLabels"]) == [name]
    assert selected(objects["Service/line-api"]["spec"]["selector"]) == ["Deployment/line-api"]
    for name, each in objects.items():
        if each["kind"] == "PodDisruptionBudget":
            matching = selected(each["spec"]["selector"]["matchLabels"])
            assert matching == [name.replace("PodDisruptionBudget", "Deployment")]


def test_the_migration_runs_first_and_needs_no_store() -> None:
    objects = rendered("defaults")
    job = objects["Job/line-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    volumes = [volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]]
    assert volumes == ["tmp"]  # the claim is made after it
    account = objects["ServiceAccount/line"]["metadata"]["annotations"]
    assert int(account["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])


def test_the_store_is_a_volume_or_a_bucket() -> None:
    of_folder, of_bucket = rendered("defaults"), rendered("a bucket")
    assert of_folder["PersistentVolumeClaim/line-store"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "PersistentVolumeClaim/line-store" not in of_bucket
    for objects, url in ((of_folder, "file:///var/lib/linewatch/store"), (of_bucket, "s3://images/line")):
        for name, pod in pod_specs(objects).items():
            [container] = pod["containers"]
            assert environment(container)["LINEWATCH_STORE_URL"] == url
            mounts = [mount["name"] for mount in container["volumeMounts"]]
            assert ("store" in mounts) == (url.startswith("file:") and "migrate" not in name)


def test_archives_are_mounted_where_they_are_read() -> None:
    readers = set()
    for name, pod in pod_specs(rendered("an archive")).items():
        [container] = pod["containers"]
        assert environment(container)["LINEWATCH_ARCHIVE_ROOTS"] == "/archive"
        volumes = VARIANTS["an archive"]["extraVolumes"][0] in pod["volumes"]
        mounts = VARIANTS["an archive"]["extraVolumeMounts"][0] in container["volumeMounts"]
        assert volumes == mounts
        if volumes:
            readers.add(name)
    assert readers == {f"Deployment/line-{reader}" for reader in ("api", "io", "scoring-cpu", "scoring-gpu")}


def test_secrets_are_referred_to_and_settings_are_set() -> None:
    for pod in pod_specs(rendered("settings")).values():
        variables = environment(pod["containers"][0])
        assert variables["LINEWATCH_DATABASE_URL"] == {"secretKeyRef": {"name": "linewatch", "key": "DATABASE_URL"}}
        assert variables["LINEWATCH_MINIBATCH"] == "16"
        assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"


def test_numbers_are_passed_as_they_were_written() -> None:
    objects = rendered("settings")
    for pod in pod_specs(objects).values():
        [container] = pod["containers"]
        variables = environment(container)
        assert variables["LINEWATCH_MAX_UPLOAD_BYTES"] == "67108864"
        assert variables["LINEWATCH_BULK_SHARE"] == "0.25"
        assert variables["OTEL_BSP_MAX_QUEUE_SIZE"] == "1000000"
        assert variables["AWS_ACCOUNT_ID"] == "12345678901"
        assert container["image"].endswith(":20261130")


@pytest.mark.parametrize("variant", ["defaults", "a bucket"])  # without a bucket, archives may be in one
def test_credentials_for_buckets_come_from_the_secret(variant: str) -> None:
    for pod in pod_specs(rendered(variant)).values():
        variables = environment(pod["containers"][0])
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            assert variables[name] == {"secretKeyRef": {"name": "linewatch", "key": name, "optional": True}}


def test_buckets_of_any_region_and_server_are_reached() -> None:
    for pod in pod_specs(rendered("a bucket")).values():
        variables = environment(pod["containers"][0])
        assert variables["AWS_REGION"] == "eu-central-1"
        assert variables["AWS_ENDPOINT_URL"] == "http://s3.data:8333"
        assert variables["AWS_ALLOW_HTTP"] == "true"


def metrics_ports(objects: Mapping[str, Object]) -> dict[str, tuple[str, int]]:
    """Name and number of the port on which the pods of each Deployment serve metrics."""
    ports = {}
    for name, each in objects.items():
        if each["kind"] == "Deployment":
            [container] = each["spec"]["template"]["spec"]["containers"]
            [port] = container["ports"]
            ports[name] = (port["name"], port["containerPort"])
    return ports


def test_each_pod_names_the_port_of_its_metrics_and_prometheus_may_connect_to_it() -> None:
    objects = rendered("defaults")
    ports = metrics_ports(objects)
    for name, (port_name, number) in ports.items():
        variables = environment(objects[name]["spec"]["template"]["spec"]["containers"][0])
        is_api = name == "Deployment/line-api"
        assert port_name == ("http" if is_api else "metrics")
        assert str(number) == variables["LINEWATCH_PORT" if is_api else "LINEWATCH_METRICS_PORT"]
    [ingress] = objects["NetworkPolicy/line-metrics"]["spec"]["ingress"]
    assert {port["port"] for port in ingress["ports"]} == {number for _, number in ports.values()}
    assert ingress["from"]
    selector = objects["NetworkPolicy/line-metrics"]["spec"]["podSelector"]["matchLabels"]
    assert all(selector.items() <= objects[name]["spec"]["template"]["metadata"]["labels"].items() for name in ports)


def test_no_annotation_invites_a_scraper_without_a_key() -> None:
    for name in metrics_ports(rendered("defaults")):
        assert "annotations" not in rendered("defaults")[name]["spec"]["template"]["metadata"]
        annotations = rendered("settings")[name]["spec"]["template"]["metadata"]["annotations"]
        assert annotations == {"example.com/team": "vision"}


def test_the_documented_jobs_scrape_each_pod_once_and_the_api_with_a_key() -> None:
    [block] = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "scrape_configs" in block]
    jobs = YAML(typ="safe").load(block)["scrape_configs"]
    assert [job["job_name"] for job in jobs if "authorization" in job] == ["linewatch-api"]
    objects = rendered("GPUs")
    scraped: dict[str, list[str]] = {}
    for name, (port_name, _) in metrics_ports(objects).items():
        labels = {
            f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', label)}": value
            for label, value in objects[name]["spec"]["template"]["metadata"]["labels"].items()
        }
        labels |= {"__meta_kubernetes_pod_container_port_name": port_name, "__meta_kubernetes_pod_phase": "Running"}
        for job in jobs:
            [rule] = job["relabel_configs"]
            value = ";".join(labels.get(label, "") for label in rule["source_labels"])
            if rule["action"] == "keep" and re.fullmatch(rule["regex"], value):
                scraped.setdefault(job["job_name"], []).append(name)
    assert scraped.pop("linewatch-api") == ["Deployment/line-api"]
    assert scraped == {"linewatch-workers": [name for name in metrics_ports(objects) if "line-api" not in name]}


def test_pod_monitors_scrape_each_pod_once_and_the_api_with_a_key() -> None:
    objects = rendered("Prometheus Operator")
    ports = {}
    for job in ("api", "workers"):
        monitor = objects[f"PodMonitor/line-{job}"]
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        labels = monitor["spec"]["selector"]["matchLabels"]
        assert labels.items() <= objects["Deployment/line-io"]["spec"]["template"]["metadata"]["labels"].items()
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": f"linewatch-{job}"}]
        ports[endpoint["port"]] = endpoint.get("authorization")
    assert ports == {"http": {"credentials": {"name": "linewatch-metrics", "key": "key"}}, "metrics": None}
    assert not any(name.startswith("PodMonitor") for name in rendered("defaults"))


def test_an_upgrade_needs_no_free_gpu_unless_the_values_say_so() -> None:
    one_by_one = {"maxSurge": 0, "maxUnavailable": 1}
    assert rendered("GPUs")["Deployment/line-scoring-gpu"]["spec"]["strategy"] == {"rollingUpdate": one_by_one}
    objects = rendered("kinds of GPUs")
    assert objects["Deployment/line-scoring-t4"]["spec"]["strategy"] == {"rollingUpdate": one_by_one}
    assert objects["Deployment/line-scoring-l4"]["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 1
    assert objects["Deployment/line-training"]["spec"]["strategy"] == {"rollingUpdate": one_by_one}
    assert "strategy" not in objects["Deployment/line-scoring-cpu"]["spec"]


def test_the_autoscaler_alone_decides_on_the_replicas_of_the_api() -> None:
    objects = rendered("defaults")
    assert "replicas" not in objects["Deployment/line-api"]["spec"]
    assert objects["HorizontalPodAutoscaler/line-api"]["spec"]["minReplicas"] == 2
    assert rendered("small")["Deployment/line-api"]["spec"]["replicas"] == 2


def test_scoring_workers_are_scaled_by_what_waits() -> None:
    objects = rendered("KEDA")
    scaled = objects["ScaledObject/line-scoring-cpu"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == "line-scoring-cpu"
    assert "replicas" not in objects["Deployment/line-scoring-cpu"]["spec"]  # KEDA decides
    assert [trigger["metadata"]["targetQueryValue"] for trigger in scaled["triggers"]] == ["2000000", "5"]
