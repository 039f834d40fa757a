"""Counterfactuals: what other policies would have done on the demand that was recorded.

Pure: minutes in, replicas out, decided by the policies' own functions. The world is a simple one:
a policy decides once a minute on what was observed in it, a replica serves a median cold start
after it is asked for, and one that is given back is gone at once. How simple it may be is shown by
deciding again as the policy did that really ran: its GPU-hours must come out as recorded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from math import isfinite

import numpy as np

from forecaster.history import Floats
from policies.context import (
    Capacity,
    LeadTime,
    Observation,
    PastDecision,
    PolicySettings,
    Problem,
    ProblemKind,
    ProblemSource,
    ReplicaChange,
    Replicas,
    ScalingContext,
)
from policies.decision import Decision
from policies.engine import decide
from policies.peers.readings import DEFAULT_UTILIZATION
from policies.registry import POLICIES
from storage.reports.minutes import MINUTE, Minutes

UNBOUNDED = 1_000_000
INTERVAL_SECONDS = 60.0
DEFAULT_LEAD_SECONDS = 180.0
LABELS = {
    "static": "static peak",
    "asymmetric_concurrency": "asymmetric concurrency",
    "hpa": "HPA",
}
"""Whom the fleet is compared with, in this order."""

_NO_DATA = Problem(ProblemSource.DEMAND, ProblemKind.NO_DATA, "nothing was recorded")


@dataclass(frozen=True, slots=True, eq=False)
class Counterfactual:
    """A policy's replicas minute by minute; `billed` counts those that start, `desired` is what
    was asked for at the end of each minute."""

    policy: str
    desired: Floats
    billed: Floats
    ready: Floats


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The policy that ran, decided again minute by minute, against what was recorded, in GPU-hours.

    recorded - recomputed = draining + elsewhere + coarseness: replicas that still drained or were
    more than what was asked for; what was asked for beside the decisions (not applied, or changed
    by somebody else); and what deciding once a minute leaves out.
    """

    recorded: float
    recomputed: float
    draining: float
    elsewhere: float
    coarseness: float

    @property
    def difference_ratio(self) -> float:
        return self.recomputed / self.recorded - 1 if self.recorded else 0.0


@dataclass(slots=True)
class _Fleet:
    """Replicas by when they serve, in seconds since 1970, and what was decided lately."""

    ready_at: list[float]
    memory: timedelta
    past: deque[PastDecision] = field(default_factory=deque)
    _changes: deque[ReplicaChange] = field(default_factory=deque)

    def serving(self, now: float) -> int:
        return bisect_right(self.ready_at, now)

    def replicas(self, now: float) -> Replicas:
        serving = self.serving(now)
        starting = tuple(datetime.fromtimestamp(at, UTC) for at in self.ready_at[serving:])
        return Replicas(len(self.ready_at), serving, starting)

    def scale(self, desired: int, ready_at: float) -> None:
        """Those that start last go first, as Kubernetes deletes what is not ready first."""
        missing = desired - len(self.ready_at)
        if missing < 0:
            del self.ready_at[desired:]
        elif missing > 0:
            self.ready_at.extend([ready_at] * missing)
            self.ready_at.sort()

    def remember(self, context: ScalingContext, decision: Decision) -> None:
        self.past.append(
            PastDecision(
                context.now,
                decision.current,
                decision.recommended,
                decision.desired,
                context.demand_qps,
                context.observation.concurrency,
                decision.notes,
            )
        )

    def changes(self, now: datetime) -> tuple[ReplicaChange, ...]:
        """When the number asked for changed, among what is remembered."""
        oldest = now - self.memory
        while self.past and self.past[0].at <= oldest:
            self.past.popleft()
        current = len(self.ready_at)
        if self.past and self.past[-1].current != current:
            self._changes.append(ReplicaChange(now, self.past[-1].current, current))
        while self._changes and (not self.past or self._changes[0].at <= self.past[0].at):
            self._changes.popleft()
        return tuple(self._changes)


Situation = Callable[[int, _Fleet], ScalingContext | None]
"""What a policy knows in a minute, by its number and the fleet; None where nobody decided."""


def reference_settings(minutes: Minutes) -> dict[str, PolicySettings]:
    """How the policies of the comparison are set: the static one to what the highest minute took,
    the reactive ones to their usual share of what a replica carries."""
    need = minutes.need[np.isfinite(minutes.need)]
    peak = max(1, int(need.max())) if len(need) else 1
    capacity = _usual(minutes.qps_per_replica, 1.0)
    target = (("targetQps", DEFAULT_UTILIZATION * capacity),)
    parameters = {"static": (("replicas", float(peak)),)}
    return {
        name: PolicySettings(name, 1, UNBOUNDED, parameters=parameters.get(name, target))
        for name in LABELS
        if name in POLICIES
    }


def as_if(minutes: Minutes, settings: PolicySettings) -> Counterfactual:
    """What a policy without a forecast would have done, from the first minute's fleet on."""
    if settings.policy == "static":
        return _fixed(minutes, settings)
    return _replayed(minutes, _observed(minutes, settings), settings)


