"""daybreak on a real API server, as the service account that its own manifests make.

Runs on the cluster that DAYBREAK_TEST_KUBECONFIG names. It needs the API server with RBAC and the
controllers of Deployments and service accounts (v1.20 or later), and no nodes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import (
    ApiException,
    AppsV1Api,
    CoordinationV1Api,
    CoreV1Api,
)
from kubernetes.utils import create_from_dict

from scaler.cluster.connection import connect
from scaler.settings import Kubernetes
from tests.cluster.conftest import NAME, REPLICAS, Home
from tests.integration.prometheus_server import PrometheusServer
from tests.integration.test_daemon import (
    QUERY,
    daybreak,
    decisions,
    free_port,
    get,
    running,
    wait_for,
)
from tests.integration.test_leader_election import another, metric

ACCOUNT = "daybreak"
HPA = "front"
LEASE_SECONDS = 3
QPS_PER_REPLICA = 20
"""Of so little that more is needed than there is."""


@pytest.fixture
def settings(tmp_path: Path, home: Home, prometheus_server: PrometheusServer) -> dict[str, Any]:
    """A daemon's, with an account that `daybreak rbac` still has to make."""
    return {
        "intervalSeconds": 1,
        "prometheus": {"url": prometheus_server.url, "timeoutSeconds": 2},
        "database": {"url": f"sqlite:///{tmp_path / 'daybreak.db'}"},
        "server": {"port": free_port()},
        "kubernetes": {"kubeconfig": str(tmp_path / "kubeconfig"), "timeoutSeconds": 2},
        "workloads": [
            {
                "name": NAME,
                "target": {"namespace": home.namespace, "name": NAME, "mode": "scale"},
                "demand": {"query": QUERY},
                "capacity": {"qpsPerReplica": QPS_PER_REPLICA},
                "history": {"days": 3},
                "maxReplicas": 100,
            }
        ],
    }


def grant(folder: Path, home: Home, settings: dict[str, Any]) -> None:
    """Make what `daybreak rbac` prints for these settings, and give them the account's token."""
    printed = daybreak(
        folder, settings, "rbac", "--namespace", home.namespace, "--service-account", ACCOUNT
    )
    assert printed.returncode == 0, printed.stderr
    create: Any = create_from_dict
    for manifest in yaml.safe_load_all(printed.stdout):
        create(home.cluster.client, manifest)
    home.kubeconfig_of(ACCOUNT, folder / "kubeconfig")


@pytest.mark.parametrize("mode", ["shadow", "floor", "scale", "metric"])
def test_the_printed_role_is_enough_for_each_mode(
    tmp_path: Path, home: Home, settings: dict[str, Any], mode: str
) -> None:
    target = settings["workloads"][0]["target"]
    target["mode"] = mode
    if mode == "floor":
        home.cluster.create_hpa(HPA, low=1, high=200, target=NAME)
        target["hpa"] = HPA
    grant(tmp_path, home, settings)
    checked = daybreak(tmp_path, settings, "check")
    assert checked.returncode == 0, checked.stdout
    ended = daybreak(tmp_path, settings, "run", "--once")
    assert ended.returncode == 0, ended.stderr
    (stored,) = decisions(settings)
    assert stored.context.replicas.spec == REPLICAS
    assert stored.context.replicas.ready == REPLICAS
    asked_for = stored.decision.desired
    assert asked_for > REPLICAS
    assert home.replicas() == (asked_for if mode == "scale" else REPLICAS)
    if mode == "floor":
        assert home.cluster.hpa(HPA).spec.min_replicas == asked_for


def test_the_printed_role_reaches_nothing_else(
    tmp_path: Path, home: Home, settings: dict[str, Any]
) -> None:
    settings["leaderElection"] = {"namespace": home.namespace}
    settings["database"] = {"url": "postgresql+psycopg://nobody@localhost/nothing"}
    grant(tmp_path, home, settings)
    home.deploy("another")
    with connect(Kubernetes(kubeconfig=tmp_path / "kubeconfig")) as client:
        apps, core, leases = AppsV1Api(client), CoreV1Api(client), CoordinationV1Api(client)
        body = {"spec": {"replicas": 0}}
        lease: Any = {"metadata": {"name": "daybreak"}, "spec": {}}
        refused: list[Callable[[], object]] = [
            lambda: apps.patch_namespaced_deployment("another", home.namespace, body),
            lambda: apps.delete_namespaced_deployment(NAME, home.namespace),
            lambda: apps.list_namespaced_deployment("default"),
            lambda: core.list_namespaced_secret(home.namespace),
            lambda: core.list_namespaced_pod("kube-system"),
            lambda: leases.read_namespaced_lease("kube-scheduler", home.namespace),
            lambda: leases.delete_namespaced_lease("daybreak", home.namespace),
        ]
        for number, act in enumerate(refused):
            with pytest.raises(ApiException) as error:
                act()
            assert error.value.status == 403, number
        leases.create_namespaced_lease(home.namespace, lease)
        apps.patch_namespaced_deployment(NAME, home.namespace, {"spec": {"replicas": 3}})
    assert home.replicas() == 3
    assert home.replicas("another") == REPLICAS


def test_a_role_that_lacks_a_verb_is_named_by_the_check(
    tmp_path: Path, home: Home, settings: dict[str, Any]
) -> None:
    granted = settings | {"workloads": [dict(settings["workloads"][0])]}
    granted["workloads"][0]["target"] = settings["workloads"][0]["target"] | {"mode": "shadow"}
    grant(tmp_path, home, granted)
    checked = daybreak(tmp_path, settings, "check")
    assert checked.returncode == 2
    assert f"patch deployments.apps {NAME}" in checked.stdout
    ended = daybreak(tmp_path, settings, "run", "--once")
    assert "Refused" in ended.stderr
    assert "cannot list horizontalpodautoscalers.autoscaling" in ended.stderr
    assert home.replicas() == REPLICAS


def test_one_of_two_daemons_acts_and_the_other_goes_on(
    tmp_path: Path, home: Home, settings: dict[str, Any], postgres_url: str
) -> None:
    settings["database"] = {"url": postgres_url}
    settings["leaderElection"] = {"namespace": home.namespace, "leaseSeconds": 2 * LEASE_SECONDS}
    grant(tmp_path, home, settings)
    with running(tmp_path, settings) as first:
        wait_for(lambda: len(decisions(settings)) >= 2)
        with another(tmp_path, settings) as (_, standby):
            assert (metric(settings, "daybreak_leader"), metric(standby, "daybreak_leader")) == (
                1,
                0,
            )
            assert "leads and decides" in get(standby, "/")[1]
            first.send_signal(signal.SIGKILL)
            first.wait(timeout=10)
            before = len(decisions(settings))
            wait_for(lambda: len(decisions(settings)) >= before + 3)
            assert metric(standby, "daybreak_leader") == 1
    rows = decisions(settings)
    assert [row.context.epoch for row in rows] == list(range(1, len(rows) + 1))
    assert home.replicas() == rows[-1].decision.desired
    lease = CoordinationV1Api(home.cluster.client).read_namespaced_lease("daybreak", home.namespace)
    assert lease.spec is not None
    assert lease.spec.lease_transitions == 2
