"""ScalingContext: everything a decision is made from, and nothing else.

Knows the vocabulary of a situation. Whatever is not in a context cannot influence a decision;
that is what makes decisions recomputable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from math import inf

from forecaster.forecast import Forecast
from policies.schedule import Schedule


class ProblemKind(StrEnum):
    """What is wrong with an input. None of these is ever read as a number."""

    NO_DATA = "NoData"
    STALE = "Stale"
    PARTIAL = "Partial"
    IMPLAUSIBLE = "Implausible"
    UNREACHABLE = "Unreachable"
    LOG_UNAVAILABLE = "LogUnavailable"
    FORECAST_UNAVAILABLE = "ForecastUnavailable"
    FORECAST_UNTRUSTED = "ForecastUntrusted"


class ProblemSource(StrEnum):
    """Which input a problem is about."""

    DEMAND = "demand"
    SIGNALS = "signals"
    HISTORY = "history"
    REPLICAS = "replicas"
    FORECAST = "forecast"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Problem:
    source: ProblemSource
    kind: ProblemKind
    message: str

    @property
    def forbids_scale_down(self) -> bool:
        """A missing forecast leaves the reactive rule in charge; any other doubt holds the fleet.

        Signals beside demand are optional, so their absence is no doubt about the load.
        """
        return self.source not in (ProblemSource.FORECAST, ProblemSource.SIGNALS)


@dataclass(frozen=True, slots=True)
class Observation:
    """What was measured last; each figure is None where it is not known.

    `at` is the end of the newest sample that `demand_qps` stands on. Rates are in requests a
    second, latencies in seconds.
    """

    at: datetime
    demand_qps: float | None = None
    requests_running: float | None = None
    requests_waiting: float | None = None
    kv_cache_usage_ratio: float | None = None
    latency_p99_seconds: float | None = None
    errors_qps: float | None = None

    def __post_init__(self) -> None:
        for figure in (
            self.demand_qps,
            self.requests_running,
            self.requests_waiting,
            self.kv_cache_usage_ratio,
            self.latency_p99_seconds,
            self.errors_qps,
        ):
            if figure is not None and not 0 <= figure < inf:
                raise ValueError(f"an observation must be finite and not negative, or None: {self}")

    @property
    def concurrency(self) -> float | None:
        """Requests in flight on the pods and in their queues."""
        if self.requests_running is None or self.requests_waiting is None:
            return None
        return self.requests_running + self.requests_waiting


@dataclass(frozen=True, slots=True)
class Replicas:
    """The state of the target: what is asked for, and what serves.

    `spec` is the number asked for, `ready` serves traffic, each entry of `starting` is when a
    starting replica is expected to be ready, `draining` no longer takes requests. `stored_epoch`
    is the decision epoch that the target carries (None where it carries none). `token` is the
    adapter's own mark of what was read, for its precondition.
    """

    spec: int
    ready: int
    starting: tuple[datetime, ...] = ()
    draining: int = 0
    stored_epoch: int | None = None
    token: str = ""

    def __post_init__(self) -> None:
        if min(self.spec, self.ready, self.draining) < 0:
            raise ValueError(f"replica counts must not be negative: {self}")


@dataclass(frozen=True, slots=True)
class LeadTime:
    """Seconds from a pod's creation until it serves, and the age of the newest metric."""

    p50_seconds: float
    p95_seconds: float
    metric_lag_seconds: float = 0.0
    source: str = "settings"

    def __post_init__(self) -> None:
        if not 0 <= self.p50_seconds <= self.p95_seconds or self.metric_lag_seconds < 0:
            raise ValueError(f"lead time must satisfy 0 <= p50 <= p95 and lag >= 0: {self}")


@dataclass(frozen=True, slots=True)
class Capacity:
    """Requests a second that one replica carries within the latency objective.

    Not its saturation: at this rate the P99 just meets the SLO. `backlog_seconds` is the time
    in which waiting requests are to be worked off. `saturation_ratio` is saturation over that
    rate, 1 where it is not known.
    """

    qps_per_replica: float
    backlog_seconds: float = 30.0
    source: str = "settings"
    saturation_ratio: float = 1.0

    def __post_init__(self) -> None:
        if not self.qps_per_replica > 0 or not self.backlog_seconds > 0:
            raise ValueError(f"capacity must be positive: {self}")
        if not self.saturation_ratio >= 1:
            raise ValueError(f"saturation lies at or above the rate within the SLO: {self}")


class SelectPolicy(StrEnum):
    MAX = "Max"
    MIN = "Min"
    DISABLED = "Disabled"