def as_it_ran(minutes: Minutes, contexts: Iterator[ScalingContext | None]) -> Counterfactual | None:
    """The policy that ran, on its own settings, forecasts and doubts of each minute; None where
    no context is left."""
    skipped = 0
    first = next(contexts, None)
    while first is None and skipped < len(minutes) - 1:
        skipped += 1
        first = next(contexts, None)
    if first is None:
        return None
    coming = chain([None] * skipped, [first], contexts)

    def situation(_: int, fleet: _Fleet) -> ScalingContext | None:
        context = next(coming)
        if context is None:
            return None
        changes, now = fleet.changes(context.now), context.now.timestamp()
        replicas, recent = fleet.replicas(now), tuple(fleet.past)
        return replace(context, replicas=replicas, recent=recent, changes=changes)

    return _replayed(minutes, situation, first.settings)


def reproduction(minutes: Minutes, again: Counterfactual) -> Reproduction:
    """How near the recomputed GPU-hours come to the recorded ones, and what the rest is."""
    recorded = minutes.hours(minutes.provisioned)
    recomputed = minutes.hours(again.billed)
    draining = recorded - minutes.hours(minutes.current)
    elsewhere = minutes.hours(minutes.current) - minutes.hours(_asked(minutes))
    return Reproduction(
        recorded=recorded,
        recomputed=recomputed,
        draining=draining,
        elsewhere=elsewhere,
        coarseness=recorded - recomputed - draining - elsewhere,
    )


def _asked(minutes: Minutes) -> Floats:
    """What should have run in each minute had every decision been applied at once."""
    return (np.concatenate([minutes.current[:1], minutes.desired[:-1]]) + minutes.desired) / 2


def _fixed(minutes: Minutes, settings: PolicySettings) -> Counterfactual:
    """A fleet that decides the same in every minute needs to be asked once."""
    situation, fleet = _observed(minutes, settings), _Fleet([], timedelta())
    context = situation(0, fleet)
    assert context is not None
    replicas = np.full(len(minutes), float(decide(context).desired))
    return Counterfactual(settings.policy, replicas, replicas, replicas)


def _replayed(minutes: Minutes, situation: Situation, settings: PolicySettings) -> Counterfactual:
    """Minute by minute; where nobody decided the fleet stays as it is."""
    desired, billed, ready = (np.zeros(len(minutes)) for _ in range(3))
    memory = max(settings.memory_seconds, POLICIES[settings.policy].memory_seconds)
    fleet = _first_fleet(minutes, timedelta(seconds=memory))
    leads = np.nan_to_num(minutes.lead_seconds, nan=DEFAULT_LEAD_SECONDS).tolist()
    for index, begins in enumerate(minutes.time.tolist()):
        before = len(fleet.ready_at)
        context = situation(index, fleet)
        if context is not None:
            decision = decide(context)
            fleet.remember(context, decision)
            fleet.scale(decision.desired, context.now.timestamp() + leads[index])
        desired[index] = len(fleet.ready_at)
        billed[index] = (before + len(fleet.ready_at)) / 2
        ready[index] = fleet.serving(begins + MINUTE / 2)
    return Counterfactual(settings.policy, desired, billed, ready)


def _first_fleet(minutes: Minutes, memory: timedelta) -> _Fleet:
    """What ran in the first minute, all of it ready."""
    replicas = round(float(minutes.current[0]))
    return _Fleet([float(minutes.time[0]) - 1] * replicas, memory)


def _observed(minutes: Minutes, settings: PolicySettings) -> Situation:
    """Each minute as a policy would have seen it.

    Requests in flight are demand times the usual time that one takes, so that they do not tell
    what the fleet that really ran made of them.
    """
    in_flight = _usual(minutes.concurrency / minutes.demand_qps, 1.0)
    capacity = Capacity(_usual(minutes.qps_per_replica, 1.0))
    lead = _usual(minutes.lead_seconds, DEFAULT_LEAD_SECONDS)
    lead_time = LeadTime(lead, lead)
    demands = minutes.demand_qps.tolist()

    def situation(index: int, fleet: _Fleet) -> ScalingContext:
        now, demand = minutes.at(index), demands[index]
        known = isfinite(demand)
        seen = Observation(now, demand, demand * in_flight, 0.0) if known else Observation(now)
        changes = fleet.changes(now)
        return ScalingContext(
            workload=minutes.workload,
            now=now,
            interval_seconds=INTERVAL_SECONDS,
            settings=settings,
            capacity=capacity,
            lead_time=lead_time,
            replicas=fleet.replicas(now.timestamp()),
            observation=seen,
            recent=tuple(fleet.past),
            changes=changes,
            problems=() if known else (_NO_DATA,),
        )

    return situation


def _usual(column: Floats, otherwise: float) -> float:
    known = column[np.isfinite(column)]
    return float(np.median(known)) if len(known) else otherwise
