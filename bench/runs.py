"""Runs as the benchmarks make them: a policy that is told what it needs to know of a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from scaler.settings import Workload
from simulator.fleet import FleetSettings
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pace import pace_of
from simulator.pod import PROFILES
from simulator.replay import Scenario, first_replicas, policy_defaults, static_peak, usual_most
from simulator.traces.edit import scaled_to_peak
from simulator.traces.trace_file import read_trace
from simulator.whatif import Run

LONGEST_HISTORY_DAYS = 28
PROFILE = PROFILES["h100-1200"]
PEAK_QPS = 200_000


def scenario_of(path: Path, cold_seconds: int) -> Scenario:
    """The second half of a trace, scaled to a peak of 200,000 requests a second."""
    traffic = scaled_to_peak(read_trace(path), PEAK_QPS)
    starts_at = traffic.start + timedelta(days=int(traffic.days / 2))
    first = first_replicas(traffic, starts_at, cold_seconds, PROFILE.capacity_within(1.0))
    fleet = FleetSettings(Lifecycle(constant_cold_start(cold_seconds)), cold_seconds, first)
    return Scenario(traffic, starts_at, traffic.end, fleet, PROFILE)


def run_of(
    scenario: Scenario,
    policy: str,
    parameters: Mapping[str, float] | None = None,
    every_seconds: float = 15.0,
) -> Run:
    """At the policy's own pace, or scraped and decided on every so many seconds, with at most four
    weeks of the scenario's history; without `parameters` those of its own that depend on the
    pods."""
    profile = scenario.profile
    capacity, cold_seconds = (
        profile.capacity_within(scenario.slo_seconds),
        scenario.fleet.lead_p95_seconds,
    )
    peak = static_peak(scenario, capacity)
    own = policy_defaults(policy, profile, capacity, peak) if parameters is None else parameters
    days = (scenario.until - scenario.traffic.start).days + 1
    workload = Workload.model_validate(
        {
            "name": "bench",
            "target": {"name": "bench", "mode": "shadow"},
            "demand": {"query": "trace"},
            "capacity": {"qpsPerReplica": capacity, "saturationQps": profile.saturation_qps},
            "maxReplicas": usual_most(scenario, capacity),
            "leadTime": {
                "p50Seconds": cold_seconds,
                "p95Seconds": cold_seconds,
                "metricLagSeconds": every_seconds,
            },
            "history": {"days": min(LONGEST_HISTORY_DAYS, days)},
            "policy": {"name": policy, "parameters": dict(own)},
        }
    )
    return Run(workload, pace_of(workload, every_seconds).interval_seconds)
