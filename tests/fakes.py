"""Hand-written fakes of the ports; the contract suite runs over them as over the real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from forecaster.forecast import FittedModel
from forecaster.history import TrafficHistory
from policies.context import (
    LeadTime,
    Observation,
    PastDecision,
    ProblemKind,
    Replicas,
    ScalingContext,
)
from policies.decision import Decision, Outcome, OutcomeKind
from scaler.ports import MetricsError, Reading, StoreError, TargetError
from storage.memory import MemoryDecisionStore


@dataclass
class FakeMetrics:
    """A history, and the newest figures; `broken` makes every call fail in one way.

    Steps after `known_until` are gaps: they have not arrived yet.
    """

    history: TrafficHistory
    demand: Callable[[datetime], float | None]
    waiting: float = 0.0
    running: float | None = 100.0
    broken: ProblemKind | None = None
    known_until: datetime | None = None

    def observe(self, now: datetime) -> Reading[Observation]:
        self._fail()
        running = self.running
        waiting = None if running is None else self.waiting
        return Reading(Observation(now, self.demand(now), running, waiting))

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        self._fail()
        known = self.history.between(start, min(end, self.known_until or end))
        missing = TrafficHistory(
            "x",
            start,
            step_seconds,
            np.full(round((end - start).total_seconds()) // step_seconds, np.nan),
        )
        return Reading(missing.extended(known, len(missing)) if len(known) else missing)

    def _fail(self) -> None:
        if self.broken is not None:
            raise MetricsError(self.broken, "the metrics source is broken")


@dataclass
class FakeTarget:
    """Does what it is told, at once; `meddler` changes the number between read and apply."""

    replicas: int
    epoch: int | None = None
    meddler: Callable[[int], int] = lambda replicas: replicas
    readable: bool = True
    applied: list[int] = field(default_factory=list)
    seen_lead: LeadTime | None = None

    def lead_time(self, now: datetime) -> LeadTime | None:
        if not self.readable:
            raise TargetError("deployment llm/grammar was not found")
        return self.seen_lead

    def read(self, now: datetime) -> Replicas:
        if not self.readable:
            raise TargetError("deployment llm/grammar was not found")
        return Replicas(self.replicas, self.replicas, stored_epoch=self.epoch)

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:
        self.replicas = self.meddler(self.replicas)
        if seen.spec != self.replicas:
            return Outcome(OutcomeKind.CONFLICT, f"found {self.replicas}")
        if desired == self.replicas:
            return Outcome(OutcomeKind.UNCHANGED)
        self.replicas, self.epoch = desired, epoch
        self.applied.append(desired)
        return Outcome(OutcomeKind.APPLIED)


class FragileStore(MemoryDecisionStore):
    """A log that can be taken away and given back."""

    broken = False

    def recent(self, workload: str, since: datetime) -> Sequence[PastDecision]:
        self._fail()
        return super().recent(workload, since)

    def record(self, context: ScalingContext, decision: Decision) -> int:
        self._fail()
        return super().record(context, decision)

    def record_outcome(self, decision_id: int, at: datetime, outcome: Outcome) -> None:
        self._fail()
        super().record_outcome(decision_id, at, outcome)

    def latest_model(self, workload: str) -> FittedModel | None:
        self._fail()
        return super().latest_model(workload)

    def _fail(self) -> None:
        if self.broken:
            raise StoreError("the decision log cannot be reached")
