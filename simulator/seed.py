"""The seed case's own claims, reproduced: a grammar model at 200,000 requests a second.

Pods that saturate at 1,200 and at 750 requests a second, balancing by requests and by connections,
slow pods, cold starts of minutes and of seconds, reactive and predictive. Every request of the
steady states is simulated; the days are played in the fluid engine through the daemon's loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from scaler.settings import Workload
from simulator.engines.exact import ExactEngine
from simulator.fleet import FleetSettings
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pod import PROFILES, PodProfile
from simulator.replay import Scenario, reactive_parameters, replay, static_peak
from simulator.scorecard import Scorecard
from simulator.traces.edit import scaled_to_peak
from simulator.traces.generate import Diurnal, generate

PEAK_QPS = 200_000.0
SLO_SECONDS = 1.0
WARM_UP_SECONDS = 60
MEASURED_SECONDS = 60
DAYS_OF_HISTORY = 7
PROMISED_BAD_RATIO = 1e-4
UTILIZATIONS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)
START = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was tried, with what, and what came of it."""

    claim: str
    setting: str
    pods: int | None
    pod_hours: float | None
    p99_seconds: float | None
    late_ratio: float | None
    bad_ratio: float | None
    note: str = ""


def reproduce(on_step: Callable[[str], None] = lambda _: None) -> list[Row]:
    """The whole table; the same on every run."""
    rows: list[Row] = []
    for name, part in (
        ("saturation", saturation),
        ("fleets at the peak", fleets),
        ("balancers", balancers),
        ("days", days),
    ):
        on_step(name)
        rows += part()
    return rows


def saturation() -> list[Row]:
    """What one pod serves when it is offered a little more than it can, so that nothing times
    out within the measured minute."""
    rows = []
    for name, claimed in (("h100-1200", 1200), ("h100-750", 750)):
        profile = PROFILES[name]
        engine = _steady(profile, 1, 1.05 * profile.saturation_qps)
        served = _served_qps(engine)
        rows.append(
            Row(
                f"a pod serves {claimed} requests/s",
                name,
                1,
                None,
                None,
                None,
                None,
                f"saturates at {served:,.0f} requests/s ({served / claimed - 1:+.1%})",
            )
        )
    return rows


def fleets() -> list[Row]:
    """How many pods carry the peak with P99 inside the objective."""
    rows = []
    for name in ("h100-1200", "h100-750", "l40s"):
        profile = PROFILES[name]
        pods = math.ceil(PEAK_QPS / profile.capacity_within(SLO_SECONDS))
        engine = _steady(profile, pods, PEAK_QPS)
        rows.append(_row("P99 under 1 s at 200,000 requests/s", name, pods, engine))
    return rows


