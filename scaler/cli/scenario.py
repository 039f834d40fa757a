"""From what is asked of a replay to its scenario and the runs in it.

Knows what a run gets where nothing was said, and what a scenario cannot hold.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic.alias_generators import to_camel

from forecaster.history import TrafficHistory
from policies.registry import BY_THE_CLOCK, POLICIES
from scaler.cli.output import BadInputError, iso_time, trace_from
from scaler.cli.pods import check_exact, check_fluid, check_room
from scaler.settings import History, Workload, load_settings
from simulator.balancers import Balancer
from simulator.engines.engine import Retries
from simulator.fleet import FleetSettings
from simulator.lifecycle import ColdStart, Lifecycle
from simulator.pace import pace_of
from simulator.pod import PodProfile
from simulator.replay import (
    Scenario,
    complete_parameters,
    first_replicas,
    policy_defaults,
    static_peak,
    usual_most,
)
from simulator.schedules import hourly_schedules
from simulator.traces.edit import cut, scaled_to_peak
from simulator.traces.grid import aligned, first_start, fits, fitting_step
from simulator.whatif import Run, warmup

FEWEST_REQUESTS = 100
"""A P99 of fewer says nothing."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all policies of one call share."""

    profile: PodProfile
    lifecycle: Lifecycle
    engine: str
    scale: int
    balancer: Balancer
    dispersion: float
    retries: Retries
    seed: int
    workload: dict[str, Any]
    interval_seconds: float

    @property
    def cold_start(self) -> ColdStart:
        return self.lifecycle.cold_start

    @property
    def slo_seconds(self) -> float:
        return float(self.workload.get("slo", {}).get("p99Seconds", 1.0))


def traffic_of(
    path: Path, peak_qps: float | None, start: str | None, end: str | None
) -> TrafficHistory:
    try:
        traffic = cut(trace_from(path), iso_time("--start", start), iso_time("--end", end))
        return traffic if peak_qps is None else scaled_to_peak(traffic, peak_qps)
    except ValueError as error:
        raise BadInputError(str(error)) from error


def scenario_of(traffic: TrafficHistory, setting: Setting, warmup_days: float | None) -> Scenario:
    """Scored from the first whole step after the warm-up on."""
    step = _history_step(traffic, setting.workload)
    traffic = aligned(traffic, step)
    try:
        starts_at = first_start(traffic, traffic.start + warmup(traffic.days, warmup_days), step)
    except ValueError as error:
        raise BadInputError(str(error)) from error
    scored = traffic.between(starts_at, traffic.end)
    if not np.nansum(scored.values) * traffic.step_seconds >= FEWEST_REQUESTS:
        raise BadInputError(
            f"{traffic.series}: hardly any traffic from {starts_at} on, expected at least "
            f"{FEWEST_REQUESTS} requests to score"
        )
    try:
        capacity = setting.profile.capacity_within(setting.slo_seconds)
    except ValueError as error:
        raise BadInputError(f"{error}; --slo sets the objective") from error
    cold_seconds = setting.cold_start.quantile(0.95)
    fleet = FleetSettings(
        setting.lifecycle,
        cold_seconds,
        first_replicas(traffic, starts_at, cold_seconds, capacity),
        dispersion=setting.dispersion,
        seed=setting.seed,
    )
    if setting.engine == "exact":
        check_exact(setting.profile, setting.lifecycle, setting.balancer, setting.retries)
    else:
        check_fluid(setting.balancer)
    return Scenario(
        traffic=traffic,
        starts_at=starts_at,
        until=traffic.end,
        fleet=fleet,
        profile=setting.profile,
        engine=setting.engine,
        balancer=setting.balancer,
        slo_seconds=setting.slo_seconds,
        retries=setting.retries,
        scale=setting.scale,
    )


