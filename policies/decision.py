"""Decision: a number of replicas, with every step that led to it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a step set the number it set; HPA's words where HPA has one."""

    FORECAST_PEAK = "ForecastPeak"
    RECURRENT_EDGE = "RecurrentEdge"
    UNANNOUNCED_RISE = "UnannouncedRise"
    OBSERVED_DEMAND = "ObservedDemand"
    BACKLOG = "Backlog"
    FORECAST_HOLD = "ForecastHold"
    FIXED = "Fixed"
    SCHEDULED = "Scheduled"
    PANIC = "Panic"
    NOT_DUE = "NotDue"
    NO_INPUT = "NoTrustedInput"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    LOG_UNAVAILABLE = "LogUnavailable"
    DEMAND_COLLAPSE = "DemandCollapse"
    SCALE_UP_STABILIZED = "ScaleUpStabilized"
    SCALE_DOWN_STABILIZED = "ScaleDownStabilized"
    SCALE_UP_LIMIT = "ScaleUpLimit"
    SCALE_DOWN_LIMIT = "ScaleDownLimit"
    TOO_FEW_REPLICAS = "TooFewReplicas"
    TOO_MANY_REPLICAS = "TooManyReplicas"
    OVERRIDDEN = "Overridden"
    PAUSED = "Paused"


@dataclass(frozen=True, slots=True)
class Step:
    """One rule's word: the number after it, why, and a sentence for people.

    `notes` are figures that the policy wants to be told at its next decision: it has no other
    memory.
    """

    rule: str
    replicas: int
    reason: Reason
    message: str
    notes: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one tick.

    `recommended` is what the policy asked for before guardrails; `desired` is what the last step
    left, and `reason` names the rule that bound it. Raises ValueError where these disagree.
    """

    current: int
    recommended: int
    desired: int
    reason: Reason
    steps: tuple[Step, ...]
    epoch: int

    def __post_init__(self) -> None:
        if not self.steps or self.steps[-1].replicas != self.desired:
            raise ValueError("a decision's desired replicas must equal its last step")
        if self.desired < 0:
            raise ValueError(f"desired replicas must not be negative, got {self.desired}")

    @property
    def notes(self) -> tuple[tuple[str, float], ...]:
        return tuple(note for step in self.steps for note in step.notes)


class OutcomeKind(StrEnum):
    APPLIED = "Applied"
    UNCHANGED = "Unchanged"
    SHADOW = "Shadow"
    CONFLICT = "Conflict"
    REFUSED = "Refused"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


NOT_APPLIED = frozenset(
    {OutcomeKind.CONFLICT, OutcomeKind.REFUSED, OutcomeKind.FAILED, OutcomeKind.UNKNOWN}
)
"""The target does not, as far as is known, carry what was decided, though it should."""
MAY_HAVE_WRITTEN = (OutcomeKind.APPLIED, OutcomeKind.UNKNOWN)
"""After these the target may carry the decision's epoch."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a decision at the target; `detail` says why where it was not applied."""

    kind: OutcomeKind
    detail: str = ""
