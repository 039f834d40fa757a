"""A decision log as a day of service leaves it: a morning ramp, a surge, an outage of metrics.

The world is small and certain: a replica serves a lead time after it is asked for, and the
forecast knows the day apart from the surge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from forecaster.forecast import Forecast, QuantilePoint, WindowForecast
from forecaster.history import Floats, TrafficHistory
from policies.context import (
    Capacity,
    LeadTime,
    Observation,
    PastDecision,
    PolicySettings,
    Problem,
    ProblemKind,
    ProblemSource,
    Replicas,
    ScalingContext,
    ScalingRules,
)
from policies.decision import Outcome, OutcomeKind
from policies.engine import decide
from scaler.ports import DecisionStore
from simulator.traces.edit import with_surge
from simulator.traces.generate import Diurnal, generate
from storage.reports.findings import Objective
from storage.reports.report import PolicyRun
from tests.situations import LEVELS

MIDNIGHT = datetime(2026, 3, 16, tzinfo=UTC)
QPS_PER_REPLICA = 1_000.0
LEAD_SECONDS = 180.0
OBJECTIVE = Objective(slo_seconds=1.0, qps_per_replica=QPS_PER_REPLICA, price_per_pod_hour=2.5)
SURGE_AT = MIDNIGHT + timedelta(hours=15, minutes=10)
OUTAGE = (MIDNIGHT + timedelta(hours=3), MIDNIGHT + timedelta(hours=3, minutes=12))
SETTINGS = PolicySettings(
    "predictive",
    min_replicas=4,
    max_replicas=120,
    scale_down=ScalingRules(stabilization_window_seconds=120),
    parameters=(("lookBackSeconds", 300.0), ("margin", 3.0)),
)


def day_of_traffic(peak_qps: float = 80_000.0, days: int = 1) -> TrafficHistory:
    """Minutes from MIDNIGHT on, and one hour more for the last forecasts to reach into."""
    whole = generate(Diurnal(peak_qps=peak_qps), MIDNIGHT, days + 1, seed=5)
    return whole.between(MIDNIGHT, MIDNIGHT + timedelta(days=days, hours=1))


@dataclass
class World:
    """Replicas that start late, and what a daemon would have seen of them."""

    foreseen: TrafficHistory
    traffic: TrafficHistory
    ready_at: list[datetime] = field(default_factory=lambda: [MIDNIGHT] * 20)
    recent: list[PastDecision] = field(default_factory=list)

    def demand_at(self, at: datetime) -> float:
        return _at(self.traffic, at)

    def replicas(self, now: datetime) -> Replicas:
        starting = tuple(ready for ready in self.ready_at if ready > now)
        return Replicas(len(self.ready_at), len(self.ready_at) - len(starting), starting)

    def scale(self, desired: int, now: datetime) -> OutcomeKind:
        if desired == len(self.ready_at):
            return OutcomeKind.UNCHANGED
        while len(self.ready_at) < desired:
            self.ready_at.append(now + timedelta(seconds=LEAD_SECONDS))
        del self.ready_at[desired:]
        return OutcomeKind.APPLIED


def fill_log(
    store: DecisionStore,
    workload: str = "grammar",
    hours: float = 24.0,
    interval_seconds: int = 60,
    tick: Callable[[ScalingContext], None] = lambda _: None,
) -> World:
    """Decide from MIDNIGHT on and store it; `tick` hears of every context."""
    foreseen = day_of_traffic(days=max(1, int(-(-hours // 24))))
    world = World(foreseen, with_surge(foreseen, SURGE_AT, 8, 30, 1.5))
    for number in range(int(hours * 3600 / interval_seconds)):
        now = MIDNIGHT + timedelta(seconds=number * interval_seconds)
        context = _context(world, workload, now, interval_seconds, number + 1)
        decision = decide(context)
        decision_id = store.record(context, decision)
        kind = world.scale(decision.desired, now)
        store.record_outcome(decision_id, now, Outcome(kind))
        world.recent = [*world.recent[-10:], _past(context, decision.recommended, decision.desired)]
        tick(context)
    return world


def policy_run(
    world: World, label: str, policy: str, ready: Floats, clairvoyant_pod_hours: float
) -> PolicyRun:
    """What a run of a day with these replicas, minute by minute, would have come to."""
    demand = world.traffic.values[: len(ready)]
    p99 = np.array([latency(d, r) for d, r in zip(demand, ready, strict=True)])
    worst = int(np.argmax(p99))
    hours = float(ready.sum()) / 60
    return PolicyRun(
        label=label,
        policy=policy,
        pod_hours=hours,
        excess=hours / clairvoyant_pod_hours - 1,
        bad_ratio=float(demand[p99 > 1.0].sum() / demand.sum()),
        p99_seconds=float(np.quantile(p99, 0.99)),
        worst_minute_p99=float(p99[worst]),
        worst_minute_at=MIDNIGHT + timedelta(minutes=worst),
        minutes_p99_over_slo=int((p99 > 1.0).sum()),
        scale_ups=int((np.diff(ready) > 0).sum()),
        scale_downs=int((np.diff(ready) < 0).sum()),
        max_replicas=int(ready.max()),
        starts_at=MIDNIGHT,
        p99_by_minute=p99,
        demand_by_minute=demand,
        ready_by_minute=ready,
    )


def latency(demand_qps: float, ready: float) -> float:
    """P99 in seconds: 0.5 when idle, the objective at capacity, steep above it."""
    load = demand_qps / (ready * QPS_PER_REPLICA)
    return min(10.0, 0.5 + 0.5 * load**6 if load <= 1 else 1.0 + 30 * (load - 1))


def _context(
    world: World, workload: str, now: datetime, interval_seconds: int, epoch: int
) -> ScalingContext:
    demand, replicas = world.demand_at(now), world.replicas(now)
    blind = OUTAGE[0] <= now < OUTAGE[1]
    stale = Problem(ProblemSource.DEMAND, ProblemKind.STALE, "newest sample is 240 s old")
    return ScalingContext(
        workload=workload,
        now=now,
        interval_seconds=float(interval_seconds),
        settings=SETTINGS,
        capacity=Capacity(QPS_PER_REPLICA),
        lead_time=LeadTime(150.0, LEAD_SECONDS, 15.0),
        replicas=replicas,
        observation=Observation(
            at=now - timedelta(seconds=15),
            demand_qps=demand,
            requests_running=demand * 0.4,
            requests_waiting=0.0,
            latency_p99_seconds=latency(demand, max(1, replicas.ready)),
        ),
        forecast=_forecast(world, now),
        recent=tuple(world.recent),
        problems=(stale,) if blind else (),
        epoch=epoch,
    )


def _forecast(world: World, now: datetime) -> Forecast:
    """The foreseen day, scaled to the level that is seen now, and a little wrong in waves."""
    level = world.demand_at(now) / _at(world.foreseen, now)
    minute = (now - MIDNIGHT).total_seconds() / 60
    lead = int(LEAD_SECONDS // 60)
    ready_at = now + timedelta(minutes=lead)
    ahead = [
        _at(world.foreseen, now + timedelta(minutes=m)) * level * (1 + 0.03 * np.sin(minute / 23))
        for m in range(lead + 2)
    ]
    return Forecast(
        issued_at=now,
        windows=(
            _window("order", ready_at, ready_at, max(ahead[lead:])),
            _window("hold", now, ready_at, max(ahead)),
        ),
        model="combined",
        fitted_at=MIDNIGHT,
        history_end=now,
        skill=0.6,
    )


def _window(name: str, starts_at: datetime, ready_at: datetime, median: float) -> WindowForecast:
    points = ((level, median * (1 + 0.2 * (level - 0.5))) for level in LEVELS)
    return WindowForecast(
        name=name,
        starts_at=starts_at,
        ends_at=ready_at + timedelta(minutes=1),
        median_qps=median,
        scale=0.03,
        quantiles=tuple(QuantilePoint(*point) for point in points),
    )


def _past(context: ScalingContext, recommended: int, desired: int) -> PastDecision:
    return PastDecision(
        context.now, context.replicas.spec, recommended, desired, context.demand_qps
    )


def _at(traffic: TrafficHistory, at: datetime) -> float:
    minute = (at - traffic.start).total_seconds() / traffic.step_seconds
    return float(np.interp(minute, np.arange(len(traffic)), traffic.values))