def run_of(name: str, scenario: Scenario, setting: Setting) -> Run:
    if name not in POLICIES:
        known = ", ".join(sorted(POLICIES))
        raise BadInputError(f"--policy: {name!r} is not a policy; there are {known}")
    capacity = setting.profile.capacity_within(setting.slo_seconds)
    peak = static_peak(scenario, capacity)
    defaults = policy_defaults(name, setting.profile, capacity, peak)
    document = {
        "capacity": {
            "qpsPerReplica": capacity,
            "saturationQps": setting.profile.saturation_qps,
        },
        "minReplicas": 1,
        "maxReplicas": usual_most(scenario, capacity),
        "leadTime": {
            "p50Seconds": setting.cold_start.quantile(0.5),
            "p95Seconds": setting.cold_start.quantile(0.95),
        },
        **setting.workload,
    }
    given = document.get("policy", {})
    own = given.get("parameters", {}) if given.get("name", "predictive") == name else {}
    target = {key: given[key] for key in ("targetBadRatio",) if key in given}
    document["policy"] = {
        **target,
        "name": name,
        "parameters": complete_parameters(name, own, defaults),
        "schedules": _schedules(name, given, scenario, capacity),
    }
    days = (scenario.until - scenario.traffic.start).days + 1
    history = document.get("history", {})
    document["history"] = {
        **history,
        "days": min(history.get("days", 28), days),
        "stepSeconds": _history_step(scenario.traffic, setting.workload),
    }
    workload = Workload.model_validate(document)
    interval = pace_of(workload, setting.interval_seconds).interval_seconds
    if setting.engine == "exact":
        check_room(setting.profile, workload.max_replicas, setting.scale)
    return Run(workload, interval)


def _history_step(traffic: TrafficHistory, workload: dict[str, Any]) -> int:
    """The settings' own, else the usual one or one near to it that the trace can tell."""
    own = workload.get("history", {}).get("stepSeconds")
    if own is None:
        return fitting_step(traffic.step_seconds, History().step_seconds)
    if not fits(traffic.step_seconds, int(own)):
        raise BadInputError(
            f"{traffic.series}: its steps of {traffic.step_seconds} s make no history of "
            f"history.stepSeconds {own}: expected one that divides them or is a multiple of them"
        )
    return int(own)


def _schedules(
    name: str, given: dict[str, Any], scenario: Scenario, capacity: float
) -> list[dict[str, Any]]:
    """The settings' own, else what the history before the scored days suggests."""
    if name not in BY_THE_CLOCK:
        return []
    if given.get("schedules"):
        return list(given["schedules"])
    past = scenario.traffic.between(scenario.traffic.start, scenario.starts_at)
    try:
        found = hourly_schedules(past, capacity)
    except ValueError as error:
        raise BadInputError(f"--policy: {name}: {error}; --warmup-days gives it some") from error
    return [{to_camel(key): value for key, value in asdict(each).items()} for each in found]


def workload_document(
    config: Path | None, slo_seconds: float | None, time_zone: str | None
) -> dict[str, Any]:
    """The first workload of a settings file, or the least that a workload needs."""
    document: dict[str, Any] = {
        "name": "trace",
        "target": {"name": "trace", "mode": "shadow"},
        "demand": {"query": "trace"},
    }
    if config is not None:
        workload = load_settings(config).workloads[0]
        document = workload.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if slo_seconds is not None:
        document["slo"] = {"p99Seconds": slo_seconds}
    if time_zone is not None:
        document["history"] = {**document.get("history", {}), "timeZone": time_zone}
    return document


def shown_settings(setting: Setting) -> dict[str, Any]:
    return {
        "engine": setting.engine,
        "scale": setting.scale,
        **_shown_balancer(setting.balancer, setting.profile),
        "pod_profile": setting.profile.name,
        "cold_start_p50_seconds": setting.cold_start.quantile(0.5),
        "cold_start_p95_seconds": setting.cold_start.quantile(0.95),
        "drain_seconds": setting.lifecycle.drain_seconds,
        "timeout_seconds": setting.profile.timeout_seconds,
        "warm_nodes": setting.cold_start.warm_nodes,
        "missing_nodes": setting.cold_start.node_missing_ratio,
        "slow_start_seconds": setting.lifecycle.slow_start_seconds,
        "slow_start_factor": setting.lifecycle.slow_start_factor,
        "slow_pods": setting.lifecycle.slow_ratio,
        "slow_factor": setting.lifecycle.slow_factor,
        "crashes_per_pod_hour": setting.lifecycle.crashes_per_pod_hour,
        "dispersion": setting.dispersion,
        "retry_ratio": setting.retries.ratio,
        "retry_delay_seconds": setting.retries.delay_seconds,
        "seed": setting.seed,
        "slo_p99_seconds": setting.slo_seconds,
    }


def _shown_balancer(routed: Balancer, profile: PodProfile) -> dict[str, Any]:
    gateway = routed.gateway
    return {
        "balancer": routed.balancing.value,
        "clients": routed.clients,
        "connections": routed.connections,
        "connection_churn": routed.churn_per_second,
        "queue": "pod" if gateway is None else "gateway",
        "gateway_cap": None if gateway is None else gateway.pod_limit or profile.batch,
        "max_waiting": profile.max_waiting if gateway is None else gateway.max_waiting,
    }
