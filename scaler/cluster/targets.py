"""What is scaled: how each mode reads its target and what it writes there.

Knows the guards of every write and how a doubtful one is settled. It does not know why a number
was chosen, and asks no clock but the one it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tenacity.nap import sleep

from policies.context import LeadTime, Replicas
from policies.decision import Outcome, OutcomeKind
from scaler.cluster.api import (
    Autoscaler,
    Autoscalers,
    ClusterError,
    Deployment,
    FaultKind,
    patch_deployment,
    scaled_objects,
)
from scaler.cluster.pods import EPOCH, DeploymentReader, stored_number
from scaler.ports import TargetError

FLOOR = "daybreak/floor"
FLOOR_EXPIRES_AT = "daybreak/floor-expires-at"
ORIGINAL_MIN_REPLICAS = "daybreak/original-min-replicas"

RENEWED_AFTER = 10
"""So many decisions after a mark was written it is written anew, although the number fits: whoever
else might write here sees that somebody does."""
SCALED_OBJECTS_HOLD = timedelta(minutes=1)

Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Write:
    """A write that every guard has passed, and what is to be said of it once it is done."""

    send: Callable[[], None]
    detail: str = ""


Plan = Callable[[], Outcome | Write]


def carry_out(plan: Plan) -> Outcome:
    """Read, judge and write; once more where the fault allows it.

    The second attempt judges anew, so a first one that did arrive is recognised and not repeated.
    """
    first = _attempt(plan)
    if isinstance(first, Outcome):
        return first
    if first.wait_seconds is None:
        return _settled(plan, first)
    sleep(first.wait_seconds)
    second = _attempt(plan)
    if isinstance(second, Outcome):
        return second
    if first.may_have_written and not second.may_have_written:
        return Outcome(OutcomeKind.UNKNOWN, f"{first}; then {second}")
    return _settled(plan, second)


def _attempt(plan: Plan) -> Outcome | ClusterError:
    try:
        step = plan()
        if isinstance(step, Outcome):
            return step
        step.send()
    except ClusterError as error:
        return error
    return Outcome(OutcomeKind.APPLIED, step.detail)


def _settled(plan: Plan, error: ClusterError) -> Outcome:
    if error.may_have_written and error.kind is FaultKind.UNSURE:
        return _read_back(plan, error)
    kinds = {FaultKind.CHANGED: OutcomeKind.CONFLICT, FaultKind.DENIED: OutcomeKind.REFUSED}
    return Outcome(kinds.get(error.kind, OutcomeKind.FAILED), str(error))


def _read_back(plan: Plan, error: ClusterError) -> Outcome:
    try:
        found = plan()
    except ClusterError as second:
        return Outcome(OutcomeKind.UNKNOWN, f"{error}; reading back failed too: {second}")
    if isinstance(found, Outcome) and found.kind is OutcomeKind.APPLIED:
        return Outcome(OutcomeKind.APPLIED, f"confirmed by reading back after: {error}")
    return Outcome(OutcomeKind.UNKNOWN, f"{error}; the target does not carry it yet")


@contextmanager
def _as_target_error() -> Iterator[None]:
    try:
        yield
    except ClusterError as error:
        raise TargetError(str(error)) from error


def refused(detail: str) -> Outcome:
    return Outcome(OutcomeKind.REFUSED, detail)


def _newer_epoch(stored: int | None, epoch: int, label: str) -> Outcome | None:
    if stored is None or stored <= epoch:
        return None
    return refused(f"{label} carries decision epoch {stored}, newer than ours ({epoch})")


class _ReadTarget:
    """What every mode reads of a Deployment, in the errors that the loop knows."""

    def __init__(self, reader: DeploymentReader) -> None:
        self._reader = reader

    def read(self, now: datetime) -> Replicas:
        """Raises TargetError."""
        with _as_target_error():
            return self._reader.replicas(now)

    def lead_time(self, now: datetime) -> LeadTime | None:
        """Raises TargetError."""
        with _as_target_error():
            return self._reader.lead_time(now)


class ReadOnlyTarget(_ReadTarget):
    """Modes shadow and metric: the target is read and never written.

    Whose mark it carries is none of our business then.
    """

    def __init__(self, reader: DeploymentReader, why: str) -> None:
        super().__init__(reader)
        self._why = why

    def read(self, now: datetime) -> Replicas:
        """Raises TargetError."""
        return replace(super().read(now), stored_epoch=None)

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:  # noqa: ARG002
        return Outcome(OutcomeKind.SHADOW, self._why)


class DeploymentTarget(_ReadTarget):
    """Mode scale: the Deployment's replicas, in one write together with the decision epoch.

    The write holds only while uid, replicas and epoch are as seen; status updates, which raise the
    resourceVersion all the time, do not disturb it. Refused are a Deployment that was created
    anew, is paused, was scaled to 0 or has its own autoscaler, and any scale-down in the middle of
    a roll-out. ScaledObjects are looked for once a minute, HPAs at every write.
    """

    def __init__(self, reader: DeploymentReader, now: Now) -> None:
        super().__init__(reader)
        self._now = now
        self._autoscalers = Autoscalers(reader.api, reader.namespace)
        self._scaled: tuple[datetime, list[str]] | None = None

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:
        """Set spec.replicas to `desired` if the Deployment still is as `seen`; never raises."""
        wanted, marked = int(desired), seen.stored_epoch
        if wanted == seen.spec and (marked is None or epoch - marked < RENEWED_AFTER):
            return Outcome(OutcomeKind.UNCHANGED)
        if wanted < 1:
            return refused(f"{wanted} replicas are never asked for")
        return carry_out(lambda: self._plan(wanted, seen, int(epoch)))

    def _plan(self, wanted: int, seen: Replicas, epoch: int) -> Outcome | Write:
        found = self._reader.deployment()
        stored = stored_number(found.annotations.get(EPOCH))
        recreated = self._reader.recreated(seen.token) or self._reader.recreated(found.uid)
        if recreated:
            return refused(recreated)
        if (found.replicas, stored) == (wanted, epoch):
            return Outcome(OutcomeKind.APPLIED, f"already at {wanted} with epoch {epoch}")
        objection = (
            _newer_epoch(stored, epoch, self._reader.label)
            or self._changed(found.replicas, stored, seen)
            or self._unfit(found, wanted)
            or self._autoscaled()
        )
        if objection:
            return objection
        operations = guarded_replace(found, wanted, epoch)
        reader = self._reader
        return Write(
            lambda: patch_deployment(reader.api, reader.namespace, reader.name, operations)
        )

    def _changed(self, replicas: int, stored: int | None, seen: Replicas) -> Outcome | None:
        if (replicas, stored) == (seen.spec, seen.stored_epoch):
            return None
        return Outcome(
            OutcomeKind.CONFLICT,
            f"{self._reader.label} was seen with {seen.spec} replicas and epoch "
            f"{seen.stored_epoch}, and now has {replicas} and {stored}",
        )

    def _unfit(self, found: Deployment, wanted: int) -> Outcome | None:
        if found.replicas == 0:
            return refused(
                f"{self._reader.label}: at 0 replicas autoscaling is off; scale it to 1 or more"
            )
        if found.paused and wanted != found.replicas:
            return refused(f"{self._reader.label} is paused; resume its roll-out first")
        if wanted < found.replicas and found.old_pods:
            return refused(
                f"{self._reader.label} is in a roll-out with {found.old_pods} pods still to be "
                "replaced; scaling down waits for it"
            )
        return None

    def _autoscaled(self) -> Outcome | None:
        label = self._reader.label
        rivals = self._autoscalers.on_deployment(self._reader.name)
        if rivals:
            return refused(rival_message(label, rivals))
        scaled = self._scaled_objects()
        return refused(scaled_message(label, scaled)) if scaled else None

    def _scaled_objects(self) -> list[str]:
        now = self._now()
        if self._scaled is None or not timedelta(0) <= now - self._scaled[0] < SCALED_OBJECTS_HOLD:
            reader = self._reader
            self._scaled = now, scaled_objects(reader.api, reader.namespace, reader.name)
        return self._scaled[1]


def rival_message(label: str, rivals: list[Autoscaler]) -> str:
    """Who else scales the Deployment, and the way out."""
    names = ", ".join(f"{one.name} (by KEDA)" if one.keda else one.name for one in rivals)
    return (
        f"{label} is scaled by the HPA {names}, and two writers would fight; use mode floor "
        "with that HPA, or remove it"
    )


def scaled_message(label: str, names: list[str]) -> str:
    """What KEDA has on the Deployment, and the way out."""
    return f"{label} belongs to the ScaledObject {', '.join(names)}; use mode metric, or remove it"


def guarded_replace(found: Deployment, wanted: int, epoch: int) -> list[dict[str, Any]]:
    """The JSON patch that sets replicas and epoch if uid, replicas and epoch are as found."""
    path = "/metadata/annotations/" + EPOCH.replace("/", "~1")
    guards = [("/metadata/uid", found.uid), ("/spec/replicas", found.replicas)]
    mark: dict[str, Any] = {"op": "add", "path": path, "value": str(epoch)}
    if EPOCH in found.annotations:
        guards.append((path, found.annotations[EPOCH]))
    elif not found.annotations:
        # Adding the map replaces one that appeared meanwhile, so nothing at all may have changed.
        guards.append(("/metadata/resourceVersion", found.resource_version))
        mark = {"op": "add", "path": "/metadata/annotations", "value": {EPOCH: str(epoch)}}
    tests = [{"op": "test", "path": where, "value": value} for where, value in guards]
    return [*tests, {"op": "replace", "path": "/spec/replicas", "value": wanted}, mark]


class FloorTarget(_ReadTarget):
    """Mode floor: minReplicas of an HPA, which stays in charge above it.

    `read` gives the Deployment's replicas as what is asked for now, or the HPA's minReplicas while
    the HPA has not followed it yet: what asks for less would lower the floor. `apply` makes
    `desired` the floor, held between the minReplicas that people set and the HPA's maxReplicas.
    It writes where that differs from the HPA's minReplicas or where the floor has lived half its
    time, and answers Unchanged otherwise. A minReplicas that is not the one written last was set
    by somebody else and becomes the original that no floor goes below.
    """

    def __init__(self, reader: DeploymentReader, hpa: str, ttl_seconds: float, now: Now) -> None:
        super().__init__(reader)
        self._hpa = hpa
        self._ttl = timedelta(seconds=ttl_seconds)
        self._now = now
        self._autoscalers = Autoscalers(reader.api, reader.namespace)

    @property
    def _label(self) -> str:
        return f"HPA {self._reader.namespace}/{self._hpa}"

    def read(self, now: datetime) -> Replicas:
        """Raises TargetError."""
        with _as_target_error(), self._reader.api.one_read():
            hpa = self._autoscalers.read(self._hpa)
            stored = stored_number(hpa.annotations.get(EPOCH))
            found = self._reader.replicas(now)
            # At 0 replicas the HPA is off.
            floor = min(hpa.min_replicas, hpa.max_replicas) if found.spec else 0
            return replace(found, spec=max(found.spec, floor), stored_epoch=stored)

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:
        """Make `desired` the HPA's floor; never raises."""
        recreated = self._reader.recreated(seen.token)
        if recreated:
            return refused(recreated)
        return carry_out(lambda: self._plan(int(desired), int(epoch)))

    def _plan(self, desired: int, epoch: int) -> Outcome | Write:
        hpa = self._autoscalers.read(self._hpa)
        stored = stored_number(hpa.annotations.get(EPOCH))
        objection = self._unfit(hpa) or _newer_epoch(stored, epoch, self._label)
        if objection:
            return objection
        original = original_min_replicas(hpa)
        floor = max(min(desired, hpa.max_replicas), original)
        detail = self._held(desired, floor, hpa)
        if floor == hpa.min_replicas:
            if stored == epoch:
                return Outcome(OutcomeKind.APPLIED, detail or f"already at {floor}")
            if floor == original or not self._half_over(hpa):
                return Outcome(OutcomeKind.UNCHANGED, detail)
        body = self._patch(hpa, floor, original, epoch)
        return Write(lambda: self._autoscalers.patch(self._hpa, body), detail)

    def _unfit(self, hpa: Autoscaler) -> Outcome | None:
        name = self._reader.name
        if hpa.target != ("Deployment", name):
            return refused(f"{self._label} scales {' '.join(hpa.target)}, not Deployment {name}")
        return refused(keda_message(self._label)) if hpa.keda else None

    def _held(self, desired: int, floor: int, hpa: Autoscaler) -> str:
        if floor == desired:
            return ""
        if floor < desired:
            return f"floor {desired} is held at maxReplicas {hpa.max_replicas} of {self._label}"
        return f"floor {desired} is held at the original minReplicas {floor} of {self._label}"

    def _half_over(self, hpa: Autoscaler) -> bool:
        try:
            expires_at = datetime.fromisoformat(hpa.annotations.get(FLOOR_EXPIRES_AT, ""))
            return self._now() >= expires_at - self._ttl / 2
        except (ValueError, TypeError):
            # Absent, or written by hand without a time zone.
            return True

    def _patch(self, hpa: Autoscaler, floor: int, original: int, epoch: int) -> dict[str, Any]:
        annotations = {
            EPOCH: str(epoch),
            FLOOR: str(floor),
            FLOOR_EXPIRES_AT: (self._now() + self._ttl).isoformat(timespec="seconds"),
            ORIGINAL_MIN_REPLICAS: str(original),
        }
        metadata = {"resourceVersion": hpa.resource_version, "annotations": annotations}
        return {"metadata": metadata, "spec": {"minReplicas": floor}}


def original_min_replicas(hpa: Autoscaler) -> int:
    """The minReplicas that people set, remembered while the present one is a floor of ours."""
    ours = stored_number(hpa.annotations.get(FLOOR)) == hpa.min_replicas
    remembered = stored_number(hpa.annotations.get(ORIGINAL_MIN_REPLICAS))
    return remembered if ours and remembered is not None else hpa.min_replicas


def keda_message(label: str) -> str:
    """Why a floor does not hold there, and the way out."""
    return (
        f"{label} is managed by KEDA, which sets minReplicas back; use mode metric with a "
        "ScaledObject trigger, or replace the ScaledObject by an HPA"
    )
