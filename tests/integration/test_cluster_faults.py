"""The cluster adapter when the API server misbehaves, as only a server of our own does on cue."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from policies.context import LeadTime
from policies.decision import OutcomeKind
from scaler.cluster.api import MOST_PAGES, READ_TIMEOUTS
from scaler.cluster.check import check_target, leftover_floors, standing_warnings
from scaler.cluster.connection import connect
from scaler.cluster.pods import lead_times
from scaler.finding import Severity
from scaler.ports import ScaleTarget, TargetError
from scaler.preflight import lead_time_findings
from scaler.settings import Kubernetes
from scaler.settings_file import SettingsError
from tests.integration.kubernetes_server import Drop, Fault, KubernetesServer
from tests.integration.prometheus_server import unavailable
from tests.integration.test_cluster import NOW, Cluster, kubeconfig, read

TIMEOUT, LONGEST = 1.0, 3.0
DEPLOYMENTS, HPAS = "deployments", "horizontalpodautoscalers"


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer() as running:
        yield running


@pytest.fixture
def cluster(server: KubernetesServer, tmp_path: Path) -> Iterator[Cluster]:
    path = kubeconfig(tmp_path / "kubeconfig", server.url)
    with connect(
        Kubernetes.model_validate({"kubeconfig": path, "timeoutSeconds": TIMEOUT})
    ) as client:
        cluster = Cluster(client, "inference")
        cluster.create_deployment()
        cluster.create_hpa(target="llama", high=20)
        server.settle()
        yield cluster


@pytest.fixture(params=["scale", "floor"])
def mode(request: pytest.FixtureRequest, server: KubernetesServer) -> str:
    if request.param == "scale":
        del server.objects[HPAS, "inference", "llama"]
    return str(request.param)


WRITTEN = {"scale": DEPLOYMENTS, "floor": HPAS}


def written(server: KubernetesServer, mode: str) -> int:
    spec = server.objects[WRITTEN[mode], "inference", "llama"]["spec"]
    return int(spec["replicas" if mode == "scale" else "minReplicas"])


def sent(server: KubernetesServer, verb: str) -> int:
    return sum(request.verb == verb for request in server.log)


# Writing: what the outcome says, and what is on the server afterwards.


@pytest.mark.parametrize(
    ("fault", "kind", "number", "patches"),
    [
        ({"status": 409}, OutcomeKind.APPLIED, 6, 2),
        ({"status": 409, "lasts": 2}, OutcomeKind.CONFLICT, 2, 2),
        ({"status": 422}, OutcomeKind.APPLIED, 6, 2),
        ({"status": 422, "lasts": 2}, OutcomeKind.CONFLICT, 2, 2),
        ({"status": 500}, OutcomeKind.APPLIED, 6, 2),
        ({"status": 503, "lasts": 2}, OutcomeKind.FAILED, 2, 2),
        ({"status": 500, "after": True}, OutcomeKind.APPLIED, 6, 1),
        ({"status": 429}, OutcomeKind.APPLIED, 6, 2),
        ({"status": 429, "headers": (("Retry-After", "0"),)}, OutcomeKind.APPLIED, 6, 2),
        ({"status": 429, "headers": (("Retry-After", "30"),)}, OutcomeKind.FAILED, 2, 1),
        ({"status": 429, "lasts": 9}, OutcomeKind.FAILED, 2, 2),
        ({"status": 401}, OutcomeKind.FAILED, 2, 1),
        ({"status": 403}, OutcomeKind.REFUSED, 2, 1),
        ({"status": 400}, OutcomeKind.FAILED, 2, 1),
        ({"drop": Drop.HANG}, OutcomeKind.UNKNOWN, 2, 1),
        ({"drop": Drop.HANG, "after": True}, OutcomeKind.APPLIED, 6, 1),
        ({"drop": Drop.RESET}, OutcomeKind.UNKNOWN, 2, 1),
        ({"drop": Drop.RESET, "after": True}, OutcomeKind.APPLIED, 6, 1),
        ({"status": 504, "after": True}, OutcomeKind.APPLIED, 6, 1),
        ({"status": 200, "body": b"<html>", "after": True}, OutcomeKind.APPLIED, 6, 1),
    ],
    ids=str,
)
def test_write_meets_a_fault(
    cluster: Cluster,
    server: KubernetesServer,
    mode: str,
    fault: dict[str, Any],
    kind: OutcomeKind,
    number: int,
    patches: int,
) -> None:
    target = cluster.target(mode)
    seen = read(target)
    server.fail(Fault("patch", WRITTEN[mode], **fault))
    started = time.monotonic()
    outcome = target.apply(6, seen, 1)
    assert time.monotonic() - started < LONGEST
    assert (outcome.kind, written(server, mode)) == (kind, number), outcome
    assert sent(server, "patch") == patches
    assert "\n" not in outcome.detail
    if fault.get("drop") and kind is OutcomeKind.APPLIED:
        assert outcome.detail.startswith("confirmed by reading back")


def test_forbidden_write_names_verb_and_resource(
    cluster: Cluster, server: KubernetesServer, mode: str
) -> None:
    target = cluster.target(mode)
    seen = read(target)
    server.denied.add(("patch", WRITTEN[mode]))
    outcome = target.apply(6, seen, 1)
    assert outcome.kind is OutcomeKind.REFUSED
    assert f"grant patch on {WRITTEN[mode]}" in outcome.detail


def test_scale_refuses_where_rivals_cannot_be_listed(
    cluster: Cluster, server: KubernetesServer
) -> None:
    target = cluster.target("scale")
    server.denied.add(("list", HPAS))
    outcome = target.apply(6, read(target), 1)
    assert outcome.kind is OutcomeKind.REFUSED
    assert f"grant list on {HPAS}" in outcome.detail
    assert sent(server, "patch") == 0


@pytest.mark.parametrize(
    "first", [Fault("patch", "*", drop=Drop.RESET, after=True), Fault("patch", "*", status=500)]
)
def test_target_that_goes_dark_after_the_write_is_unknown(
    cluster: Cluster, server: KubernetesServer, mode: str, first: Fault
) -> None:
    target = cluster.target(mode)
    seen = read(target)
    server.fail(first, Fault("get", "*", drop=Drop.RESET, skips=1, lasts=9))
    assert target.apply(6, seen, 1).kind is OutcomeKind.UNKNOWN


def test_an_unknown_write_may_be_asked_for_again(
    cluster: Cluster, server: KubernetesServer, mode: str
) -> None:
    target = cluster.target(mode)
    seen = read(target)
    server.fail(Fault("patch", "*", drop=Drop.HANG))
    assert target.apply(6, seen, 1).kind is OutcomeKind.UNKNOWN
    assert target.apply(6, seen, 2).kind is OutcomeKind.APPLIED


def test_apply_without_a_server_fails(cluster: Cluster, server: KubernetesServer) -> None:
    target = cluster.target("scale")
    seen = read(target)
    cluster.client.configuration.host = "http://127.0.0.1:9"
    outcome = target.apply(6, seen, 1)
    assert outcome.kind is OutcomeKind.FAILED
    assert "127.0.0.1:9" in outcome.detail


def test_numbers_of_numpy_are_written(
    cluster: Cluster, server: KubernetesServer, mode: str
) -> None:
    target = cluster.target(mode)
    seen = read(target)
    desired: Any = np.int64(6)
    epoch: Any = np.int64(1)
    assert target.apply(desired, seen, epoch).kind is OutcomeKind.APPLIED
    assert written(server, mode) == 6


def test_scaling_down_waits_for_a_roll_out(cluster: Cluster, server: KubernetesServer) -> None:
    del server.objects[HPAS, "inference", "llama"]
    target = cluster.target("scale")
    status = server.objects[DEPLOYMENTS, "inference", "llama"]["status"]
    status.update(replicas=3, updatedReplicas=1)
    outcome = target.apply(1, read(target), 1)
    assert outcome.kind is OutcomeKind.REFUSED
    assert "2 pods still to be replaced" in outcome.detail
    assert target.apply(4, read(target), 2).kind is OutcomeKind.APPLIED


# Reading.


@pytest.mark.parametrize("resource", [DEPLOYMENTS, "pods", HPAS])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"status": 401}, "does not accept the credentials"),
        ({"status": 403}, "grant "),
        ({"status": 404, "lasts": 2}, "does not exist"),
        ({"status": 410}, "410: injected"),
        ({"status": 429}, "429: injected"),
        ({"status": 500}, "500: injected"),
        ({"status": 302, "headers": (("Location", "/elsewhere"),)}, "302"),
        ({"status": 200, "body": b"<html>"}, "cannot "),
        ({"status": 200, "body": b'{"items": 3, "spec": 4}'}, "cannot "),
        ({"status": 200, "body": b"null"}, "cannot "),
        ({"status": 200, "body": b"[]"}, "cannot "),
        ({"drop": Drop.HANG}, "no complete answer within 1 s"),
        ({"drop": Drop.RESET}, "127.0.0.1"),
    ],
    ids=str,
)
def test_read_meets_a_fault(
    cluster: Cluster, server: KubernetesServer, resource: str, fault: dict[str, Any], said: str
) -> None:
    server.fail(Fault("*", resource, **fault))
    calls, started = len(server.log), time.monotonic()
    with pytest.raises(TargetError) as caught:
        read(cluster.target("floor"))
    assert time.monotonic() - started < LONGEST
    assert said in str(caught.value)
    assert resource in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.log) - calls <= 4


def test_a_trickling_answer_has_one_deadline(cluster: Cluster, server: KubernetesServer) -> None:
    """A byte now and then keeps every single wait short; the whole would take a minute."""
    server.fail(Fault("get", DEPLOYMENTS, drop=Drop.TRICKLE))
    started = time.monotonic()
    with pytest.raises(TargetError, match="no complete answer within 1 s"):
        read(cluster.target("shadow"))
    assert time.monotonic() - started < 2 * TIMEOUT
    assert read(cluster.target("shadow")).spec == 2


def test_a_read_has_one_deadline_however_many_pages_it_takes(
    cluster: Cluster, server: KubernetesServer
) -> None:
    more = b'{"metadata": {"continue": "1"}, "items": []}'
    server.fail(Fault("list", "pods", status=200, body=more, seconds=0.1, lasts=99))
    started, calls = time.monotonic(), len(server.log)
    with pytest.raises(TargetError, match="cannot list pods"):
        read(cluster.target("floor"))
    assert time.monotonic() - started < READ_TIMEOUTS * TIMEOUT + 0.4
    assert len(server.log) - calls > READ_TIMEOUTS + 2
    server.fail()
    assert read(cluster.target("floor")).spec == 2


def test_a_list_of_pods_without_an_end_is_given_up(
    cluster: Cluster, server: KubernetesServer
) -> None:
    more = b'{"metadata": {"continue": "1"}, "items": []}'
    server.fail(Fault("list", "pods", status=200, body=more, lasts=999))
    cluster.client.timeout_seconds = 30.0
    calls = len(server.log)
    with pytest.raises(TargetError, match=f"more after {MOST_PAGES} pages"):
        read(cluster.target("shadow"))
    assert len(server.log) - calls == MOST_PAGES + 1


def pod(name: str, age: int, ready_after: int | None = None, **changed: Any) -> dict[str, Any]:
    created = NOW - timedelta(seconds=age)
    conditions = [{"type": "PodScheduled", "status": "True"}]
    if ready_after is not None:
        at = created + timedelta(seconds=ready_after)
        conditions.append({"type": "Ready", "status": "True", "lastTransitionTime": stamp(at)})
    status = {"phase": "Running", "conditions": conditions, **changed.pop("status", {})}
    meta = {"name": name, "uid": name, "namespace": "inference", "labels": {"app": "llama"}}
    return {
        "metadata": {**meta, "creationTimestamp": stamp(created), **changed},
        "spec": {"containers": [{"name": "server"}]},
        "status": status,
    }


def stamp(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_pods_are_told_apart(cluster: Cluster, server: KubernetesServer) -> None:
    for item in (
        pod("ready", 600, 90),
        pod("young", 30),
        pod("late", 500),
        pod("leaving", 600, 90, deletionTimestamp=stamp(NOW)),
        pod("leaving-unready", 600, deletionTimestamp=stamp(NOW)),
        pod("failed", 600, status={"phase": "Failed"}),
        pod("done", 600, status={"phase": "Succeeded"}),
        pod("foreign", 600, 90, labels={"app": "other"}),
    ):
        server.put("pods", item)
    seen = read(cluster.target("shadow"))
    assert (seen.ready, seen.draining) == (1, 2)
    assert seen.starting == (NOW, NOW + timedelta(seconds=90))


def test_pods_come_in_pages(cluster: Cluster, server: KubernetesServer) -> None:
    server.page = 3
    for number in range(8):
        server.put("pods", pod(f"p{number}", 600, 90))
    assert read(cluster.target("shadow")).ready == 8


@pytest.mark.parametrize(("mode", "calls"), [("shadow", 2), ("scale", 6), ("floor", 5)])
def test_calls_do_not_grow_with_the_pods(
    cluster: Cluster, server: KubernetesServer, mode: str, calls: int
) -> None:
    for number in range(200):
        server.put("pods", pod(f"p{number}", 600, 90))
    if mode == "scale":
        del server.objects[HPAS, "inference", "llama"]
    before = len(server.log)
    target = cluster.target(mode)
    target.apply(6, read(target), 1)
    assert len(server.log) - before == calls


def test_a_selector_of_everything_is_not_read(cluster: Cluster, server: KubernetesServer) -> None:
    server.objects[DEPLOYMENTS, "inference", "llama"]["spec"]["selector"] = {}
    with pytest.raises(TargetError, match="selector is empty"):
        read(cluster.target("shadow"))


def test_selector_expressions_reach_the_server(cluster: Cluster, server: KubernetesServer) -> None:
    selector = {
        "matchLabels": {"app": "llama"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]},
            {"key": "track", "operator": "NotIn", "values": ["canary"]},
            {"key": "gpu", "operator": "Exists"},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    }
    server.objects[DEPLOYMENTS, "inference", "llama"]["spec"]["selector"] = selector
    server.fail(Fault("list", "pods", status=200, body=b'{"items": []}'))
    read(cluster.target("shadow"))
    (text,) = server.log[-1].query["labelSelector"]
    assert text == "app=llama,tier in (a,b),track notin (canary),gpu,!old"


def test_lead_times_are_measured_on_recent_pods(cluster: Cluster, server: KubernetesServer) -> None:
    settings = cluster.settings("shadow")
    for number, seconds in enumerate([60, 70, 80, 90]):
        server.put("pods", pod(f"p{number}", 3600, seconds))
    restarted = [{"name": "server", "restartCount": 1, "ready": True, "image": "", "imageID": ""}]
    server.put("pods", pod("again", 3600, 3000, status={"containerStatuses": restarted}))
    server.put("pods", pod("old", 30 * 86_400, 9000))
    server.put("pods", pod("starting", 30))
    assert lead_times(cluster.client, settings, NOW) is None
    server.put("pods", pod("p4", 3600, 100))
    measured = lead_times(cluster.client, settings, NOW)
    assert measured is not None
    assert measured.p50_seconds == 80.0
    assert measured.p95_seconds == pytest.approx(98.0)
    assert measured.source == "measured on 5 pods"


def test_a_target_learns_from_pods_as_they_become_ready(
    cluster: Cluster, server: KubernetesServer, mode: str
) -> None:
    """What is deleted later counts on; readiness that was lost and came back is no start."""
    target = cluster.target(mode)
    for number in range(19):
        server.put("pods", pod(f"p{number}", 600, 100))
    assert target.lead_time(NOW) is None
    for number in range(19):
        del server.objects["pods", "inference", f"p{number}"]
    server.put("pods", pod("p19", 600, 100))
    read(target)
    assert target.lead_time(NOW) == LeadTime(100.0, 100.0, 0.0, "measured on 20 pods")
    server.put("pods", pod("p19", 600, 500))
    read(target)
    assert target.lead_time(NOW) == LeadTime(100.0, 100.0, 0.0, "measured on 20 pods")


def test_after_a_restart_readiness_that_came_back_is_no_start(
    cluster: Cluster, server: KubernetesServer
) -> None:
    """Pods of 50 minutes that were not ready for a moment 5 minutes ago: 45 minutes to start?"""
    for number in range(25):
        server.put("pods", pod(f"p{number}", 3000, 2700))
    assert cluster.target("shadow").lead_time(NOW) is None
    for number in range(25):
        server.put("pods", pod(f"p{number}", 3000, 400))
    learned = cluster.target("shadow").lead_time(NOW)
    assert learned is not None
    assert learned.p95_seconds == 400.0, "slow starts are still told by the pods that are there"


def becomes_ready(target: ScaleTarget, server: KubernetesServer, age: int, after: int) -> None:
    """Twenty pods so many seconds old are first seen without, and then with, their readiness."""
    for number in range(20):
        server.put("pods", pod(f"p{number}", age))
    read(target)
    for number in range(20):
        server.put("pods", pod(f"p{number}", age, after))
    read(target)


def test_a_restart_while_pods_are_not_ready_learns_nothing_of_it(
    cluster: Cluster, server: KubernetesServer
) -> None:
    target = cluster.target("shadow")
    becomes_ready(target, server, age=3000, after=2990)
    assert target.lead_time(NOW) is None


def test_a_slow_start_that_was_watched_counts_whole(
    cluster: Cluster, server: KubernetesServer
) -> None:
    target = cluster.target("shadow")
    becomes_ready(target, server, age=15, after=1500)
    learned = target.lead_time(NOW)
    assert learned is not None
    assert learned.p95_seconds == 1500.0


def test_no_lead_time_from_pods_that_cannot_be_listed(
    cluster: Cluster, server: KubernetesServer
) -> None:
    server.denied.add(("list", "pods"))
    with pytest.raises(TargetError, match="list on pods"):
        cluster.target("scale").lead_time(NOW)


# What `daybreak check` says.


@pytest.mark.parametrize(
    ("p95", "learned", "severity", "said"),
    [
        (120.0, True, Severity.OK, "within 100 s; leadTime.p95Seconds is 120"),
        (60.0, True, Severity.WARNING, "until then daybreak plans with what it sees of 20 pods"),
        (60.0, False, Severity.WARNING, "or replicas will come too late"),
    ],
)
def test_check_compares_the_lead_time_with_the_pods(
    cluster: Cluster,
    server: KubernetesServer,
    p95: float,
    learned: bool,
    severity: Severity,
    said: str,
) -> None:
    for number in range(5):
        server.put("pods", pod(f"p{number}", 3600, 100))
    lead = {"p50Seconds": 50.0, "p95Seconds": p95, "learned": learned}
    asked = cluster.workload("shadow", leadTime=lead)
    (finding,) = lead_time_findings(cluster.client, asked, NOW)
    assert finding.severity is severity
    assert said in finding.message


@pytest.mark.parametrize(("mode", "warned"), [("scale", True), ("shadow", True), ("floor", False)])
def test_check_warns_of_a_maximum_below_what_runs(
    cluster: Cluster, server: KubernetesServer, mode: str, warned: bool
) -> None:
    server.objects[DEPLOYMENTS, "inference", "llama"]["spec"]["replicas"] = 170
    findings = check_target(cluster.client, cluster.workload(mode, maxReplicas=22))
    said = [one.message for one in findings if "170 replicas, more than" in one.message]
    assert bool(said) is warned


def errors(cluster: Cluster, mode: str) -> list[str]:
    findings = check_target(cluster.client, cluster.workload(mode))
    return [finding.message for finding in findings if finding.severity is Severity.ERROR]


@pytest.mark.parametrize(
    ("verb", "resource"), [("patch", HPAS), ("list", "pods"), ("get", DEPLOYMENTS)]
)
def test_check_names_a_missing_permission(
    cluster: Cluster, server: KubernetesServer, verb: str, resource: str
) -> None:
    server.denied.add((verb, resource))
    assert any(f"{verb} {resource}" in message for message in errors(cluster, "floor"))


def test_check_goes_on_where_permissions_cannot_be_asked_for(
    cluster: Cluster, server: KubernetesServer
) -> None:
    server.fail(Fault("create", "selfsubjectaccessreviews", status=403))
    findings = check_target(cluster.client, cluster.workload("floor"))
    warnings = [each.subject for each in findings if each.severity is Severity.WARNING]
    assert warnings == ["permissions"]


def test_check_finds_the_scaled_object(cluster: Cluster, server: KubernetesServer) -> None:
    del server.objects[HPAS, "inference", "llama"]
    meta = {"name": "llama-scaler", "namespace": "inference"}
    spec = {"scaleTargetRef": {"name": "llama"}}
    server.put("scaledobjects", {"metadata": meta, "spec": spec})
    assert any("llama-scaler" in message for message in errors(cluster, "scale"))


def test_scale_refuses_beside_a_scaled_object(cluster: Cluster, server: KubernetesServer) -> None:
    """A paused one has no HPA; it is seen within a minute, and asked for no more often."""
    del server.objects[HPAS, "inference", "llama"]
    target = cluster.target("scale")
    assert target.apply(5, read(target), 1).kind is OutcomeKind.APPLIED
    meta = {"name": "llama-scaler", "namespace": "inference"}
    server.put("scaledobjects", {"metadata": meta, "spec": {"scaleTargetRef": {"name": "llama"}}})
    cluster.now = NOW + timedelta(seconds=59)
    assert target.apply(6, read(target), 2).kind is OutcomeKind.APPLIED
    cluster.now = NOW + timedelta(seconds=60)
    outcome = target.apply(7, read(target), 3)
    assert outcome.kind is OutcomeKind.REFUSED
    assert "belongs to the ScaledObject llama-scaler" in outcome.detail
    server.denied.add(("list", "scaledobjects"))
    cluster.now = NOW + timedelta(seconds=120)
    assert target.apply(7, read(target), 4).kind is OutcomeKind.APPLIED
    assert any("list scaledobjects.keda.sh" in message for message in errors(cluster, "scale"))


def test_floors_that_were_left_behind_are_named_with_the_way_back(
    cluster: Cluster, server: KubernetesServer
) -> None:
    target = cluster.target("floor")
    target.apply(9, read(target), 1)
    floor, shadow = cluster.workload("floor"), cluster.workload("shadow")
    elsewhere = cluster.workload("shadow", target=cluster.settings("shadow", name="other"))
    assert list(leftover_floors(cluster.client, [floor])) == []
    for workload in (shadow, elsewhere):
        (finding,) = standing_warnings(cluster.client, [workload])
        assert finding.severity is Severity.WARNING
        assert "still has minReplicas 9, a floor that daybreak set" in finding.message
    command, body = finding.message.split(" -p ")
    assert command.endswith("kubectl -n inference patch hpa llama --type merge")
    cluster.patch_hpa(json.loads(body.strip("'")))
    assert cluster.hpa().spec.min_replicas == 2
    assert list(leftover_floors(cluster.client, [shadow])) == []
    server.denied.add(("list", HPAS))
    assert list(leftover_floors(cluster.client, [shadow])) == []


def refuse(cluster: Cluster, server: KubernetesServer) -> None:
    cluster.client.configuration.host = "http://127.0.0.1:9"


def hang(cluster: Cluster, server: KubernetesServer) -> None:
    server.fail(Fault("*", "*", drop=Drop.HANG, lasts=99))


@pytest.mark.parametrize("silence", [refuse, hang])
def test_check_says_once_that_nobody_answers(
    cluster: Cluster,
    server: KubernetesServer,
    silence: Callable[[Cluster, KubernetesServer], None],
) -> None:
    silence(cluster, server)
    (finding,) = check_target(cluster.client, cluster.workload("floor"))
    assert finding.severity is Severity.ERROR
    assert "127.0.0.1" in finding.message


# Connecting.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is not a file"),
        ("", "empty"),
        ("{", "while parsing"),
        ("[]", "is not a kubeconfig"),
        ("just text", "is not a kubeconfig"),
        ("clusters: 3", "is not a kubeconfig"),
        ("{contexts: [], clusters: [], users: []}", "current-context"),
        ("{contexts: [], clusters: [], users: [], current-context: a}", "a"),
    ],
)
def test_bad_kubeconfig_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        connect(Kubernetes(kubeconfig=path))
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_unknown_context_is_named(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    with pytest.raises(SettingsError, match="elsewhere"):
        connect(Kubernetes(kubeconfig=path, context="elsewhere"))


def test_context_is_chosen(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["clusters"].append({"name": "b", "cluster": {"server": "http://127.0.0.2:9"}})
    document["contexts"].append({"name": "b", "context": {"cluster": "b"}})
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with connect(Kubernetes(kubeconfig=path, context="b")) as client:
        assert client.configuration.host == "http://127.0.0.2:9"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        unavailable("openssl makes the certificate, and is not here")
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "ca.crt", folder / "tls.key"
    new = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=kubernetes"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(paths[0]), "-keyout"]
    subprocess.run([openssl, *new.split(), *names, str(paths[1])], check=True, capture_output=True)
    return paths


def test_service_account_is_used_inside_a_cluster(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    with KubernetesServer(certificate=certificate, token="of-the-pod") as server:
        environ = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(server.port),
        }
        with pytest.raises(SettingsError, match="service account"):
            connect(Kubernetes(), tmp_path, environ)
        shutil.copy(certificate[0], tmp_path / "ca.crt")
        (tmp_path / "token").write_text("of-the-pod", encoding="utf-8")
        with connect(Kubernetes(), tmp_path, environ) as client:
            cluster = Cluster(client, "inference")
            cluster.create_deployment()
            assert read(cluster.target("shadow")).spec == 2
        (tmp_path / "token").write_text("of-another", encoding="utf-8")
        with connect(Kubernetes(), tmp_path, environ) as client:
            target = Cluster(client, "inference").target("shadow")
            with pytest.raises(TargetError, match="does not accept the credentials"):
                read(target)


def test_unknown_certificate_is_not_trusted(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with KubernetesServer(certificate=certificate) as server:
        path = kubeconfig(tmp_path / "kubeconfig", server.url)
        with connect(Kubernetes(kubeconfig=path)) as client:
            target = Cluster(client, "inference").target("shadow")
            with pytest.raises(TargetError, match=r"(?i)certificate"):
                read(target)


def test_an_authority_that_the_machine_trusts_needs_no_file(
    certificate: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with KubernetesServer(certificate=certificate) as server:
        path = kubeconfig(tmp_path / "kubeconfig", server.url)
        with connect(Kubernetes(kubeconfig=path)) as client:
            cluster = Cluster(client, "inference")
            cluster.create_deployment()
            assert read(cluster.target("shadow")).spec == 2
