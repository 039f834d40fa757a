"""What serves and what is on its way: a Deployment's pods told apart, and how long they take.

Knows pods and their conditions; nothing is written from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import structlog
from kubernetes.client import V1Pod

from policies.context import LeadTime, Replicas
from scaler.cluster.api import ClusterClient, ClusterError, Deployment, list_pods, read_deployment
from scaler.ports import TargetError
from scaler.settings import Target
from scaler.starts import FEWEST, LONGEST_SECONDS, Starts

EPOCH = "daybreak/epoch"
FEWEST_PODS = 5
READS_UNTIL_TAKEN_ON = 3
"""A Deployment that was created anew is taken on at the last of so many reads in a row that find
it: one stale answer is none, and what was decided on the old one is long done with."""

PLAUSIBLE_LEADS = 5
"""A pod that was not watched from its beginning may have lost its readiness and found it again;
where it was ready only after so many planned lead times, that is likelier than so slow a start."""

_log = structlog.get_logger("daybreak")


def stored_number(text: str | None) -> int | None:
    """The number in an annotation; None where there is none, or something else."""
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


class DeploymentReader:
    """Reads a Deployment and its pods; remembers its uid, and how long pods took to start."""

    def __init__(self, api: ClusterClient, target: Target, lead_time: LeadTime) -> None:
        self.api = api
        self.namespace = target.namespace
        self.name = target.name
        self._lead = timedelta(seconds=lead_time.p95_seconds)
        self._first_seen: dict[str, datetime] = {}
        self._uid: str | None = None
        self._anew: tuple[str, int] | None = None
        self._starts = Starts()
        self._looked = False

    @property
    def label(self) -> str:
        return f"Deployment {self.namespace}/{self.name}"

    def deployment(self) -> Deployment:
        """Raises ClusterError."""
        return read_deployment(self.api, self.namespace, self.name)

    def replicas(self, now: datetime) -> Replicas:
        """Raises ClusterError."""
        with self.api.one_read():
            found = self.deployment()
            self._note_uid(found.uid)
            pods = list(list_pods(self.api, self.namespace, found.selector))
        kept = [pod for pod in pods if not is_draining(pod)]
        self._note_starts(kept, now)
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

    def lead_time(self, now: datetime, fewest: int = FEWEST) -> LeadTime | None:
        """How long the pods took that were seen so far; raises ClusterError."""
        if not self._looked:
            self.replicas(now)
        return self._starts.lead_time(now, fewest)

    def _note_starts(self, pods: Sequence[V1Pod], now: datetime) -> None:
        self._looked = True
        by_uid = {pod.metadata.uid: pod for pod in pods if pod.metadata and pod.metadata.uid}
        self._first_seen = {uid: self._first_seen.get(uid, now) for uid in by_uid}
        for uid, pod in by_uid.items():
            if uid not in self._starts:
                seconds = _seconds_to_ready(pod, now)
                if seconds is not None and self._was_start(uid, pod, seconds):
                    self._starts.note(uid, created_at(pod, now), seconds)

    def _was_start(self, uid: str, pod: V1Pod, seconds: float) -> bool:
        """Not, perhaps, the end of a while without readiness that nobody here saw the beginning of:
        after a restart of this process its length would be taken for a start."""
        first_seen = self._first_seen[uid]
        age = (first_seen - created_at(pod, first_seen)).total_seconds()
        return min(seconds, age) <= PLAUSIBLE_LEADS * self._lead.total_seconds()

    def recreated(self, uid: str) -> str | None:
        """What is wrong where `uid` is not the one that is written to."""
        self._uid = self._uid or uid
        if uid == self._uid:
            return None
        return (
            f"{self.label} was deleted and created anew (uid {self._uid}, now {uid}); the new one "
            f"is taken on at the decision that finds it for the {READS_UNTIL_TAKEN_ON}rd time"
        )

    def _note_uid(self, uid: str) -> None:
        if self._uid is None or uid == self._uid:
            self._uid, self._anew = uid, None
            return
        reads = self._anew[1] + 1 if self._anew and self._anew[0] == uid else 1
        self._anew = (uid, reads)
        if reads >= READS_UNTIL_TAKEN_ON:
            _log.warning("taken on anew", target=self.label, uid=uid, before=self._uid)
            self._uid, self._anew = uid, None


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

    None with fewer than five of them. Raises TargetError.
    """
    try:
        # Whoever asks what is there is told of the slowest, however much was planned with.
        unplanned = LeadTime(0.0, LONGEST_SECONDS)
        return DeploymentReader(api, target, unplanned).lead_time(now, FEWEST_PODS)
    except ClusterError as error:
        raise TargetError(str(error)) from error


def _seconds_to_ready(pod: V1Pod, now: datetime) -> float | None:
    """None for a pod that is not ready, or became ready again after a restart."""
    containers = (pod.status.container_statuses if pod.status else None) or []
    if any(each.restart_count for each in containers):
        return None
    return next(
        (
            max((each.last_transition_time - created_at(pod, now)).total_seconds(), 0.0)
            for each in (pod.status.conditions if pod.status else None) or []
            if each.type == "Ready" and each.status == "True" and each.last_transition_time
        ),
        None,
    )
