"""Leadership over the Kubernetes protocol: never two leaders, and never long none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kubernetes.client import Configuration

from policies.context import LeadTime
from policies.decision import OutcomeKind
from scaler.clock import SystemClock
from scaler.cluster.api import ClusterClient
from scaler.cluster.connection import connect, open_target
from scaler.cluster.lease import Leadership
from scaler.settings import Kubernetes, LeaderElection, Target
from tests.integration.json_patch import Json
from tests.integration.kubernetes_server import Drop, Fault, KubernetesServer
from tests.integration.test_cluster import kubeconfig
from tests.integration.test_daemon import deploy

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEY = ("leases", "daybreak", "daybreak")
SETTINGS = LeaderElection.model_validate({"leaseSeconds": 15})


class ClockByHand(SystemClock):
    """One that a test moves; its wall clock may be off, as another machine's is."""

    def __init__(self, off: timedelta = timedelta()) -> None:
        self.passed = 0.0
        self._off = off

    def now(self) -> datetime:
        return NOON + self._off + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


class Process:
    """A daemon as far as it leads, on a clock of its own."""

    def __init__(
        self, server: KubernetesServer, name: str, off: timedelta = timedelta(), timeout: float = 1
    ) -> None:
        self.clock = ClockByHand(off)
        self.told: list[str] = []
        self.leadership = Leadership(client(server, timeout), SETTINGS, name, self.clock)
        self.leadership.on_led = lambda: self.told.append("led")
        self.leadership.on_lost = lambda: self.told.append("lost")

    @property
    def leads(self) -> bool:
        return self.leadership.leads()

    def attend(self, after_seconds: float = 0.0) -> bool:
        self.clock.passed += after_seconds
        self.leadership.attend()
        return self.leads


def client(server: KubernetesServer, timeout: float = 1) -> ClusterClient:
    return ClusterClient(Configuration(host=server.url), timeout)


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer() as running:
        yield running


def spec(server: KubernetesServer) -> Json:
    found: Json = server.objects[KEY]["spec"]
    return found


def test_the_first_one_leads_and_the_second_stands_by(server: KubernetesServer) -> None:
    one, other = Process(server, "one"), Process(server, "other")
    assert one.attend()
    for _ in range(30):
        assert not other.attend(after_seconds=2)
        assert one.attend(after_seconds=2)
    assert (one.told, other.told) == (["led"], [])
    assert other.leadership.holder == "one"
    assert spec(server)["holderIdentity"] == "one"
    assert spec(server)["leaseTransitions"] == 1
    assert spec(server)["acquireTime"].startswith("2026-03-02T12:00:00.000001")
    assert spec(server)["renewTime"].startswith("2026-03-02T12:01:00.000001")


def test_a_lease_that_was_let_go_passes_at_once(server: KubernetesServer) -> None:
    one, other = Process(server, "one"), Process(server, "other")
    one.attend()
    other.attend()
    one.leadership.release()
    assert not one.leads
    assert other.attend(after_seconds=2)
    assert not one.attend(after_seconds=2)  # What has ended does not begin again.
    assert spec(server)["holderIdentity"] == "other"
    assert spec(server)["leaseTransitions"] == 2


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(), timedelta(days=1)])
def test_a_silent_leader_is_replaced_after_the_lease_and_has_stopped_before(
    server: KubernetesServer, off: timedelta
) -> None:
    """Whatever either's wall clock says."""
    one, other = Process(server, "one"), Process(server, "other", off)
    one.attend()
    other.attend()
    passed = 0
    while not other.attend(after_seconds=1):
        passed += 1
        one.clock.passed += 1
        assert one.leads == (passed < 10)
    assert passed == 15
    assert not one.leads
    assert not one.attend(after_seconds=1)
    assert one.told == ["led", "lost"]
    assert not one.attend(after_seconds=60)


def test_another_holder_s_own_duration_counts(server: KubernetesServer) -> None:
    other = Process(server, "other")
    Process(server, "one").attend()
    spec(server)["leaseDurationSeconds"] = 60
    other.attend()
    assert not other.attend(after_seconds=59)
    assert other.attend(after_seconds=2)


