"""The cluster adapter against an API server: the tests' own, or a real one.

Runs on a socket of its own by default and, unchanged, on the cluster that DAYBREAK_TEST_KUBECONFIG
names. It needs the API server and the Deployment controller (v1.20 or later), and no running pods.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.client import (
    AppsV1Api,
    AutoscalingV1Api,
    CoreV1Api,
    V1Deployment,
    V1HorizontalPodAutoscaler,
    V1Namespace,
    V1ObjectMeta,
)
from kubernetes.client.rest import RESTResponse
from structlog.testing import capture_logs

from policies.context import LeadTime, Replicas
from policies.decision import OutcomeKind
from scaler.cluster.api import ClusterClient
from scaler.cluster.check import check_target
from scaler.cluster.connection import connect, open_target
from scaler.cluster.pods import lead_times
from scaler.cluster.targets import RENEWED_AFTER
from scaler.finding import Severity
from scaler.ports import ScaleTarget, TargetError
from scaler.settings import Kubernetes, Target, Workload
from tests.integration.kubernetes_server import KubernetesServer

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
LEAD = LeadTime(60.0, 120.0)
REAL = os.environ.get("DAYBREAK_TEST_KUBECONFIG")


class Interloper(ClusterClient):
    """A client whose first PATCH comes too late: somebody else acts just before it."""

    act: Callable[[], object] | None = None

    def call_api(  # type: ignore[no-untyped-def]
        self, method, url, header_params=None, body=None, post_params=None, _request_timeout=None
    ) -> RESTResponse:
        if method == "PATCH" and self.act:
            act, self.act = self.act, None
            act()
        return super().call_api(method, url, header_params, body, post_params, _request_timeout)


@dataclass
class Cluster:
    """A namespace of the test's own, with what other writers do in it."""

    client: ClusterClient
    namespace: str
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.apps = AppsV1Api(self.client)
        self.hpas = AutoscalingV1Api(self.client)

    def create_deployment(self, name: str = "llama", replicas: int = 2) -> V1Deployment:
        labels = {"app": name}
        pod = {"containers": [{"name": "server", "image": "registry.k8s.io/pause:3.9"}]}
        body: Any = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
        return self.apps.create_namespaced_deployment(self.namespace, body)

    def create_hpa(
        self, name: str = "llama", low: int = 2, high: int = 10, target: str = "llama"
    ) -> V1HorizontalPodAutoscaler:
        body: Any = {
            "apiVersion": "autoscaling/v1",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name},
            "spec": {
                "minReplicas": low,
                "maxReplicas": high,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            },
        }
        return self.hpas.create_namespaced_horizontal_pod_autoscaler(self.namespace, body)

    def deployment(self, name: str = "llama") -> Any:
        return self.apps.read_namespaced_deployment(name, self.namespace)

    def hpa(self, name: str = "llama") -> Any:
        return self.hpas.read_namespaced_horizontal_pod_autoscaler(name, self.namespace)

    def patch_deployment(self, body: dict[str, Any]) -> None:
        self.apps.patch_namespaced_deployment("llama", self.namespace, body)

    def set_replicas(self, replicas: int) -> None:
        self.patch_deployment({"spec": {"replicas": replicas}})

    def patch_hpa(self, body: dict[str, Any]) -> None:
        self.hpas.patch_namespaced_horizontal_pod_autoscaler("llama", self.namespace, body)

    def target(self, mode: str, client: ClusterClient | None = None, **changed: Any) -> ScaleTarget:
        return open_target(
            client or self.client, self.settings(mode, **changed), LEAD, lambda: self.now
        )

    def settings(self, mode: str, **changed: Any) -> Target:
        hpa = "llama" if mode == "floor" else None
        fields = {"namespace": self.namespace, "name": "llama", "mode": mode, "hpa": hpa}
        return Target.model_validate({**fields, **changed})

    def workload(self, mode: str, **changed: Any) -> Workload:
        fields = {
            "name": "llama",
            "target": self.settings(mode),
            "demand": {"query": "sum(rate(requests_total[1m]))"},
            "capacity": {"qpsPerReplica": 4.0},
            "maxReplicas": 10,
        }
        return Workload.model_validate({**fields, **changed})

    def interloper(self, act: Callable[[], object]) -> Interloper:
        client = Interloper(self.client.configuration, self.client.timeout_seconds)
        client.act = act
        return client


