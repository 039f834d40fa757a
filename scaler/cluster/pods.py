"""What serves and what is on its way: a Deployment's pods told apart, and how long they take.

Knows pods and their conditions; nothing is written from here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import quantiles

from kubernetes.client import V1Pod

from policies.context import LeadTime, Replicas
from scaler.cluster.api import ClusterClient, ClusterError, Deployment, list_pods, read_deployment
from scaler.ports import TargetError
from scaler.settings import Target

EPOCH = "daybreak/epoch"
FEWEST_PODS = 5
RECENT = timedelta(days=7)


def stored_number(text: str | None) -> int | None:
    """The number in an annotation; None where there is none, or something else."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


class DeploymentReader:
    """Reads a Deployment and its pods, and remembers the uid that it saw first."""

    def __init__(self, api: ClusterClient, target: Target, lead_time: LeadTime) -> None:
        self.api = api
        self.namespace = target.namespace
        self.name = target.name
        self._lead = timedelta(seconds=lead_time.p95_seconds)
        self._uid: str | None = None

    @property
    def label(self) -> str:
        return f"Deployment {self.namespace}/{self.name}"

    def deployment(self) -> Deployment:
        """Raises ClusterError."""
        return read_deployment(self.api, self.namespace, self.name)

    def replicas(self, now: datetime) -> Replicas:
        """Raises ClusterError."""
        found = self.deployment()
        self._uid = self._uid or found.uid
        pods = list(list_pods(self.api, self.namespace, found.selector))
        kept = [pod for pod in pods if not is_draining(pod)]
        return Replicas(
            spec=found.replicas,
            ready=sum(map(is_ready, kept)),
            starting=tuple(
                sorted(max(created_at(pod, now) + self._lead, now) for pod in kept if _starts(pod))
            ),
            draining=len(pods) - len(kept),
            stored_epoch=stored_number(found.annotations.get(EPOCH)),
            token=found.uid,
        )

    def recreated(self, uid: str) -> str | None:
        """What is wrong where `uid` is not the one that was seen first."""
        self._uid = self._uid or uid
        if uid == self._uid:
            return None
        return (
            f"{self.label} was deleted and created anew (uid {self._uid}, now {uid}); "
            "restart daybreak to go on with the new one"
        )


def is_draining(pod: V1Pod) -> bool:
    return pod.metadata is not None and pod.metadata.deletion_timestamp is not None


def is_ready(pod: V1Pod) -> bool:
    conditions = (pod.status.conditions if pod.status else None) or []
    return any(each.type == "Ready" and each.status == "True" for each in conditions)


def _starts(pod: V1Pod) -> bool:
    phase = pod.status.phase if pod.status else None
    return not is_ready(pod) and phase not in ("Failed", "Succeeded")


def created_at(pod: V1Pod, now: datetime) -> datetime:
    created = pod.metadata.creation_timestamp if pod.metadata else None
    return created.astimezone(UTC) if created else now


def lead_times(api: ClusterClient, target: Target, now: datetime) -> LeadTime | None:
    """P50 and P95 seconds from creation to Ready of the pods created in the last seven days.

    None with fewer than five of them. The age of metrics is not measured here and stays 0. Raises
    TargetError.
    """
    try:
        found = read_deployment(api, target.namespace, target.name)
        pods = list(list_pods(api, target.namespace, found.selector))
    except ClusterError as error:
        raise TargetError(str(error)) from error
    seconds = [took for took in (_seconds_to_ready(pod, now) for pod in pods) if took is not None]
    if len(seconds) < FEWEST_PODS:
        return None
    percentiles = quantiles(seconds, n=100, method="inclusive")
    return LeadTime(percentiles[49], percentiles[94], source=f"measured on {len(seconds)} pods")


def _seconds_to_ready(pod: V1Pod, now: datetime) -> float | None:
    """None for a pod that is not ready, is old, or became ready again after a restart."""
    containers = (pod.status.container_statuses if pod.status else None) or []
    if now - created_at(pod, now) > RECENT or any(each.restart_count for each in containers):
        return None
    return next(
        (
            max((each.last_transition_time - created_at(pod, now)).total_seconds(), 0.0)
            for each in (pod.status.conditions if pod.status else None) or []
            if each.type == "Ready" and each.status == "True" and each.last_transition_time
        ),
        None,
    )
