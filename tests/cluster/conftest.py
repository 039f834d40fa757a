"""The real cluster, and the Prometheus that these tests share with the integration tests."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import (
    AppsV1Api,
    AutoscalingV1Api,
    CoreV1Api,
    RbacAuthorizationV1Api,
    V1Namespace,
    V1ObjectMeta,
)

from scaler.cluster.api import ClusterClient
from scaler.cluster.connection import connect
from scaler.settings import Kubernetes
from tests.integration.conftest import prometheus_server
from tests.integration.test_cluster import Cluster

__all__ = ["prometheus_server"]  # a fixture

NAME = "grammar"
REPLICAS = 2
PATIENCE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Home:
    """A namespace of the test's own with the Deployment to be scaled, as its administrator."""

    client: ClusterClient
    namespace: str

    def replicas(self, name: str = NAME) -> int:
        found = AppsV1Api(self.client).read_namespaced_deployment(name, self.namespace)
        assert found.spec is not None
        return int(found.spec.replicas or 0)

    def deploy(self, name: str) -> None:
        """With pods that are ready, as a node would say; needs none."""
        Cluster(self.client, self.namespace).create_deployment(name, REPLICAS)
        wait_for(lambda: len(self.pods(name)) == REPLICAS)
        ready = {
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        }
        for pod_name in self.pods(name):
            CoreV1Api(self.client).patch_namespaced_pod_status(pod_name, self.namespace, ready)

    def pods(self, name: str) -> list[str]:
        listed = CoreV1Api(self.client).list_namespaced_pod(
            self.namespace, label_selector=f"app={name}"
        )
        return [each.metadata.name or "" for each in listed.items if each.metadata]

    def create_hpa(self, name: str) -> None:
        cluster = Cluster(self.client, self.namespace)
        cluster.create_hpa(name, low=1, high=200, target=NAME)

    def min_replicas(self, name: str) -> int:
        hpas = AutoscalingV1Api(self.client)
        found = hpas.read_namespaced_horizontal_pod_autoscaler(name, self.namespace)
        return int(found.spec.min_replicas or 0)

    def create(self, manifest: dict[str, Any]) -> None:
        """What `daybreak rbac` prints."""
        rbac = RbacAuthorizationV1Api(self.client)
        kinds: dict[str, Callable[[str, Any], object]] = {
            "ServiceAccount": CoreV1Api(self.client).create_namespaced_service_account,
            "Role": rbac.create_namespaced_role,
            "RoleBinding": rbac.create_namespaced_role_binding,
        }
        kinds[manifest["kind"]](manifest["metadata"]["namespace"], manifest)

    def kubeconfig_of(self, account: str, path: Path) -> Path:
        """The administrator's, with a token of the service account instead of his credentials."""
        request: Any = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        granted: Any = CoreV1Api(self.client).create_namespaced_service_account_token(
            account, self.namespace, request
        )
        document = yaml.safe_load(Path(os.environ["DAYBREAK_TEST_KUBECONFIG"]).read_text())
        for user in document["users"]:
            user["user"] = {"token": granted.status.token}
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path


def wait_for(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < ends_at, f"not within {PATIENCE_SECONDS} s"
        time.sleep(0.1)


@pytest.fixture
def home() -> Iterator[Home]:
    settings = Kubernetes(kubeconfig=Path(os.environ["DAYBREAK_TEST_KUBECONFIG"]))
    with connect(settings) as client:
        home = Home(client, f"daybreak-test-{uuid.uuid4().hex[:8]}")
        core = CoreV1Api(client)
        core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=home.namespace)))
        try:
            home.deploy(NAME)
            yield home
        finally:
            core.delete_namespace(home.namespace)