def kubeconfig(path: Path, url: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "namespace": "default"}}],
        "current-context": "here",
    }
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@pytest.fixture(params=["real"] if REAL else ["fake", "fake without autoscaling/v2"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        path = Path(REAL) if REAL else tmp_path / "kubeconfig"
        if not REAL:
            fake = KubernetesServer(autoscaling_v2=request.param == "fake")
            kubeconfig(path, stack.enter_context(fake).url)
        found = stack.enter_context(own_namespace(path))
        found.create_deployment()
        yield found


@contextmanager
def own_namespace(path: Path) -> Iterator[Cluster]:
    """On the server that a kubeconfig names."""
    name = f"daybreak-test-{uuid.uuid4().hex[:8]}"
    with connect(Kubernetes(kubeconfig=path)) as client:
        core = CoreV1Api(client)
        core.create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name)))
        cluster = Cluster(client, name)
        try:
            yield cluster
        finally:
            clear(cluster)
            core.delete_namespace(name)


def clear(cluster: Cluster) -> None:
    namespace = cluster.namespace
    for hpa in cluster.hpas.list_namespaced_horizontal_pod_autoscaler(namespace).items:
        cluster.hpas.delete_namespaced_horizontal_pod_autoscaler(name_of(hpa), namespace)
    for deployment in cluster.apps.list_namespaced_deployment(namespace).items:
        cluster.apps.delete_namespaced_deployment(name_of(deployment), namespace)


def name_of(item: V1Deployment | V1HorizontalPodAutoscaler) -> str:
    assert item.metadata is not None
    assert item.metadata.name is not None
    return item.metadata.name


def read(target: ScaleTarget) -> Replicas:
    return target.read(NOW)


# What every mode reads.


@pytest.mark.parametrize("mode", ["shadow", "metric", "scale"])
def test_reads_what_is_asked_for(cluster: Cluster, mode: str) -> None:
    seen = read(cluster.target(mode))
    assert seen.spec == 2
    assert seen.stored_epoch is None
    assert seen.ready + len(seen.starting) + seen.draining <= 2
    assert seen.token == cluster.deployment().metadata.uid


@pytest.mark.parametrize("mode", ["shadow", "metric"])
def test_writes_nothing_in_shadow_and_metric(cluster: Cluster, mode: str) -> None:
    target = cluster.target(mode)
    outcome = target.apply(7, read(target), 1)
    assert outcome.kind is OutcomeKind.SHADOW
    assert mode in outcome.detail
    assert cluster.deployment().spec.replicas == 2


def test_missing_deployment_is_named(cluster: Cluster) -> None:
    with pytest.raises(TargetError, match=f"{cluster.namespace}/absent does not exist"):
        read(cluster.target("shadow", name="absent"))


def test_missing_hpa_is_named(cluster: Cluster) -> None:
    with pytest.raises(TargetError, match=f"{cluster.namespace}/llama does not exist"):
        read(cluster.target("floor"))


def test_no_lead_time_without_ready_pods(cluster: Cluster) -> None:
    assert lead_times(cluster.client, cluster.settings("shadow"), NOW) is None


# Mode scale.


def test_scale_sets_replicas_and_epoch_at_once(cluster: Cluster) -> None:
    target = cluster.target("scale")
    assert target.apply(5, read(target), 7).kind is OutcomeKind.APPLIED
    assert cluster.deployment().spec.replicas == 5
    assert read(target).stored_epoch == 7
    assert target.apply(3, read(target), 8).kind is OutcomeKind.APPLIED
    assert (read(target).spec, read(target).stored_epoch) == (3, 8)


