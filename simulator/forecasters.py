"""Which forecaster a workload's policy reads, with its margin calibrated for the target and its
trust earned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from forecaster.combine import NAME as COMBINED
from forecaster.combine import Combined
from forecaster.forecast import FittedModel, Forecast, Forecaster, Window, WindowForecast
from forecaster.history import TrafficHistory
from forecaster.trust import Gated
from policies.guardrails import DEFAULT_COLLAPSE_RATIO
from policies.predictive import DEFAULT_LOOK_BACK_SECONDS
from policies.registry import POLICIES
from scaler.settings import Workload
from simulator.pod import PROFILES, PodProfile
from simulator.sweep.calibrate import Calibrated
from simulator.sweep.plan import SLICE_SECONDS, FluidPod, Plan, fluid_pod, pod_like
from simulator.traces.arrivals import on_step

PERFECT = "perfect"
USUAL_POD = PROFILES["h100-1200"]


def forecaster_for(
    workload: Workload,
    interval_seconds: float,
    profile: PodProfile | None = None,
    future: TrafficHistory | None = None,
) -> Forecaster:
    """Ours is calibrated for the workload's target on pods of the profile, or on pods shaped like
    the usual one where only their rate is known, and trusted while it agrees with the world. A
    peer's is as the peer has it. `future` is what a perfect forecast knows; raises ValueError where
    one is asked for without it.
    """
    name = POLICIES[workload.policy.name].forecaster
    calendar = workload.traffic_calendar()
    if name == PERFECT:
        if future is None:
            raise ValueError("a perfect forecast needs to know the future: only a replay does")
        return Foreknown(on_step(future, workload.history.step_seconds))
    if name and name != COMBINED:
        # Imported here: a daemon need not wait for what only peers read.
        from forecaster.registry import forecaster  # noqa: PLC0415

        return forecaster(name, calendar)
    if "margin" in workload.policy.parameters:
        return Gated(Combined(calendar))
    pod = pod_of(workload, profile)
    plan = plan_for(workload, interval_seconds, pod)
    return Gated(Calibrated(Combined(calendar), plan, workload.policy.target_bad_ratio))


def pod_of(workload: Workload, profile: PodProfile | None) -> FluidPod:
    if profile is not None:
        return fluid_pod(profile)
    return pod_like(USUAL_POD, workload.capacity.qps_per_replica, workload.slo.p99_seconds)


def plan_for(workload: Workload, interval_seconds: float, pod: FluidPod) -> Plan:
    """The workload's fleet, decided on at whole slices of a replay."""
    capacity, lead = workload.capacity.capacity, workload.lead_time
    settings = workload.policy_settings()
    return Plan(
        pod=pod,
        slo_seconds=workload.slo.p99_seconds,
        qps_per_replica=capacity.qps_per_replica,
        saturation_ratio=capacity.saturation_ratio,
        backlog_seconds=capacity.backlog_seconds,
        cold_seconds=lead.p95_seconds,
        lag_seconds=lead.metric_lag_seconds,
        tick_seconds=max(1, round(interval_seconds / SLICE_SECONDS)) * SLICE_SECONDS,
        min_replicas=workload.min_replicas,
        max_replicas=workload.max_replicas,
        scale_up=settings.scale_up,
        scale_down=settings.scale_down,
        look_back_seconds=settings.parameter("lookBackSeconds", DEFAULT_LOOK_BACK_SECONDS),
        collapse_ratio=settings.parameter("collapseRatio", DEFAULT_COLLAPSE_RATIO),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Foreknown:
    """The peak of every window as it will be: what control alone loses, forecasting apart."""

    future: TrafficHistory

    @property
    def name(self) -> str:
        return PERFECT

    def fit(
        self, history: TrafficHistory, fitted_at: datetime, windows: Sequence[Window]
    ) -> FittedModel:
        step = history.step_seconds
        return FittedModel(PERFECT, fitted_at, history.end, step, tuple(windows), {})

    def predict(
        self, fitted: FittedModel, history: TrafficHistory, issued_at: datetime
    ) -> Forecast:
        return Forecast(
            issued_at=issued_at,
            windows=tuple(self._window(window, history) for window in fitted.windows),
            model=PERFECT,
            fitted_at=fitted.fitted_at,
            history_end=history.end,
        )

    def _window(self, window: Window, history: TrafficHistory) -> WindowForecast:
        step = timedelta(seconds=self.future.step_seconds)
        starts_at, ends_at = history.end + window.first * step, history.end + window.last * step
        ahead = self.future.between(starts_at, ends_at).values
        peak = float(np.nanmax(ahead)) if np.isfinite(ahead).any() else 0.0
        return WindowForecast(window.name, starts_at, ends_at, peak, 0.0, ())
