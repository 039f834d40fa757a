"""Situations: contexts for tests, built from the few figures that a test is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import exp
from statistics import NormalDist

from forecaster.forecast import Forecast, QuantilePoint, WindowForecast
from policies.context import (
    Capacity,
    LeadTime,
    Observation,
    PastDecision,
    PolicySettings,
    Replicas,
    ScalingContext,
    ScalingRules,
)

NOON = datetime(2026, 3, 16, 12, tzinfo=UTC)
LEVELS = (0.05, 0.5, 0.9, 0.95, 0.98, 0.99, 0.999)


LEAD, INTERVAL = timedelta(seconds=180), timedelta(seconds=15)


def window_forecast(
    order: float,
    hold: float,
    scale: float = 0.0,
    order_floor: float = 0.0,
    hold_floor: float = 0.0,
    trusted: bool = True,
) -> Forecast:
    """The medians of both windows as seen at NOON, each with a log error of this scale."""
    ready_at = NOON + LEAD
    return _forecast(
        (
            _window("order", ready_at, order, scale, order_floor),
            _window("hold", NOON, hold, scale, hold_floor),
        ),
        trusted,
    )


def flat_forecast(qps: float, spread: float = 0.0, trusted: bool = True) -> Forecast:
    """The same rate throughout."""
    return window_forecast(qps, qps, spread, trusted=trusted)


def stepped_forecast(rates: Iterable[float], spread: float = 0.0, trusted: bool = True) -> Forecast:
    """A rate for each minute from NOON on; without an order window where they end before it."""
    path = list(rates)
    first, last = (int(ahead.total_seconds() // 60) for ahead in (LEAD, LEAD + INTERVAL))
    hold = _window("hold", NOON, max(path[: last + 1]), spread)
    if len(path) <= last:
        return _forecast((hold,), trusted)
    order = _window("order", NOON + LEAD, max(path[first : last + 1]), spread)
    return _forecast((order, hold), trusted)


def _window(
    name: str, starts_at: datetime, median: float, scale: float, floor: float = 0.0
) -> WindowForecast:
    points = ((level, median * exp(scale * NormalDist().inv_cdf(level))) for level in LEVELS)
    return WindowForecast(
        name=name,
        starts_at=starts_at,
        ends_at=NOON + LEAD + INTERVAL,
        median_qps=median,
        scale=scale,
        quantiles=tuple(QuantilePoint(*point) for point in points),
        floor_qps=floor,
        floor_scale=scale,
        floor_reason="edge" if floor else "",
    )


def _forecast(windows: tuple[WindowForecast, ...], trusted: bool) -> Forecast:
    return Forecast(
        issued_at=NOON,
        windows=windows,
        model="combined",
        fitted_at=NOON,
        history_end=NOON,
        skill=0.5,
        trusted=trusted,
        failures=() if trusted else ("no skill",),
    )


def settings(
    policy: str = "predictive",
    minimum: int = 1,
    maximum: int = 1000,
    up: ScalingRules | None = None,
    down: ScalingRules | None = None,
    parameters: Mapping[str, float] | None = None,
) -> PolicySettings:
    return PolicySettings(
        policy,
        minimum,
        maximum,
        up or ScalingRules(),
        down or ScalingRules(),
        tuple(sorted((parameters or {}).items())),
    )


def situation(
    current: int = 10,
    demand: float | None = 9_000.0,
    forecast: Forecast | None = None,
    policy: PolicySettings | None = None,
) -> ScalingContext:
    """Capacity 1,000 requests/s a replica, lead time 180 s, a decision every 15 s."""
    return ScalingContext(
        workload="grammar",
        now=NOON,
        interval_seconds=15.0,
        settings=policy or settings(),
        capacity=Capacity(1000.0),
        lead_time=LeadTime(150.0, 180.0, 15.0),
        replicas=Replicas(spec=current, ready=current),
        observation=Observation(at=NOON, demand_qps=demand),
        forecast=forecast,
    )


def decided_before(
    context: ScalingContext, asked: Mapping[int, int], demand: float | None = None
) -> ScalingContext:
    """The context with earlier recommendations, by how many seconds ago they were made."""
    recent = tuple(
        PastDecision(
            at=context.now - timedelta(seconds=seconds),
            current=context.replicas.spec,
            recommended=replicas,
            desired=replicas,
            demand_qps=demand,
        )
        for seconds, replicas in sorted(asked.items(), reverse=True)
    )
    return replace(context, recent=recent)