def test_scale_keeps_other_annotations(cluster: Cluster) -> None:
    target = cluster.target("scale")
    cluster.patch_deployment({"metadata": {"annotations": {"owner": "search"}}})
    assert target.apply(5, read(target), 1).kind is OutcomeKind.APPLIED
    assert cluster.deployment().metadata.annotations["owner"] == "search"


def test_scale_does_not_wipe_annotations_that_appear_meanwhile(cluster: Cluster) -> None:
    def annotate() -> None:
        cluster.patch_deployment({"metadata": {"annotations": {"owner": "search"}}})

    with cluster.interloper(annotate) as client:
        target = cluster.target("scale", client)
        cluster.patch_deployment({"metadata": {"annotations": None}})
        assert target.apply(5, read(target), 1).kind is OutcomeKind.APPLIED
    annotations = cluster.deployment().metadata.annotations
    assert (annotations["owner"], annotations["daybreak/epoch"]) == ("search", "1")


def test_scale_leaves_a_fitting_number_alone(cluster: Cluster) -> None:
    target = cluster.target("scale")
    assert target.apply(2, read(target), 1).kind is OutcomeKind.UNCHANGED
    assert read(target).stored_epoch is None


def test_scale_renews_an_old_mark(cluster: Cluster) -> None:
    """So that another daybreak sees that this one is alive."""
    target = cluster.target("scale")
    target.apply(3, read(target), 1)
    cluster.patch_deployment({"spec": {"paused": True}})
    assert target.apply(3, read(target), RENEWED_AFTER).kind is OutcomeKind.UNCHANGED
    assert read(target).stored_epoch == 1
    assert target.apply(3, read(target), 1 + RENEWED_AFTER).kind is OutcomeKind.APPLIED
    assert (read(target).spec, read(target).stored_epoch) == (3, 1 + RENEWED_AFTER)


def test_shadow_minds_nobodys_mark(cluster: Cluster) -> None:
    writer = cluster.target("scale")
    writer.apply(3, read(writer), 9)
    assert read(cluster.target("shadow")).stored_epoch is None


def test_scale_leaves_what_was_turned_off_with_0_replicas(cluster: Cluster) -> None:
    target = cluster.target("scale")
    target.apply(3, read(target), 1)
    cluster.set_replicas(0)
    for epoch in (2, 2 + RENEWED_AFTER):
        outcome = target.apply(5, read(target), epoch)
        assert outcome.kind is OutcomeKind.REFUSED
        assert "at 0 replicas autoscaling is off" in outcome.detail
    assert cluster.deployment().spec.replicas == 0
    cluster.set_replicas(1)
    assert target.apply(5, read(target), 3).kind is OutcomeKind.APPLIED


def test_scale_is_not_disturbed_by_writes_that_do_not_matter(cluster: Cluster) -> None:
    target = cluster.target("scale")
    target.apply(3, read(target), 1)

    def annotate() -> None:
        cluster.patch_deployment({"metadata": {"annotations": {"owner": "search"}}})

    with cluster.interloper(annotate) as client:
        target = cluster.target("scale", client)
        assert target.apply(5, read(target), 2).kind is OutcomeKind.APPLIED
    assert cluster.deployment().spec.replicas == 5


def test_scale_yields_to_a_change_since_reading(cluster: Cluster) -> None:
    target = cluster.target("scale")
    seen = read(target)
    cluster.set_replicas(9)
    outcome = target.apply(5, seen, 1)
    assert outcome.kind is OutcomeKind.CONFLICT
    assert "seen with 2 replicas" in outcome.detail
    assert cluster.deployment().spec.replicas == 9


def test_scale_does_not_overwrite_a_change_just_before_the_write(cluster: Cluster) -> None:
    target = cluster.target("scale")
    target.apply(3, read(target), 1)
    with cluster.interloper(lambda: cluster.set_replicas(9)) as client:
        late = cluster.target("scale", client)
        assert late.apply(5, read(late), 2).kind is OutcomeKind.CONFLICT
    assert cluster.deployment().spec.replicas == 9