class RateUnit(StrEnum):
    PODS = "Pods"
    PERCENT = "Percent"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One entry of an HPA behavior's `policies`: at most `value` pods or percent in `period`."""

    unit: RateUnit
    value: int
    period_seconds: int


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """One direction of an HPA `behavior` block; without limits the direction is unlimited."""

    stabilization_window_seconds: int = 0
    select_policy: SelectPolicy = SelectPolicy.MAX
    limits: tuple[RateLimit, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """What the user decided: bounds, limits and the policy with its knob.

    `parameters` are the policy's own numbers by name (each policy documents its own); windows
    into the past end in `WindowSeconds`. `schedules` are replicas wanted by the clock.
    `cuts_to_maximum` is about a fleet that is larger than `max_replicas`, which was lowered:
    whether it is cut at once, as HPA does and old logs remember it, or shrinks as in any other
    fall.
    """

    policy: str
    min_replicas: int
    max_replicas: int
    scale_up: ScalingRules = field(default_factory=ScalingRules)
    scale_down: ScalingRules = field(default_factory=ScalingRules)
    parameters: tuple[tuple[str, float], ...] = ()
    schedules: tuple[Schedule, ...] = ()
    cuts_to_maximum: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.min_replicas <= self.max_replicas or self.max_replicas < 1:
            raise ValueError(
                f"need 0 <= minReplicas <= maxReplicas and maxReplicas >= 1, got "
                f"{self.min_replicas} and {self.max_replicas}"
            )

    def parameter(self, name: str, default: float) -> float:
        for key, value in self.parameters:
            if key == name:
                return value
        return default

    @property
    def memory_seconds(self) -> float:
        """How far back past decisions bear on the next one."""
        windows = [rules.stabilization_window_seconds for rules in (self.scale_up, self.scale_down)]
        periods = [
            limit.period_seconds
            for rules in (self.scale_up, self.scale_down)
            for limit in rules.limits
        ]
        own = [value for name, value in self.parameters if name.endswith("WindowSeconds")]
        return float(max([*windows, *periods, *own, self.parameter("lookBackSeconds", 0.0)]))


@dataclass(frozen=True, slots=True)
class PastDecision:
    """What later decisions need of an earlier one; `notes` are what its policy left for them."""

    at: datetime
    current: int
    recommended: int
    desired: int
    demand_qps: float | None = None
    concurrency: float | None = None
    notes: tuple[tuple[str, float], ...] = ()

    def note(self, name: str) -> float | None:
        for key, value in self.notes:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class ReplicaChange:
    """The number asked for went from `before` to `after`, seen at `at`."""

    at: datetime
    before: int
    after: int


class OverrideKind(StrEnum):
    """What a person decided instead of the policy."""

    PAUSE = "Pause"
    REPLICAS = "Replicas"
    MINIMUM = "Minimum"


@dataclass(frozen=True, slots=True)
class Override:
    """A person's word, until it expires: change nothing, so many replicas, or at least so many.

    `id` is its row in the decision log. Raises ValueError where the kind and the number do not go
    together.
    """

    id: int
    kind: OverrideKind
    replicas: int | None
    owner: str
    reason: str
    expires_at: datetime

    def __post_init__(self) -> None:
        if (self.kind is OverrideKind.PAUSE) != (self.replicas is None):
            raise ValueError(f"a pause has no number, any other override has one: {self}")
        if self.replicas is not None and self.replicas < 0:
            raise ValueError(f"replicas must not be negative, got {self.replicas}")


@dataclass(frozen=True, slots=True)
class ScalingContext:
    """Everything that one decision is made from. `recent` is oldest first, as is `changes`."""

    workload: str
    now: datetime
    interval_seconds: float
    settings: PolicySettings
    capacity: Capacity
    lead_time: LeadTime
    replicas: Replicas
    observation: Observation
    forecast: Forecast | None = None
    recent: tuple[PastDecision, ...] = ()
    changes: tuple[ReplicaChange, ...] = ()
    problems: tuple[Problem, ...] = ()
    epoch: int = 1
    override: Override | None = None

    def __post_init__(self) -> None:
        if self.now.utcoffset() != timedelta(0):
            raise ValueError(f"context time must be UTC, got {self.now.isoformat()}")

    @property
    def demand_qps(self) -> float | None:
        """The observed demand where it is trusted, else None."""
        for problem in self.problems:
            if problem.source is ProblemSource.DEMAND:
                return None
        return self.observation.demand_qps

    @property
    def doubts(self) -> tuple[Problem, ...]:
        """The problems that forbid scaling down."""
        return tuple(problem for problem in self.problems if problem.forbids_scale_down)
