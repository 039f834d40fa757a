"""`daybreak rbac`: the printed Role allows what the daemon asks for, and little else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.commands import run
from tests.integration.kubernetes_server import KubernetesServer, Request
from tests.integration.test_daemon import NAME, cluster, config, daybreak, workload

__all__ = ["cluster", "config"]  # fixtures

PODS = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
HPAS = {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"]}
MODES = {
    "shadow": {"mode": "shadow"},
    "floor": {"mode": "floor", "hpa": "front"},
    "scale": {"mode": "scale"},
    "metric": {"mode": "metric"},
}


def deployment(*verbs: str, names: tuple[str, ...] = (NAME,)) -> dict[str, Any]:
    resource = {"apiGroups": ["apps"], "resources": ["deployments"]}
    return resource | {"resourceNames": list(names), "verbs": list(verbs)}


RULES = {
    "shadow": [PODS, deployment("get")],
    "floor": [
        PODS,
        deployment("get"),
        HPAS | {"resourceNames": ["front"], "verbs": ["get", "patch"]},
    ],
    "scale": [
        PODS,
        deployment("get", "patch"),
        HPAS | {"verbs": ["list"]},
        {"apiGroups": ["keda.sh"], "resources": ["scaledobjects"], "verbs": ["list"]},
    ],
    "metric": [PODS, deployment("get")],
}
ONLY_OF_A_CHECK = {"selfsubjectaccessreviews", "horizontalpodautoscalers"}
"""What `daybreak check` asks for beside it: the first is everybody's to ask, and the second, where
it may, for floors that were left behind."""


def printed(folder: Path, config: dict[str, Any], *arguments: str) -> list[dict[str, Any]]:
    ended = daybreak(folder, config, "rbac", *arguments)
    assert ended.returncode == 0, ended.stderr
    return list(yaml.safe_load_all(ended.stdout))


def in_mode(config: dict[str, Any], mode: str) -> dict[str, Any]:
    target = {"namespace": "llm", "name": NAME, **MODES[mode]}
    return config | {
        "intervalSeconds": 15,
        "workloads": [workload(NAME, target=target, history={"days": 2})],
    }


def put_hpa(cluster: KubernetesServer) -> None:
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}
    cluster.put(
        "horizontalpodautoscalers",
        {
            "metadata": {"name": "front", "namespace": "llm"},
            "spec": {"minReplicas": 2, "maxReplicas": 200, "scaleTargetRef": reference},
        },
    )


def allowing(rule: dict[str, Any], request: Request) -> bool:
    """As the API server takes a rule: a list or a creation has no name that could match one."""
    return (
        request.group in rule["apiGroups"]
        and "/".join(filter(None, (request.resource, request.subresource))) in rule["resources"]
        and request.verb in rule["verbs"]
        and ("resourceNames" not in rule or request.name in rule["resourceNames"])
    )


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_has_its_rules(tmp_path: Path, config: dict[str, Any], mode: str) -> None:
    account, role, binding = printed(tmp_path, in_mode(config, mode))
    assert account == {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "daybreak", "namespace": "daybreak"},
        "automountServiceAccountToken": False,
    }
    assert (role["kind"], role["metadata"]) == ("Role", {"name": "daybreak", "namespace": "llm"})
    assert role["rules"] == RULES[mode]
    assert binding["metadata"] == role["metadata"]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": "daybreak",
    }
    subject = {"kind": "ServiceAccount", "name": "daybreak", "namespace": "daybreak"}
    assert binding["subjects"] == [subject]


@pytest.mark.parametrize("mode", MODES)
def test_what_the_daemon_asks_for_is_allowed_and_every_rule_is_used(
    tmp_path: Path, config: dict[str, Any], cluster: KubernetesServer, mode: str
) -> None:
    if mode == "floor":
        put_hpa(cluster)
    own = in_mode(config, mode)
    ended = daybreak(tmp_path, own, "run", "--once")
    assert ended.returncode == 0, ended.stderr
    asked = list(cluster.log)
    assert ("patch" in {request.verb for request in asked}) == (mode in ("floor", "scale"))
    checked = daybreak(tmp_path, own, "check")
    assert checked.returncode == 0, checked.stdout
    asked += [one for one in cluster.log[len(asked) :] if one.resource not in ONLY_OF_A_CHECK]
    (role,) = (one for one in printed(tmp_path, own) if one["kind"] == "Role")
    assert {request.namespace for request in asked} == {"llm"}
    assert [one for one in asked if not any(allowing(rule, one) for rule in role["rules"])] == []
    assert [rule for rule in role["rules"] if not any(allowing(rule, one) for one in asked)] == []
    unused = [
        (rule["resources"], verb)
        for rule in role["rules"]
        for verb in rule["verbs"]
        if not any(allowing(rule | {"verbs": [verb]}, one) for one in asked)
    ]
    assert unused == []


def test_each_namespace_has_a_role_of_its_own_and_names_only_its_targets(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    config["workloads"] = [
        workload(name, target={"namespace": namespace, "name": name, **MODES[mode]})
        for namespace, name, mode in (
            ("llm", "b", "scale"),
            ("llm", "a", "scale"),
            ("llm", "c", "shadow"),
            ("chat", "front", "floor"),
        )
    ]
    found = printed(tmp_path, config, "--namespace", "ops", "--service-account", "scaler")
    roles = {one["metadata"]["namespace"]: one for one in found if one["kind"] == "Role"}
    assert list(roles) == ["chat", "llm"]
    assert {one["metadata"]["name"] for one in found} == {"scaler"}
    assert deployment("get", "patch", names=("a", "b")) in roles["llm"]["rules"]
    assert deployment("get", names=("c",)) in roles["llm"]["rules"]
    assert "front" not in yaml.safe_dump(roles["llm"])
    bound = [one["subjects"][0]["namespace"] for one in found if one["kind"] == "RoleBinding"]
    assert bound == ["ops", "ops"]
    config["workloads"].reverse()
    assert printed(tmp_path, config, "--namespace", "ops", "--service-account", "scaler") == found


def test_nothing_is_asked_of_a_cluster(
    tmp_path: Path, config: dict[str, Any], cluster: KubernetesServer
) -> None:
    printed(tmp_path, config)
    assert cluster.log == []


@pytest.mark.parametrize("option", ["--namespace", "--service-account"])
def test_a_name_that_kubernetes_would_not_take_is_refused(
    tmp_path: Path, config: dict[str, Any], option: str
) -> None:
    ended = daybreak(tmp_path, config, "rbac", option, "Not a name")
    assert ended.returncode == 2
    assert f"{option}: expected a name that Kubernetes takes, got 'Not a name'" in ended.stderr


def test_help_has_an_example() -> None:
    assert "Example: daybreak rbac --config" in run("rbac", "--help").stdout