def test_scale_does_not_overwrite_a_newer_epoch_just_before_the_write(cluster: Cluster) -> None:
    target = cluster.target("scale")
    target.apply(3, read(target), 1)
    newer = {"metadata": {"annotations": {"daybreak/epoch": "40"}}}
    with cluster.interloper(lambda: cluster.patch_deployment(newer)) as client:
        late = cluster.target("scale", client)
        outcome = late.apply(5, read(late), 2)
    assert outcome.kind is OutcomeKind.REFUSED
    assert "epoch 40, newer than ours (2)" in outcome.detail
    assert cluster.deployment().spec.replicas == 3


def test_scale_refuses_a_newer_epoch(cluster: Cluster) -> None:
    target = cluster.target("scale")
    target.apply(3, read(target), 9)
    outcome = target.apply(5, read(target), 8)
    assert outcome.kind is OutcomeKind.REFUSED
    assert cluster.deployment().spec.replicas == 3


def recreate(cluster: Cluster) -> None:
    cluster.apps.delete_namespaced_deployment("llama", cluster.namespace)
    cluster.create_deployment()


def test_scale_refuses_a_recreated_deployment_until_it_has_stayed(cluster: Cluster) -> None:
    target = cluster.target("scale")
    seen = read(target)
    recreate(cluster)
    for again in (seen, read(target), read(target)):
        outcome = target.apply(5, again, 1)
        assert outcome.kind is OutcomeKind.REFUSED
        assert "created anew" in outcome.detail
    assert cluster.deployment().spec.replicas == 2
    with capture_logs() as logged:
        taken_on = read(target)
    assert [line["event"] for line in logged] == ["taken on anew"]
    assert target.apply(5, seen, 1).kind is OutcomeKind.REFUSED
    assert target.apply(5, taken_on, 1).kind is OutcomeKind.APPLIED


def test_a_deployment_that_is_recreated_again_and_again_is_not_taken_on(cluster: Cluster) -> None:
    target = cluster.target("scale")
    read(target)
    for _ in range(4):
        recreate(cluster)
        assert target.apply(5, read(target), 1).kind is OutcomeKind.REFUSED


def test_scale_does_not_write_to_one_recreated_just_before_the_write(cluster: Cluster) -> None:
    owner = {"metadata": {"annotations": {"owner": "search"}}}

    def recreate_alike() -> None:
        recreate(cluster)
        cluster.patch_deployment(owner)

    cluster.patch_deployment(owner)
    with cluster.interloper(recreate_alike) as client:
        target = cluster.target("scale", client)
        assert target.apply(5, read(target), 1).kind is OutcomeKind.REFUSED
    assert cluster.deployment().spec.replicas == 2


def test_scale_refuses_a_deleted_deployment(cluster: Cluster) -> None:
    target = cluster.target("scale")
    seen = read(target)
    cluster.apps.delete_namespaced_deployment("llama", cluster.namespace)
    outcome = target.apply(5, seen, 1)
    assert outcome.kind is OutcomeKind.FAILED
    assert "does not exist" in outcome.detail


def test_scale_refuses_a_paused_deployment(cluster: Cluster) -> None:
    target = cluster.target("scale")
    cluster.patch_deployment({"spec": {"paused": True}})
    outcome = target.apply(5, read(target), 1)
    assert outcome.kind is OutcomeKind.REFUSED
    assert "paused" in outcome.detail


def test_scale_refuses_beside_an_hpa(cluster: Cluster) -> None:
    cluster.create_hpa("elsewhere", target="other")
    target = cluster.target("scale")
    assert target.apply(3, read(target), 1).kind is OutcomeKind.APPLIED
    cluster.create_hpa("rival")
    outcome = target.apply(5, read(target), 2)
    assert outcome.kind is OutcomeKind.REFUSED
    assert "rival" in outcome.detail


def test_scale_never_asks_for_nothing(cluster: Cluster) -> None:
    target = cluster.target("scale")
    assert target.apply(0, read(target), 1).kind is OutcomeKind.REFUSED


# Mode floor.


