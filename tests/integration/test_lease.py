"""Leadership over the Kubernetes protocol: never two leaders, and never long none.

What needs no fault also runs, unchanged, on the cluster that DAYBREAK_TEST_KUBECONFIG names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kubernetes.client import Configuration, CoordinationV1Api, V1LeaseSpec

from policies.context import LeadTime
from policies.decision import OutcomeKind
from scaler.clock import SystemClock
from scaler.cluster.api import ClusterClient
from scaler.cluster.connection import connect, open_target
from scaler.cluster.lease import Leadership
from scaler.settings import Kubernetes, LeaderElection, Target
from tests.integration.kubernetes_server import Drop, Fault, KubernetesServer
from tests.integration.test_cluster import REAL, kubeconfig, own_namespace
from tests.integration.test_daemon import deploy

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
LEASE = "daybreak"


class ClockByHand(SystemClock):
    """One that a test moves; its wall clock may be off, as another machine's is."""

    def __init__(self, off: timedelta = timedelta()) -> None:
        self.passed = 0.0
        self._off = off

    def now(self) -> datetime:
        return NOON + self._off + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return self.passed


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Lease is kept: a namespace, and a client of it with a deadline."""

    client: Callable[[float], ClusterClient]
    namespace: str = "daybreak"

    @property
    def leases(self) -> CoordinationV1Api:
        return CoordinationV1Api(self.client(10))

    def spec(self) -> V1LeaseSpec:
        found = self.leases.read_namespaced_lease(LEASE, self.namespace).spec
        assert found is not None
        return found

    def patch(self, **changed: object) -> None:
        """As somebody else would."""
        self.leases.patch_namespaced_lease(LEASE, self.namespace, {"spec": changed})


class Process:
    """A daemon as far as it leads, on a clock of its own."""

    def __init__(
        self, place: Place, name: str, off: timedelta = timedelta(), timeout: float = 1
    ) -> None:
        self.clock = ClockByHand(off)
        self.told: list[str] = []
        settings = LeaderElection.model_validate({"namespace": place.namespace, "leaseSeconds": 15})
        self.leadership = Leadership(place.client(timeout), settings, name, self.clock)
        self.leadership.on_led = lambda: self.told.append("led")
        self.leadership.on_lost = lambda: self.told.append("lost")

    @property
    def leads(self) -> bool:
        return self.leadership.leads()

    def attend(self, after_seconds: float = 0.0) -> bool:
        self.clock.passed += after_seconds
        self.leadership.attend()
        return self.leads


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with KubernetesServer() as running:
        yield running


def on(server: KubernetesServer) -> Place:
    return Place(lambda timeout: ClusterClient(Configuration(host=server.url), timeout))


@pytest.fixture(params=["real"] if REAL else ["fake"])
def place(server: KubernetesServer) -> Iterator[Place]:
    if not REAL:
        yield on(server)
        return
    with own_namespace(Path(REAL)) as cluster:
        yield Place(lambda _: cluster.client, cluster.namespace)


def test_the_first_one_leads_and_the_second_stands_by(place: Place) -> None:
    one, other = Process(place, "one"), Process(place, "other")
    assert one.attend()
    for _ in range(30):
        assert not other.attend(after_seconds=2)
        assert one.attend(after_seconds=2)
    assert (one.told, other.told) == (["led"], [])
    assert other.leadership.holder == "one"
    kept = place.spec()
    assert (kept.holder_identity, kept.lease_transitions) == ("one", 1)
    assert kept.acquire_time == NOON.replace(microsecond=1)
    assert kept.renew_time == NOON.replace(minute=1, microsecond=1)


def test_a_lease_that_was_let_go_passes_at_once(place: Place) -> None:
    one, other = Process(place, "one"), Process(place, "other")
    one.attend()
    other.attend()
    one.leadership.release()
    assert not one.leads
    assert other.attend(after_seconds=2)
    assert not one.attend(after_seconds=2)  # What has ended does not begin again.
    assert (place.spec().holder_identity, place.spec().lease_transitions) == ("other", 2)


@pytest.mark.parametrize("off", [timedelta(days=-1), timedelta(), timedelta(days=1)])
def test_a_silent_leader_is_replaced_after_the_lease_and_has_stopped_before(
    place: Place, off: timedelta
) -> None:
    """Whatever either's wall clock says."""
    one, other = Process(place, "one"), Process(place, "other", off)
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


def test_another_holder_s_own_duration_counts(place: Place) -> None:
    other = Process(place, "other")
    Process(place, "one").attend()
    place.patch(leaseDurationSeconds=60)
    other.attend()
    assert not other.attend(after_seconds=59)
    assert other.attend(after_seconds=2)


@pytest.mark.parametrize("held_before", [False, True])
def test_of_many_that_find_it_free_one_leads(place: Place, held_before: bool) -> None:
    """Each has read it before any has written."""
    if held_before:
        first = Process(place, "first")
        first.attend()
        first.leadership.release()
    one, other = Process(place, "one"), Process(place, "other")
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
    one = Process(on(server), "one", timeout=0.2)
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
        first = Process(on(server), "first")
        first.attend()
        first.leadership.release()
    server.fail(Fault(verb, "leases", drop=Drop.RESET, after=True))
    one = Process(on(server), "one")
    assert not one.attend()
    assert one.attend(after_seconds=2)
    assert on(server).spec().lease_transitions == (2 if verb == "update" else 1)


def test_a_lease_that_somebody_deleted_is_lost(place: Place) -> None:
    one = Process(place, "one")
    one.attend()
    place.leases.delete_namespaced_lease(LEASE, place.namespace)
    assert not one.attend(after_seconds=2)
    assert one.told == ["led", "lost"]
    assert Process(place, "one anew").attend()


def test_nothing_is_patched_by_who_does_not_lead(tmp_path: Path, server: KubernetesServer) -> None:
    deploy(server, "grammar", replicas=3)
    one = Process(on(server), "one")
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