def balancers() -> list[Row]:
    """Load 0.7: equal pods, then a tenth of them half as slow again."""
    profile = PROFILES["h100-1200"]
    pods = math.ceil(PEAK_QPS / (0.7 * profile.saturation_qps))
    rows = []
    for kind, slow in (("equal pods", 0), ("10 % of pods 1.5 times slower", pods // 10)):
        for balancer in ("p2c", "round_robin", "pinned"):
            engine = _steady(profile, pods, PEAK_QPS, balancer, slow)
            rows.append(
                _row("power of two choices removes hot spots", f"{balancer}, {kind}", pods, engine)
            )
    return rows


def days() -> list[Row]:
    """A diurnal day under reactive and predictive scaling, with cold starts of minutes and of
    seconds. The reactive policy runs as hot as keeps its bad requests within a ten-thousandth,
    chosen in hindsight for each cold start, which no user could."""
    rows = []
    for cold_seconds in (300.0, 180.0, 60.0, 10.0):
        scenario = _day(cold_seconds)
        rows.append(
            _day_row(replay(scenario, _static(scenario), 60.0), "static peak", cold_seconds)
        )
        rows.append(_reactive(scenario, cold_seconds))
        ours = replay(scenario, _workload(scenario, "predictive", {}, cold_seconds), 15.0)
        rows.append(_day_row(ours, "predictive", cold_seconds))
    return rows


def _reactive(scenario: Scenario, cold_seconds: float) -> Row:
    """The hottest utilization of the benchmarked concurrency that keeps the promise."""
    for utilization in UTILIZATIONS:
        parameters = reactive_parameters(scenario.profile, _capacity(scenario), utilization)
        workload = _workload(scenario, "asymmetric_concurrency", parameters, cold_seconds)
        card = replay(scenario, workload, 5.0)
        if card.bad_ratio <= PROMISED_BAD_RATIO:
            break
    return _day_row(card, f"reactive at {utilization:.0%} of the benchmark", cold_seconds)


def _day_row(card: Scorecard, policy: str, cold_seconds: float) -> Row:
    return Row(
        "a day, by cold start and policy",
        f"{cold_seconds:g} s, {policy}",
        card.max_replicas,
        card.pod_hours,
        card.p99_seconds,
        card.late_ratio,
        card.bad_ratio,
        f"{card.excess:+.1%} over the optimum",
    )


def _steady(
    profile: PodProfile, pods: int, qps: float, balancer: str = "p2c", slow_pods: int = 0
) -> ExactEngine:
    """Whole minutes at one rate, the first of them to warm up."""
    engine = ExactEngine(profile, balancer, seed=1, max_pods=pods)
    engine.activate(pods - slow_pods)
    if slow_pods:
        engine.activate(slow_pods, speed_factor=1.5)
    engine.advance(np.full(WARM_UP_SECONDS + MEASURED_SECONDS, qps))
    return engine


def _served_qps(engine: ExactEngine) -> float:
    """Arrivals less what piled up, over the minute after the warm-up."""
    inside = engine.running + engine.waiting
    piled_up = float(inside[-1] - inside[WARM_UP_SECONDS - 1])
    arrived = float(engine.arrivals[WARM_UP_SECONDS:].sum())
    return (arrived - piled_up) / MEASURED_SECONDS


def _row(claim: str, setting: str, pods: int, engine: ExactEngine) -> Row:
    engine.flush()
    requests = float(engine.requests[1])
    failed = float(engine.timed_out[1] + engine.shed[1] + engine.failed[1])
    late = float(engine.late[1])
    bad = failed + max(0.0, late - 0.01 * requests)
    return Row(
        claim,
        setting,
        pods,
        None,
        engine.quantile(0.99, minute=1),
        late / requests,
        bad / requests,
    )


def _day(cold_seconds: float) -> Scenario:
    trace = generate(Diurnal(), START, DAYS_OF_HISTORY + 1, seed=1)
    starts_at = START + timedelta(days=DAYS_OF_HISTORY)
    profile = PROFILES["h100-1200"]
    traffic = scaled_to_peak(trace, PEAK_QPS)
    first = float(traffic.between(starts_at, traffic.end).values[0])
    replicas = math.ceil(1.2 * first / profile.capacity_within(SLO_SECONDS))
    life = Lifecycle(constant_cold_start(cold_seconds))
    fleet = FleetSettings(life, cold_seconds, replicas, seed=1)
    return Scenario(traffic, starts_at, traffic.end, fleet, profile)


def _capacity(scenario: Scenario) -> float:
    return scenario.profile.capacity_within(SLO_SECONDS)


def _static(scenario: Scenario) -> Workload:
    peak = static_peak(scenario, _capacity(scenario))
    return _workload(scenario, "static", {"replicas": float(peak)}, 0.0)


def _workload(
    scenario: Scenario, policy: str, parameters: dict[str, float], cold_seconds: float
) -> Workload:
    return Workload.model_validate(
        {
            "name": "grammar",
            "target": {"name": "grammar", "mode": "shadow"},
            "demand": {"query": "trace"},
            "capacity": {"qpsPerReplica": _capacity(scenario)},
            "leadTime": {"p50Seconds": cold_seconds, "p95Seconds": cold_seconds},
            "history": {"days": DAYS_OF_HISTORY + 1},
            "policy": {"name": policy, "parameters": parameters},
            "maxReplicas": 2 * static_peak(scenario, _capacity(scenario)),
        }
    )