def test_floor_raises_min_replicas_and_says_until_when(cluster: Cluster) -> None:
    cluster.create_hpa()
    target = cluster.target("floor")
    assert target.apply(6, read(target), 4).kind is OutcomeKind.APPLIED
    hpa = cluster.hpa()
    assert hpa.spec.min_replicas == 6
    ours = {key: text for key, text in hpa.metadata.annotations.items() if "daybreak" in key}
    assert ours == {
        "daybreak/epoch": "4",
        "daybreak/floor": "6",
        "daybreak/floor-expires-at": "2026-03-02T09:15:00+00:00",
        "daybreak/original-min-replicas": "2",
    }
    assert read(target).stored_epoch == 4


def test_a_floor_that_the_hpa_has_not_followed_yet_is_what_is_asked_for(cluster: Cluster) -> None:
    """Else a doubt in these seconds, which holds what is asked for, would take the floor back."""
    cluster.create_hpa(high=20)
    target = cluster.target("floor")
    asked = read(target)
    assert target.apply(12, asked, 1).kind is OutcomeKind.APPLIED
    assert (asked.spec, read(target).spec) == (2, 12)
    assert read(target).ready == asked.ready
    assert target.apply(12, read(target), 2).kind is OutcomeKind.UNCHANGED
    cluster.set_replicas(0)  # which turns the HPA off
    assert read(target).spec == 0


def test_floor_never_goes_below_the_original(cluster: Cluster) -> None:
    cluster.create_hpa(low=3)
    target = cluster.target("floor")
    assert target.apply(1, read(target), 1).kind is OutcomeKind.UNCHANGED
    assert target.apply(6, read(target), 2).kind is OutcomeKind.APPLIED
    outcome = target.apply(1, read(target), 3)
    assert outcome.kind is OutcomeKind.APPLIED
    assert "original minReplicas 3" in outcome.detail
    assert cluster.hpa().spec.min_replicas == 3
    assert cluster.hpa().metadata.annotations["daybreak/original-min-replicas"] == "3"


def test_floor_takes_another_writers_minimum_as_the_original(cluster: Cluster) -> None:
    cluster.create_hpa(low=2)
    target = cluster.target("floor")
    target.apply(4, read(target), 1)
    cluster.patch_hpa({"spec": {"minReplicas": 8}})
    assert target.apply(5, read(target), 2).kind is OutcomeKind.UNCHANGED
    assert cluster.hpa().spec.min_replicas == 8
    assert target.apply(9, read(target), 3).kind is OutcomeKind.APPLIED
    assert cluster.hpa().metadata.annotations["daybreak/original-min-replicas"] == "8"


def test_floor_stops_at_max_replicas(cluster: Cluster) -> None:
    cluster.create_hpa(high=5)
    target = cluster.target("floor")
    for epoch, kind in ((1, OutcomeKind.APPLIED), (2, OutcomeKind.UNCHANGED)):
        outcome = target.apply(12, read(target), epoch)
        assert outcome.kind is kind
        assert "floor 12 is held at maxReplicas 5" in outcome.detail
    assert cluster.hpa().spec.min_replicas == 5


def test_floor_is_refreshed_once_half_its_life_is_over(cluster: Cluster) -> None:
    cluster.create_hpa()
    target = cluster.target("floor")
    target.apply(6, read(target), 1)
    cluster.now = NOW + timedelta(seconds=449)
    assert target.apply(6, read(target), 2).kind is OutcomeKind.UNCHANGED
    cluster.now = NOW + timedelta(seconds=450)
    assert target.apply(6, read(target), 3).kind is OutcomeKind.APPLIED
    expires = cluster.hpa().metadata.annotations["daybreak/floor-expires-at"]
    assert expires == "2026-03-02T09:22:30+00:00"


def test_floor_refuses_a_newer_epoch(cluster: Cluster) -> None:
    cluster.create_hpa()
    target = cluster.target("floor")
    target.apply(6, read(target), 9)
    assert target.apply(8, read(target), 8).kind is OutcomeKind.REFUSED
    assert cluster.hpa().spec.min_replicas == 6