@pytest.mark.parametrize("held_before", [False, True])
def test_of_many_that_find_it_free_one_leads(server: KubernetesServer, held_before: bool) -> None:
    """Each has read it before any has written."""
    if held_before:
        first = Process(server, "first")
        first.attend()
        first.leadership.release()
    one, other = Process(server, "one"), Process(server, "other")
    seen = other.leadership._read()
    assert one.attend()
    other.leadership._read = lambda: seen  # type: ignore[method-assign]
    assert not other.attend()
    assert "409" in other.leadership.obstacle
    del other.leadership._read
    assert not other.attend(after_seconds=2)
    assert other.leadership.obstacle == ""
    assert one.attend(after_seconds=2)


FAULTS = {
    "refused": Fault("*", "leases", status=500, lasts=10**6),
    "busy": Fault("*", "leases", status=429, lasts=10**6),
    "denied": Fault("*", "leases", status=403, lasts=10**6),
    "reset": Fault("*", "leases", drop=Drop.RESET, lasts=10**6),
    "hanging": Fault("*", "leases", drop=Drop.HANG, lasts=10**6),
    "nonsense": Fault("*", "leases", status=200, body=b'{"kind": "Lease"}', lasts=10**6),
    "unsure": Fault("update", "leases", drop=Drop.RESET, after=True, lasts=10**6),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_who_cannot_renew_stops_before_another_may_start_and_goes_on_after_it(
    server: KubernetesServer, fault: Fault
) -> None:
    one = Process(server, "one", timeout=0.2)
    one.attend()
    server.fail(fault)
    for seconds in (2, 2, 2, 2, 1.9):
        assert one.attend(after_seconds=seconds)
    assert one.leadership.obstacle
    assert not one.attend(after_seconds=0.2)
    assert one.told == ["led"]
    server.fail()
    assert one.attend(after_seconds=2)  # Nobody else has held it since.
    assert one.leadership.obstacle == ""
    assert one.told == ["led"]


@pytest.mark.parametrize("verb", ["create", "update"])
def test_a_lease_taken_without_an_answer_is_ours_when_it_is_read(
    server: KubernetesServer, verb: str
) -> None:
    if verb == "update":
        first = Process(server, "first")
        first.attend()
        first.leadership.release()
    server.fail(Fault(verb, "leases", drop=Drop.RESET, after=True))
    one = Process(server, "one")
    assert not one.attend()
    assert one.attend(after_seconds=2)
    assert spec(server)["leaseTransitions"] == (2 if verb == "update" else 1)


def test_a_lease_that_somebody_deleted_is_lost(server: KubernetesServer) -> None:
    one = Process(server, "one")
    one.attend()
    del server.objects[KEY]
    assert not one.attend(after_seconds=2)
    assert one.told == ["led", "lost"]
    assert Process(server, "one anew").attend()


def test_nothing_is_patched_by_who_does_not_lead(tmp_path: Path, server: KubernetesServer) -> None:
    deploy(server, "grammar", replicas=3)
    one = Process(server, "one")
    path = kubeconfig(tmp_path / "kubeconfig", server.url)
    kubernetes = Kubernetes.model_validate({"kubeconfig": path, "timeoutSeconds": 1})
    api = connect(kubernetes, leads=one.leadership.leads)
    target = Target.model_validate({"namespace": "llm", "name": "grammar", "mode": "scale"})
    fleet = open_target(api, target, LeadTime(60, 60), lambda: NOON)
    refused = fleet.apply(5, fleet.read(NOON), 1)
    assert refused.kind is OutcomeKind.FAILED
    assert "another daemon may lead" in refused.detail
    assert "patch" not in {request.verb for request in server.log}
    one.attend()
    assert fleet.apply(5, fleet.read(NOON), 1).kind is OutcomeKind.APPLIED
    one.clock.passed += 10
    assert fleet.apply(6, fleet.read(NOON), 2).kind is OutcomeKind.FAILED
    assert server.objects["deployments", "llm", "grammar"]["spec"]["replicas"] == 5
