"""The Helm chart, rendered by Helm itself and checked against the schemas of Kubernetes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
from ruamel.yaml import YAML

CHART = Path(__file__).parents[3] / "deploy/helm/linewatch"
KUBERNETES = "1.34"
OF_KEDA = "keda.sh/"  # its schemas are not those of Kubernetes

VARIANTS: Mapping[str, dict[str, Any]] = {
    "defaults": {},
    "a bucket": {"store": {"url": "s3://images/line"}},
    "an existing volume": {"store": {"volume": {"existingClaim": "images"}}},
    "GPUs": {"scoring": {"gpu": {"enabled": True, "nodeSelector": {"gpu": "l4"}}, "cpu": {"enabled": False}}},
    "KEDA": {"keda": {"enabled": True}},
    "ingress": {"api": {"ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"}}},
    "small": {
        "api": {"autoscaling": {"enabled": False}},
        "training": {"enabled": False},
        "networkPolicies": {"enabled": False},
        "podDisruptionBudgets": False,
    },
    "settings": {"settings": {"MINIBATCH": 16, "AUTH": "on"}, "image": {"pullSecrets": [{"name": "registry"}]}},
}

Object = dict[str, Any]


def rendered(values: dict[str, Any]) -> dict[str, Object]:
    """The objects of the chart, by kind and name."""
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, name="line", namespace="vision")
    documents = [
        document
        for name, text in files.items()
        if name.endswith(".yaml")
        for document in YAML(typ="safe").load_all(text)
        if document
    ]
    objects = {f"{document['kind']}/{document['metadata']['name']}": document for document in documents}
    assert len(objects) == len(documents)
    return objects


def pod_specs(objects: Mapping[str, Object]) -> dict[str, Object]:
    return {
        name: each["spec"]["template"]["spec"]
        for name, each in objects.items()
        if each["kind"] in ("Deployment", "Job")
    }


def environment(container: Mapping[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}


def test_helm_finds_no_fault() -> None:
    for values in VARIANTS.values():
        report = helm_python.lint(CHART, values, strict=True, kube_version=f"v{KUBERNETES}.0")
        assert report["errors"] == []
        assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_object_is_what_kubernetes_accepts(variant: str) -> None:
    for each in rendered(VARIANTS[variant]).values():
        if not each["apiVersion"].startswith(OF_KEDA):
            kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_have_no_privileges(variant: str) -> None:
    for name, pod in pod_specs(rendered(VARIANTS[variant])).items():
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
    objects = rendered(VARIANTS[variant])
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
    objects = rendered({})
    job = objects["Job/line-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    volumes = [volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]]
    assert volumes == ["tmp"]  # the claim is made after it
    account = objects["ServiceAccount/line"]["metadata"]["annotations"]
    assert int(account["helm.sh/hook-weight"]) < int(job["metadata"]["annotations"]["helm.sh/hook-weight"])


def test_the_store_is_a_volume_or_a_bucket() -> None:
    of_folder, of_bucket = rendered({}), rendered(VARIANTS["a bucket"])
    assert of_folder["PersistentVolumeClaim/line-store"]["spec"]["accessModes"] == ["ReadWriteMany"]
    assert "PersistentVolumeClaim/line-store" not in of_bucket
    for objects, url in ((of_folder, "file:///var/lib/linewatch/store"), (of_bucket, "s3://images/line")):
        for name, pod in pod_specs(objects).items():
            [container] = pod["containers"]
            assert environment(container)["LINEWATCH_STORE_URL"] == url
            mounts = [mount["name"] for mount in container["volumeMounts"]]
            assert ("store" in mounts) == (url.startswith("file:") and "migrate" not in name)


def test_secrets_are_referred_to_and_settings_are_set() -> None:
    for pod in pod_specs(rendered(VARIANTS["settings"])).values():
        variables = environment(pod["containers"][0])
        assert variables["LINEWATCH_DATABASE_URL"] == {"secretKeyRef": {"name": "linewatch", "key": "DATABASE_URL"}}
        assert variables["LINEWATCH_MINIBATCH"] == "16"


def test_scoring_workers_are_scaled_by_what_waits() -> None:
    objects = rendered(VARIANTS["KEDA"])
    scaled = objects["ScaledObject/line-scoring-cpu"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == "line-scoring-cpu"
    assert "replicas" not in objects["Deployment/line-scoring-cpu"]["spec"]  # KEDA decides
    assert [trigger["metadata"]["targetQueryValue"] for trigger in scaled["triggers"]] == ["200", "5"]
