"""Situations: contexts for tests, built from the few figures that a test is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from forecaster.forecast import Forecast, QuantilePath
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


def flat_forecast(qps: float, spread: float = 0.0, trusted: bool = True) -> Forecast:
    """The same rate throughout; each level lies `spread` of it above the median at most."""
    return stepped_forecast([qps] * 30, spread, trusted)


def stepped_forecast(rates: Iterable[float], spread: float = 0.0, trusted: bool = True) -> Forecast:
    """A rate for each minute from NOON on."""
    path = list(rates)
    return Forecast(
        issued_at=NOON,
        starts_at=NOON,
        step_seconds=60,
        quantiles=tuple(
            QuantilePath(level, tuple(rate * (1 + spread * (level - 0.5)) for rate in path))
            for level in LEVELS
        ),
        model="harmonic",
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
