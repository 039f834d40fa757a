"""Plan: what all settings of a sweep share, in the form that the compiled loop takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from forecaster.history import Floats
from policies.context import RateUnit, ScalingRules, SelectPolicy
from policies.guardrails import DEFAULT_COLLAPSE_RATIO
from policies.predictive import DEFAULT_LOOK_BACK_SECONDS
from simulator.pod import PodProfile
from simulator.sweep import loop, rules

SLICE_SECONDS = 5
"""Of the calibration: the fluid does not change much faster, since steps are longer than that."""

Options = tuple[float, float, float, float]
NO_OPTIONS: Options = (0.0, 0.0, 0.0, 0.0)
Rows = tuple[Floats, Floats, npt.NDArray[np.bool_]]
"""Of each decision: the order window, the hold window, and whether they are trusted."""
NO_ROWS: Rows = (np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0, dtype=np.bool_))
FIRST_HEADROOM = 1.2
"""Over the rate that a run begins with, of the replicas that it finds."""
SELECTS = {
    SelectPolicy.MAX: rules.BY_MAX,
    SelectPolicy.MIN: rules.BY_MIN,
    SelectPolicy.DISABLED: rules.DISABLED,
}


@dataclass(frozen=True, slots=True, eq=False)
class FluidPod:
    """A pod as the compiled fleet sees it: see `fleet.serve`. Sequences need not be whole."""

    idle_step_seconds: float
    slope_seconds: float
    sequences: float
    output_tokens: float
    front_end_seconds: float
    timeout_seconds: float
    length_cdf: Floats

    @property
    def figures(self) -> tuple[float, float, float, float, float, float]:
        return (
            self.idle_step_seconds,
            self.slope_seconds,
            self.sequences,
            self.output_tokens,
            self.front_end_seconds,
            self.timeout_seconds,
        )


def fluid_pod(profile: PodProfile) -> FluidPod:
    return FluidPod(
        profile.t0_seconds,
        profile.slope_seconds,
        float(profile.batch),
        float(profile.output_tokens),
        profile.front_end_seconds,
        profile.timeout_seconds,
        profile.length_cdf,
    )


def pod_like(profile: PodProfile, qps_per_replica: float, slo_seconds: float) -> FluidPod:
    """A pod of which only the rate within the SLO is known, with another's shape: its times
    stretched to the objective, its batch to the rate."""
    wide = qps_per_replica * slo_seconds / profile.capacity_within(1.0)
    pod = fluid_pod(profile)
    return FluidPod(
        pod.idle_step_seconds * slo_seconds,
        pod.slope_seconds * slo_seconds / wide,
        pod.sequences * wide,
        pod.output_tokens,
        pod.front_end_seconds * slo_seconds,
        pod.timeout_seconds * slo_seconds,
        pod.length_cdf,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A fleet and the pace at which it is decided on. Times in seconds."""

    pod: FluidPod
    slo_seconds: float
    qps_per_replica: float
    saturation_ratio: float
    backlog_seconds: float
    cold_seconds: float
    lag_seconds: float
    tick_seconds: float
    min_replicas: int
    max_replicas: int
    scale_up: ScalingRules = field(default_factory=ScalingRules)
    scale_down: ScalingRules = field(default_factory=ScalingRules)
    scrape_seconds: float = 1.0
    rate_window_seconds: float = 60.0
    look_back_seconds: float = DEFAULT_LOOK_BACK_SECONDS
    collapse_ratio: float = DEFAULT_COLLAPSE_RATIO

    @property
    def shape(self) -> tuple[float, ...]:
        return (
            float(self.tick_seconds),
            float(self.cold_seconds),
            float(self.scrape_seconds),
            float(self.lag_seconds),
            float(self.rate_window_seconds),
            float(self.look_back_seconds),
            float(self.slo_seconds),
        )

    @property
    def limits(self) -> tuple[float, ...]:
        return (
            float(self.qps_per_replica),
            float(self.saturation_ratio),
            float(self.backlog_seconds),
            float(self.min_replicas),
            float(self.max_replicas),
            float(self.collapse_ratio),
        )


@dataclass(frozen=True, slots=True, eq=False)
class SweepRun:
    """Traffic served by fleets of one plan: `arrivals` are requests in each slice.

    `first_replicas` and `qps_before` are what a run finds, by default a little more than its first
    minute takes, and that minute's rate.
    """

    plan: Plan
    arrivals: Floats
    slice_seconds: float
    first_replicas: int = 0
    qps_before: float | None = None

    @property
    def ticks(self) -> int:
        return int(len(self.arrivals) * self.slice_seconds // self.plan.tick_seconds)

    @property
    def requests(self) -> float:
        return float(self.arrivals.sum())

    @property
    def rates(self) -> Floats:
        """Requests a second from each decision to the next."""
        each = int(self.plan.tick_seconds // self.slice_seconds)
        whole = self.arrivals[: self.ticks * each].reshape(self.ticks, each)
        return np.asarray(whole.sum(axis=1) / self.plan.tick_seconds)

    @property
    def begins(self) -> tuple[float, float]:
        """The first replicas, and the rate before."""
        minute = self.arrivals[: max(1, int(60 / self.slice_seconds))]
        qps = float(minute.mean()) / self.slice_seconds
        usual = max(1.0, float(np.ceil(FIRST_HEADROOM * qps / self.plan.qps_per_replica)))
        before = qps if self.qps_before is None else self.qps_before
        return float(self.first_replicas or usual), before

    def play(
        self,
        kind: int,
        knob: float | Floats,
        options: Options = NO_OPTIONS,
        rows: Rows = NO_ROWS,
        specs: Floats | None = None,
    ) -> Floats:
        """What one setting comes to, see `loop.play`; `specs` takes the replicas by decision."""
        plan, ticks = self.plan, self.ticks
        tally: Floats = loop.play(
            self.arrivals,
            kind,
            options,
            *rows,
            self.begins,
            (float(self.slice_seconds), *plan.shape),
            plan.limits,
            direction_of(plan.scale_up),
            direction_of(plan.scale_down),
            plan.pod.figures,
            plan.pod.length_cdf,
            np.full(ticks, knob) if isinstance(knob, float) else knob,
            np.zeros(ticks) if specs is None else specs,
        )
        return tally


def direction_of(direction: ScalingRules) -> tuple[float, int, Floats]:
    """As `rules.behaved` takes one direction of an HPA `behavior` block."""
    limits = np.array(
        [
            (float(limit.unit is RateUnit.PERCENT), limit.value, limit.period_seconds)
            for limit in direction.limits
        ],
        dtype=np.float64,
    ).reshape(-1, 3)
    select = SELECTS[direction.select_policy]
    return float(direction.stabilization_window_seconds), select, limits


def slices(rates: Floats, step_seconds: int) -> Floats:
    """Requests in each slice of the calibration, from mean rates; longer steps are joined by
    straight lines from centre to centre."""
    if step_seconds <= SLICE_SECONDS:
        seconds = np.repeat(rates, step_seconds)
        whole = len(seconds) // SLICE_SECONDS * SLICE_SECONDS
        return np.asarray(seconds[:whole].reshape(-1, SLICE_SECONDS).sum(axis=1))
    count = len(rates) * step_seconds // SLICE_SECONDS
    centres = (np.arange(count) + 0.5) * SLICE_SECONDS / step_seconds - 0.5
    return np.interp(centres, np.arange(len(rates)), rates) * SLICE_SECONDS
