"""The demo: the daemon's own loop on an embedded fleet, and what came of it.

A generated service of 200,000 requests a second at its peak is served for a day (or more) after
two weeks of history, on virtual time. Beside it, the same arrivals meet a fleet of fixed size, the
HPA and a purely reactive policy, so that there is something to compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from scaler.loop import Ports
from scaler.settings import Settings, Workload
from scaler.wiring import Watch, build_rounds
from scaler.workers import process_pool
from simulator.clock import VirtualClock, run_jobs
from simulator.fleet import FleetSettings
from simulator.lifecycle import ColdStart, Lifecycle, Phase
from simulator.pod import PROFILES
from simulator.replay import Scenario, first_replicas, reactive_parameters, replay, static_peak
from simulator.scorecard import Scorecard, score
from simulator.traces.edit import with_surge
from simulator.traces.generate import Diurnal, generate
from storage.decisions import SqlDecisionStore

WORKLOAD = "grammar"
HISTORY_START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday: the day after two weeks is one too
HISTORY_DAYS = 14
PROFILE = PROFILES["h100-1200"]
COLD_START = Phase("start", p50_seconds=150.0, p95_seconds=180.0)
SEED = 1
SURGE_AFTER = timedelta(hours=15, minutes=10)
REACTIVE_INTERVAL_SECONDS = 5.0
HPA_INTERVAL_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class DemoRun:
    """A finished demo: ours first, then what it is compared with, and how that was set."""

    settings: Settings
    scorecards: tuple[Scorecard, ...]
    starts_at: datetime
    until: datetime
    parameters: dict[str, dict[str, float]]


def demo_settings(database_url: str, days: int) -> Settings:
    """The settings file that the demo would have; only its ports are embedded ones."""
    return Settings.model_validate(
        {
            "prometheus": {"url": "http://embedded.invalid"},
            "database": {"url": database_url},
            "workers": 1,
            "workloads": [_workload("predictive", {}, days)],
        }
    )


def scenario(days: int) -> Scenario:
    """Two weeks of history, then the days to serve, each with a surge nobody could foresee."""
    starts_at = HISTORY_START + timedelta(days=HISTORY_DAYS)
    traffic = generate(Diurnal(), HISTORY_START, HISTORY_DAYS + days, SEED)
    for day in range(days):
        at = starts_at + timedelta(days=day) + SURGE_AFTER
        traffic = with_surge(traffic, at, rise_minutes=10, fade_minutes=30, ratio=1.2)
    return Scenario(
        traffic=traffic,
        starts_at=starts_at,
        until=starts_at + timedelta(days=days),
        fleet=FleetSettings(
            Lifecycle(ColdStart((COLD_START,))),
            COLD_START.p95_seconds,
            first_replicas(
                traffic, starts_at, COLD_START.p95_seconds, PROFILE.capacity_within(1.0)
            ),
            seed=SEED,
        ),
        profile=PROFILE,
    )


def run_demo(
    settings: Settings,
    plan: Scenario,
    engine: Engine,
    watch: Watch,
    clock: VirtualClock,
    pace: Callable[[datetime], None],
) -> DemoRun:
    """Serve the days through the daemon's wiring while the comparisons run beside it.

    `pace` is called before each moment of virtual time, and may wait or draw.
    """
    workload = settings.workloads[0]
    fleet = plan.new_fleet()
    store = SqlDecisionStore(engine)
    rounds = build_rounds(settings, lambda _: Ports(fleet, fleet, store), watch)

    def advance(at: datetime) -> None:
        pace(at)
        fleet.advance(at)

    with process_pool(1) as pool:
        baselines = _baselines(plan, workload)
        others = [pool.submit(replay, *arguments) for arguments in baselines]
        jobs = rounds.jobs(settings.interval_seconds, settings.refit_interval_seconds)
        run_jobs(jobs, clock, plan.until, advance)
        ours = score("predictive", fleet, workload.slo.p99_seconds, _capacity(workload))
        parameters = {other.policy.name: other.policy.parameters for _, other, _ in baselines}
        cards = (ours, *_results(others))
        return DemoRun(settings, cards, plan.starts_at, plan.until, parameters)


def _results(futures: list[Future[Scorecard]]) -> list[Scorecard]:
    return [future.result() for future in futures]


def _baselines(plan: Scenario, ours: Workload) -> list[tuple[Scenario, Workload, float]]:
    days = (plan.until - plan.starts_at).days
    capacity = _capacity(ours)
    reactive = reactive_parameters(PROFILE, capacity)
    static = {"replicas": float(static_peak(plan, capacity))}
    return [
        (
            plan,
            Workload.model_validate(_workload("asymmetric_concurrency", reactive, days)),
            REACTIVE_INTERVAL_SECONDS,
        ),
        (plan, Workload.model_validate(_workload("hpa", {}, days)), HPA_INTERVAL_SECONDS),
        (plan, Workload.model_validate(_workload("static", static, days)), 60.0),
    ]


def _workload(policy: str, parameters: dict[str, float], days: int) -> dict[str, object]:
    return {
        "name": WORKLOAD,
        "target": {"name": WORKLOAD, "namespace": "llm", "mode": "scale"},
        "demand": {"query": "sum(rate(gateway_requests_total[1m]))"},
        "history": {"days": HISTORY_DAYS + days},
        "capacity": {"qpsPerReplica": int(PROFILE.capacity_within(1.0))},
        "leadTime": {"p50Seconds": COLD_START.p50_seconds, "p95Seconds": COLD_START.p95_seconds},
        "policy": {"name": policy, "parameters": parameters},
        "minReplicas": 2,
        "maxReplicas": 400,
    }


def _capacity(workload: Workload) -> float:
    return workload.capacity.qps_per_replica
