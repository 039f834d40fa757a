"""Scorecard: what a fleet's run was worth, in requests, latency and pod-hours.

bad(minute) = failed + max(0, late - 1 % of the minute's requests): a healthy minute counts zero
although a P99 objective lets a few of its requests be late; an overloaded one counts nearly all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from forecaster.history import Floats
from simulator.clairvoyant import need, optimum_pod_slots
from simulator.fleet import SimulatedFleet

CLAIRVOYANT_SLOT_SECONDS = 15
LATE_ALLOWANCE = 0.01
LATENCY_EDGES = np.geomspace(0.01, 12.0, 90)
"""Where the latency histogram of a run is cut, in seconds."""
LEVELS = (0.5, 0.95, 0.99, 0.999)


@dataclass(frozen=True)
class Scorecard:
    """`excess` is pod-hours over the clairvoyant optimum, minus 1; ratios are of all requests."""

    policy: str
    qps_per_replica: float
    pod_hours: float
    clairvoyant_pod_hours: float
    requests: int
    bad_requests: float
    late_ratio: float
    failed_ratio: float
    p50_seconds: float
    p95_seconds: float
    p99_seconds: float
    p999_seconds: float
    minutes: int
    minutes_p99_over_slo: int
    worst_minute: int
    worst_minute_p99: float
    scale_ups: int
    scale_downs: int
    max_replicas: int
    p99_by_minute: Floats
    bad_by_minute: Floats
    demand_by_minute: Floats
    ready_by_minute: Floats
    billed_by_minute: Floats
    need_by_minute: Floats
    started_by_minute: Floats
    deleted_by_minute: Floats
    latency_seconds: Floats
    slower_shares: Floats

    @property
    def excess(self) -> float:
        return self.pod_hours / self.clairvoyant_pod_hours - 1

    @property
    def bad_ratio(self) -> float:
        return self.bad_requests / self.requests if self.requests else 0.0


def score(
    policy: str, fleet: SimulatedFleet, slo_seconds: float, qps_per_replica: float
) -> Scorecard:
    """Score whole minutes of a fleet's run; raises ValueError where there is none."""
    fleet.engine.finish()
    measured = fleet.engine.minutes(slo_seconds)
    minutes = len(measured.requests)
    if minutes == 0:
        raise ValueError("nothing to score: the run is shorter than a minute")
    whole = slice(0, minutes * 60)
    overall = fleet.engine.quantiles(LEVELS)
    late, failed, requests = measured.late, measured.failed, measured.requests
    bad = failed + np.maximum(0.0, late - LATE_ALLOWANCE * requests)
    by_minute = measured.p99
    # What failed has no latency; more than one in a hundred of them is no P99 within the objective.
    over = (by_minute > slo_seconds) | (late + failed > LATE_ALLOWANCE * requests)
    worst = int(np.nanargmax(by_minute)) if np.isfinite(by_minute).any() else 0
    total = max(float(requests.sum()), 1.0)
    return Scorecard(
        policy=policy,
        qps_per_replica=qps_per_replica,
        pod_hours=float(fleet.billed_by_second[whole].sum()) / 3600,
        clairvoyant_pod_hours=_clairvoyant_hours(fleet, minutes * 60, qps_per_replica),
        requests=round(total),
        bad_requests=float(bad.sum()),
        late_ratio=float(late.sum()) / total,
        failed_ratio=float(failed.sum()) / total,
        p50_seconds=overall[0],
        p95_seconds=overall[1],
        p99_seconds=overall[2],
        p999_seconds=overall[3],
        minutes=minutes,
        minutes_p99_over_slo=int(over.sum()),
        worst_minute=worst,
        worst_minute_p99=float(by_minute[worst]),
        scale_ups=fleet.scale_ups,
        scale_downs=fleet.scale_downs,
        max_replicas=int(fleet.billed_by_second[whole].max()),
        p99_by_minute=by_minute,
        bad_by_minute=bad,
        demand_by_minute=requests / 60,
        ready_by_minute=_minutes(fleet.ready_by_second[whole]),
        billed_by_minute=_minutes(fleet.billed_by_second[whole]),
        started_by_minute=fleet.started_by_second[whole].reshape(-1, 60).sum(axis=1),
        deleted_by_minute=fleet.deleted_by_second[whole].reshape(-1, 60).sum(axis=1),
        latency_seconds=LATENCY_EDGES,
        slower_shares=fleet.engine.slower_shares(LATENCY_EDGES),
        need_by_minute=need(requests / 60, qps_per_replica).astype(np.float64),
    )


def _minutes(by_second: Floats) -> Floats:
    return np.asarray(by_second.reshape(-1, 60).mean(axis=1), dtype=np.float64)


def _clairvoyant_hours(fleet: SimulatedFleet, seconds: int, qps_per_replica: float) -> float:
    arrivals = fleet.engine.arrivals(0, seconds)
    demand = arrivals.reshape(-1, CLAIRVOYANT_SLOT_SECONDS).mean(axis=1)
    cold = fleet.settings.lifecycle.cold_start.quantile(0.5)
    return clairvoyant_pod_hours(demand, cold, qps_per_replica)


def clairvoyant_pod_hours(demand: Floats, cold_seconds: float, qps_per_replica: float) -> float:
    """The optimum for demand in slots of CLAIRVOYANT_SLOT_SECONDS."""
    slot = CLAIRVOYANT_SLOT_SECONDS
    cold_slots = round(cold_seconds / slot)
    return optimum_pod_slots(need(demand, qps_per_replica), cold_slots) * slot / 3600
