"""Replay: one policy on one trace, through the daemon's own loop on virtual time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from forecaster.combine import default_forecaster
from forecaster.history import TrafficHistory
from scaler.loop import ControlLoop, Ports
from scaler.rounds import Rounds
from scaler.settings import Workload
from simulator.clock import VirtualClock, run_jobs
from simulator.engines.fluid import FluidEngine
from simulator.fleet import FleetSettings, SimulatedFleet
from simulator.pod import PodProfile
from simulator.scorecard import Scorecard, score
from storage.memory import MemoryDecisionStore


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to the fleet, whoever scales it: same arrivals and cold starts for all."""

    traffic: TrafficHistory
    starts_at: datetime
    until: datetime
    fleet: FleetSettings
    profile: PodProfile

    def new_fleet(self) -> SimulatedFleet:
        make_engine = partial(FluidEngine, self.profile, seed=self.fleet.seed)
        return SimulatedFleet(self.traffic, self.starts_at, self.fleet, make_engine)


def replay(
    scenario: Scenario,
    workload: Workload,
    interval_seconds: float,
    refit_interval_seconds: float = 1800.0,
) -> Scorecard:
    """Run a workload's policy over a scenario and score it."""
    fleet = scenario.new_fleet()
    loop = ControlLoop(
        workload.loop_settings(interval_seconds),
        Ports(fleet, fleet, MemoryDecisionStore()),
        default_forecaster(workload.history.time_zone),
    )
    rounds = Rounds({workload.name: loop})
    clock = VirtualClock(scenario.starts_at)
    run_jobs(
        rounds.jobs(interval_seconds, refit_interval_seconds), clock, scenario.until, fleet.advance
    )
    return score(
        workload.policy.name, fleet, workload.slo.p99_seconds, workload.capacity.qps_per_replica
    )


def static_peak(scenario: Scenario, qps_per_replica: float) -> int:
    """Replicas that carry the highest minute of the scenario, known only afterwards."""
    step = timedelta(seconds=scenario.traffic.step_seconds)
    served = scenario.traffic.between(scenario.starts_at, scenario.until + step)
    return int(-(-float(served.values.max()) // qps_per_replica))
