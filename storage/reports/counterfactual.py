"""Counterfactuals: what other policies would have done on the demand that was recorded.

Pure: minutes in, replicas out, decided by the policies' own functions. The world is a simple one:
a policy decides once a minute on what was observed in it, a replica serves a median cold start
after it is asked for, and one that is given back is gone at once. How simple it may be is shown by
the policy that really ran: each of its decisions is taken again in this world, and its GPU-hours
must come out as recorded. What deciding only once a minute does to them is told beside that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
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
    was asked for at the end of each minute. `decisions` is how often it decided."""

    policy: str
    desired: Floats
    billed: Floats
    ready: Floats
    decisions: int


@dataclass(frozen=True, slots=True, eq=False)
class Again:
    """The policy that ran, decision by decision, and how many replicas more ran in each minute than
    it had asked for."""

    run: Counterfactual
    beside: Floats


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The policy that ran, decided again, against what was recorded, in GPU-hours.

    `decisions` are those of [since, until) that were taken again one by one; 0 where the log holds
    them no more and only the last one of each minute was. recorded - recomputed = draining +
    elsewhere + rest: replicas that still drained or were more than what was asked for; what was
    asked for beside the decisions (not applied, or changed by somebody else); and what this world
    leaves out, which is when each single replica served and, where `decisions` is 0, what was
    decided within a minute. `once_a_minute` is what the same policy comes to where it decides as
    seldom as those that it is compared with.
    """

    since: datetime
    until: datetime
    decisions: int
    recorded: float
    recomputed: float
    draining: float
    elsewhere: float
    rest: float
    once_a_minute: float

    @property
    def difference_ratio(self) -> float:
        return self.recomputed / self.recorded - 1 if self.recorded else 0.0

    @property
    def once_a_minute_ratio(self) -> float:
        return self.once_a_minute / self.recorded - 1 if self.recorded else 0.0


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


Situations = Callable[[int, _Fleet], Iterator[ScalingContext]]
"""What a policy knows at each decision of a minute, by its number and the fleet as it is then."""


def reference_settings(minutes: Minutes) -> dict[str, PolicySettings]:
    """How the policies of the comparison are set: the static one to what the highest minute took,
    the reactive ones to their usual share of what a replica carries.

    Raises ValueError where no minute's demand is known.
    """
    peak = max(1, int(minutes.need[np.isfinite(minutes.need)].max()))
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


def as_it_ran(
    minutes: Minutes, decided: Iterator[Sequence[ScalingContext]]
) -> Counterfactual | None:
    """The policy that ran, on its own settings, forecasts and doubts: every decision of each minute
    taken again, by what it was made from; None where nothing of that is left."""
    skipped: list[Sequence[ScalingContext]] = []
    for contexts in decided:
        if contexts:
            break
        skipped.append(())
    else:
        return None
    first, coming = contexts[0], chain(skipped, [contexts], decided)

    def situations(_: int, fleet: _Fleet) -> Iterator[ScalingContext]:
        for context in next(coming):
            changes, now = fleet.changes(context.now), context.now.timestamp()
            replicas, recent = fleet.replicas(now), tuple(fleet.past)
            yield replace(context, replicas=replicas, recent=recent, changes=changes)

    return _replayed(minutes, situations, first.settings, first)


def reproduction(
    minutes: Minutes, once_a_minute: Counterfactual, again: Again | None
) -> Reproduction:
    """How near the recomputed GPU-hours come to the recorded ones, and what the rest is; `again` is
    the policy that ran, decision by decision, None where these are gone."""
    whole = None if again is None else again.run
    beside = minutes.current - _asked(minutes) if again is None else again.beside
    recorded = minutes.hours(minutes.provisioned)
    recomputed = minutes.hours((whole or once_a_minute).billed)
    draining = recorded - minutes.hours(minutes.current)
    elsewhere = minutes.hours(beside)
    return Reproduction(
        since=minutes.at(0),
        until=minutes.at(len(minutes) - 1) + timedelta(seconds=MINUTE),
        decisions=0 if whole is None else whole.decisions,
        recorded=recorded,
        recomputed=recomputed,
        draining=draining,
        elsewhere=elsewhere,
        rest=recorded - recomputed - draining - elsewhere,
        once_a_minute=minutes.hours(once_a_minute.billed),
    )


def _asked(minutes: Minutes) -> Floats:
    """What should have run in each minute had every decision been applied at once: what the one
    before had asked for, one interval ago."""
    before = np.concatenate([minutes.current[:1], minutes.desired[:-1]])
    return np.asarray(minutes.desired + (before - minutes.desired) / minutes.decisions)


def _fixed(minutes: Minutes, settings: PolicySettings) -> Counterfactual:
    """A fleet that decides the same in every minute needs to be asked once."""
    situations, fleet = _observed(minutes, settings), _Fleet([], timedelta())
    context = next(situations(0, fleet))
    replicas = np.full(len(minutes), float(decide(context).desired))
    return Counterfactual(settings.policy, replicas, replicas, replicas, 1)


def _replayed(
    minutes: Minutes,
    situations: Situations,
    settings: PolicySettings,
    first: ScalingContext | None = None,
) -> Counterfactual:
    """Minute by minute; where nobody decided the fleet stays as it is."""
    desired, billed, ready = (np.zeros(len(minutes)) for _ in range(3))
    memory = max(settings.memory_seconds, POLICIES[settings.policy].memory_seconds)
    fleet = _first_fleet(minutes, timedelta(seconds=memory), first)
    leads = np.nan_to_num(minutes.lead_seconds, nan=DEFAULT_LEAD_SECONDS).tolist()
    decisions = 0
    for index, begins in enumerate(minutes.time.tolist()):
        sizes = []
        for context in situations(index, fleet):
            before = len(fleet.ready_at)
            decision = decide(context)
            fleet.remember(context, decision)
            fleet.scale(decision.desired, context.now.timestamp() + leads[index])
            sizes.append((before + len(fleet.ready_at)) / 2)
        decisions += len(sizes)
        desired[index] = len(fleet.ready_at)
        billed[index] = sum(sizes) / len(sizes) if sizes else desired[index]
        ready[index] = fleet.serving(begins + MINUTE / 2)
    return Counterfactual(settings.policy, desired, billed, ready, decisions)


def _first_fleet(minutes: Minutes, memory: timedelta, first: ScalingContext | None) -> _Fleet:
    """What ran in the first minute, with what a first decision remembers; without one, all of it
    is ready."""
    replicas = round(float(minutes.current[0]))
    served = float(minutes.time[0]) - 1
    if first is None:
        return _Fleet([served] * replicas, memory)
    starting = sorted(at.timestamp() for at in first.replicas.starting)[:replicas]
    ready_at = [served] * (replicas - len(starting)) + starting
    return _Fleet(ready_at, memory, deque(first.recent), deque(first.changes))


def _observed(minutes: Minutes, settings: PolicySettings) -> Situations:
    """Each minute as a policy would have seen it.

    Requests in flight are demand times the usual time that one takes, so that they do not tell
    what the fleet that really ran made of them.
    """
    in_flight = _usual(minutes.concurrency / minutes.demand_qps, 1.0)
    capacity = Capacity(_usual(minutes.qps_per_replica, 1.0))
    lead = _usual(minutes.lead_seconds, DEFAULT_LEAD_SECONDS)
    lead_time = LeadTime(lead, lead)
    demands = minutes.demand_qps.tolist()

    def situations(index: int, fleet: _Fleet) -> Iterator[ScalingContext]:
        now, demand = minutes.at(index), demands[index]
        known = isfinite(demand)
        seen = Observation(now, demand, demand * in_flight, 0.0) if known else Observation(now)
        changes = fleet.changes(now)
        yield ScalingContext(
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

    return situations


def _usual(column: Floats, otherwise: float) -> float:
    known = column[np.isfinite(column)]
    return float(np.median(known)) if len(known) else otherwise
