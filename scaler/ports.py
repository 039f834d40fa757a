"""What the loop needs from outside, and the errors by which it may be refused.

Knows the questions, not who answers them. Every adapter raises only these errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

from forecaster.forecast import FittedModel
from forecaster.history import TrafficHistory
from policies.context import (
    LeadTime,
    Observation,
    Override,
    PastDecision,
    Problem,
    ProblemKind,
    Replicas,
    ScalingContext,
)
from policies.decision import Decision, Outcome

Value = TypeVar("Value")


class MetricsError(Exception):
    """A metrics source gave no usable answer; `kind` says in which way."""

    def __init__(self, kind: ProblemKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class TargetError(Exception):
    """The scale target could not be read; nothing may be decided for it."""


class StoreError(Exception):
    """The decision log could not be read or written."""


@dataclass(frozen=True, slots=True)
class Reading(Generic[Value]):
    """A value with what was doubtful about it."""

    value: Value
    problems: tuple[Problem, ...] = field(default=())


class Clock(Protocol):
    def now(self) -> datetime:
        """The time in UTC."""
        ...


class MetricsSource(Protocol):
    """Where demand comes from. Both methods raise MetricsError."""

    def observe(self, now: datetime) -> Reading[Observation]: ...

    def demand_history(
        self, start: datetime, end: datetime, step_seconds: int
    ) -> Reading[TrafficHistory]:
        """Mean demand per step over [start, end); steps without a trusted value are gaps."""
        ...


class ScaleTarget(Protocol):
    """What is scaled."""

    def read(self, now: datetime) -> Replicas:
        """Raises TargetError."""
        ...

    def lead_time(self, now: datetime) -> LeadTime | None:
        """How long replicas took to start lately, where enough were seen. Raises TargetError."""
        ...

    def apply(self, desired: int, seen: Replicas, epoch: int) -> Outcome:
        """Ask for `desired` replicas if the target still is as `seen`.

        Never raises for a refusal or a fault: the outcome says what happened.
        """
        ...


class DecisionStore(Protocol):
    """The decision log, which is the loop's only memory. All methods raise StoreError."""

    def recent(self, workload: str, since: datetime) -> Sequence[PastDecision]:
        """Decisions at or after `since`, oldest first."""
        ...

    def last_epoch(self, workload: str) -> int: ...

    def wrote(self, workload: str, epoch: int, since: datetime) -> bool:
        """Whether a decision of that epoch, made at or after `since`, was written to the target, or
        may have been."""
        ...

    def override(self, workload: str, now: datetime) -> Override | None:
        """What a person decided instead of the policy, where it holds at that time."""
        ...

    def record(self, context: ScalingContext, decision: Decision) -> int:
        """Store the intent before it is acted on; returns the decision's id."""
        ...

    def record_outcome(self, decision_id: int, at: datetime, outcome: Outcome) -> None: ...

    def save_model(self, workload: str, fitted: FittedModel) -> None: ...

    def latest_model(self, workload: str) -> FittedModel | None: ...
