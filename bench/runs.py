"""Runs as the benchmarks make them: a policy that is told what it needs to know of a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scaler.settings import Workload
from simulator.pace import pace_of
from simulator.replay import Scenario, policy_defaults, static_peak
from simulator.whatif import Run

LONGEST_HISTORY_DAYS = 28


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
            "maxReplicas": 2 * peak + 2,
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


def peak_kib() -> int:
    """The most memory that this process has held; getrusage also counts what the parent process
    had before this one was started."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