def test_floor_survives_a_write_just_before_its_own(cluster: Cluster) -> None:
    cluster.create_hpa()
    note = {"metadata": {"annotations": {"owner": "search"}}}
    with cluster.interloper(lambda: cluster.patch_hpa(note)) as client:
        target = cluster.target("floor", client)
        assert target.apply(6, read(target), 1).kind is OutcomeKind.APPLIED
    assert cluster.hpa().spec.min_replicas == 6


def test_floor_does_not_undo_a_raise_just_before_its_write(cluster: Cluster) -> None:
    cluster.create_hpa()
    raised = {"spec": {"minReplicas": 9}}
    with cluster.interloper(lambda: cluster.patch_hpa(raised)) as client:
        target = cluster.target("floor", client)
        assert target.apply(6, read(target), 1).kind is OutcomeKind.UNCHANGED
    assert cluster.hpa().spec.min_replicas == 9


def test_floor_refuses_an_hpa_of_another_deployment(cluster: Cluster) -> None:
    cluster.create_hpa(target="other")
    target = cluster.target("floor")
    assert target.apply(6, read(target), 1).kind is OutcomeKind.REFUSED


def test_floor_refuses_an_hpa_that_keda_manages(cluster: Cluster) -> None:
    cluster.create_hpa()
    cluster.patch_hpa({"metadata": {"labels": {"scaledobject.keda.sh/name": "llama"}}})
    target = cluster.target("floor")
    outcome = target.apply(6, read(target), 1)
    assert outcome.kind is OutcomeKind.REFUSED
    assert "KEDA" in outcome.detail


def test_floor_refuses_a_recreated_deployment(cluster: Cluster) -> None:
    cluster.create_hpa()
    target = cluster.target("floor")
    read(target)
    recreate(cluster)
    assert target.apply(6, read(target), 1).kind is OutcomeKind.REFUSED


def test_floor_whose_hpa_is_gone_fails(cluster: Cluster) -> None:
    seen = read(cluster.target("shadow"))
    outcome = cluster.target("floor").apply(6, seen, 1)
    assert outcome.kind is OutcomeKind.FAILED
    assert "does not exist" in outcome.detail


# What `daybreak check` says.


def messages(cluster: Cluster, workload: Workload, severity: Severity) -> str:
    findings = check_target(cluster.client, workload)
    return "\n".join(f.message for f in findings if f.severity is severity)


@pytest.mark.parametrize("mode", ["shadow", "metric", "floor", "scale"])
def test_check_finds_nothing_wrong(cluster: Cluster, mode: str) -> None:
    if mode == "floor":
        cluster.create_hpa()
    findings = check_target(cluster.client, cluster.workload(mode))
    assert {finding.severity for finding in findings} == {Severity.OK}


def test_check_names_what_is_missing(cluster: Cluster) -> None:
    workload = cluster.workload("floor")
    assert f"{cluster.namespace}/llama does not exist" in messages(
        cluster, workload, Severity.ERROR
    )
    absent = workload.model_copy(update={"target": cluster.settings("shadow", name="absent")})
    assert f"{cluster.namespace}/absent does not exist; check" in messages(
        cluster, absent, Severity.ERROR
    )


def test_check_finds_the_rival(cluster: Cluster) -> None:
    cluster.create_hpa("rival")
    assert "rival" in messages(cluster, cluster.workload("scale"), Severity.ERROR)


def test_check_compares_the_bounds(cluster: Cluster) -> None:
    cluster.create_hpa(high=5)
    workload = cluster.workload("floor")
    assert "maxReplicas 10 exceeds the HPA's 5" in messages(cluster, workload, Severity.WARNING)
    above = cluster.workload("floor", minReplicas=6)
    assert "minReplicas 6 exceeds the HPA's" in messages(cluster, above, Severity.ERROR)


def test_check_finds_the_wrong_hpa(cluster: Cluster) -> None:
    cluster.create_hpa(target="other")
    assert "scales Deployment other" in messages(cluster, cluster.workload("floor"), Severity.ERROR)
