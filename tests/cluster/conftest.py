"""The real cluster, and the Prometheus that these tests share with the integration tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import CoreV1Api

from tests.integration.conftest import prometheus_server
from tests.integration.test_cluster import Cluster, own_namespace
from tests.integration.test_daemon import wait_for

__all__ = ["prometheus_server"]  # a fixture

NAME = "grammar"
REPLICAS = 2


@dataclass
class Home:
    """A namespace of the test's own with the Deployment to be scaled, as its administrator."""

    cluster: Cluster

    @property
    def namespace(self) -> str:
        return self.cluster.namespace

    def replicas(self, name: str = NAME) -> int:
        return int(self.cluster.deployment(name).spec.replicas)

    def deploy(self, name: str) -> None:
        """With pods that are ready, as a node would say; needs none."""
        core = CoreV1Api(self.cluster.client)
        self.cluster.create_deployment(name, REPLICAS)
        wait_for(lambda: len(self.pods(name)) == REPLICAS)
        conditions = [{"type": "Ready", "status": "True"}]
        ready = {"status": {"phase": "Running", "conditions": conditions}}
        for pod_name in self.pods(name):
            core.patch_namespaced_pod_status(pod_name, self.namespace, ready)

    def pods(self, name: str) -> list[str]:
        listed = CoreV1Api(self.cluster.client).list_namespaced_pod(
            self.namespace, label_selector=f"app={name}"
        )
        return [each.metadata.name or "" for each in listed.items if each.metadata]

    def kubeconfig_of(self, account: str, path: Path) -> Path:
        """The administrator's, with a token of the service account instead of his credentials."""
        request: Any = {"spec": {"audiences": [], "expirationSeconds": 3600}}
        granted: Any = CoreV1Api(self.cluster.client).create_namespaced_service_account_token(
            account, self.namespace, request
        )
        document = yaml.safe_load(Path(os.environ["DAYBREAK_TEST_KUBECONFIG"]).read_text())
        for user in document["users"]:
            user["user"] = {"token": granted.status.token}
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path


@pytest.fixture
def home() -> Iterator[Home]:
    with own_namespace(Path(os.environ["DAYBREAK_TEST_KUBECONFIG"])) as cluster:
        home = Home(cluster)
        home.deploy(NAME)
        yield home
