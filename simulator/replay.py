"""Replay: one policy on one trace, through the daemon's own loop on virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from forecaster.history import Floats, TrafficHistory
from policies.decision import Reason
from policies.registry import POLICIES
from scaler.loop import ControlLoop, Ports, TickResult
from scaler.rounds import Failure, Rounds
from scaler.settings import Workload
from simulator.balancers import USUAL_BALANCER, Balancer
from simulator.clock import VirtualClock, run_jobs
from simulator.engines.engine import NO_RETRIES, Engine, Retries
from simulator.engines.registry import ENGINES, EngineSettings
from simulator.fleet import FleetSettings, SimulatedFleet
from simulator.forecasters import forecaster_for
from simulator.pod import PodProfile
from simulator.scorecard import Scorecard, score
from simulator.sweep.plan import FIRST_HEADROOM
from storage.memory import MemoryDecisionStore

REACTIVE_UTILIZATION = 0.75
"""Share of the benchmarked concurrency that the reactive baseline aims at. At the full figure its
loop overshoots: concurrency rises faster than load near saturation."""
OnProgress = Callable[[datetime, float], None]
PROGRESS_STEP = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens to the fleet, whoever scales it: same arrivals and cold starts for all.

    With a `scale` above 1 the exact engine simulates one pod in so many; the fleet keeps all.
    Raises ValueError where no step of the traffic begins at `starts_at`.
    """

    traffic: TrafficHistory
    starts_at: datetime
    until: datetime
    fleet: FleetSettings
    profile: PodProfile
    engine: str = "fluid"
    balancer: Balancer = USUAL_BALANCER
    slo_seconds: float = 1.0
    retries: Retries = NO_RETRIES
    scale: int = 1

    def __post_init__(self) -> None:
        if (self.starts_at - self.traffic.start) % self.traffic.step:
            # The traffic would be served some seconds too early.
            raise ValueError(f"no step of {self.traffic.series} begins at {self.starts_at}")

    def new_fleet(self) -> SimulatedFleet:
        settings = EngineSettings(
            self.fleet.seed, self.balancer, self.slo_seconds, self.retries, self.scale
        )

        def make_engine(rates: Floats) -> Engine:
            return ENGINES[self.engine](self.profile, rates, settings)

        return SimulatedFleet(self.traffic, self.starts_at, self.fleet, make_engine)


def first_replicas(
    traffic: TrafficHistory, starts_at: datetime, cold_seconds: float, capacity: float
) -> int:
    """What the first cold start needs, and a little more: nothing ordered now could serve it, so
    that no policy is to blame."""
    until = starts_at + timedelta(seconds=cold_seconds + traffic.step_seconds)
    known = traffic.between(starts_at, until).values
    highest = max((rate for rate in known if math.isfinite(rate)), default=0.0)
    return max(1, math.ceil(FIRST_HEADROOM * highest / capacity))


class ReplayError(Exception):
    """A policy that lacks what it decides by: its fleet stood still and is worth no score."""


@dataclass(slots=True)
class _Heard:
    """Whether a policy ever had something to go by. One that fails ends the replay: in life the
    next tick may go better, on virtual time the cause is the policy's own."""

    policy: str
    never_decided: bool = True
    cause: str = "it was never asked"

    def after_tick(self, result: TickResult | Failure, _: float) -> None:
        if isinstance(result, Failure):
            raise ReplayError(
                f"policy {self.policy} failed at {result.at.isoformat()}: {result.message}"
            )
        if result.decision.steps[0].reason is Reason.NO_INPUT:
            self.cause = result.decision.steps[0].message
        else:
            self.never_decided = False


def replay(
    scenario: Scenario,
    workload: Workload,
    interval_seconds: float,
    refit_interval_seconds: float = 86_400.0,
    on_progress: OnProgress = lambda _, __: None,
) -> Scorecard:
    """Run a workload's policy over a scenario and score it.

    `on_progress` is told the virtual time and the requests of the minutes since it was told last.
    Raises ReplayError where the policy had nothing to go by throughout.
    """
    fleet = scenario.new_fleet()
    told = scenario.starts_at

    def advance(at: datetime) -> None:
        nonlocal told
        fleet.advance(at)
        if at - told >= PROGRESS_STEP or at == scenario.until:
            first, last = ((t - scenario.starts_at).total_seconds() for t in (told, at))
            on_progress(at, float(fleet.engine.arrivals(int(first), int(last)).sum()))
            told = at

    loop = ControlLoop(
        workload.loop_settings(interval_seconds),
        Ports(fleet, fleet, MemoryDecisionStore()),
        forecaster_for(workload, interval_seconds, scenario.profile, scenario.traffic),
    )
    heard = _Heard(workload.policy.name)
    rounds = Rounds({workload.name: loop}, heard.after_tick)
    clock = VirtualClock(scenario.starts_at)
    run_jobs(rounds.jobs(interval_seconds, refit_interval_seconds), clock, scenario.until, advance)
    if heard.never_decided:
        raise ReplayError(f"policy {workload.policy.name} never decided: {heard.cause}")
    return score(
        workload.policy.name, fleet, workload.slo.p99_seconds, workload.capacity.qps_per_replica
    )


def reactive_parameters(
    profile: PodProfile, qps_per_replica: float, utilization: float = REACTIVE_UTILIZATION
) -> dict[str, float]:
    """The reactive baseline's target: a share of the concurrency at which P99 meets the SLO."""
    return {"targetConcurrency": profile.concurrency_at(qps_per_replica) * utilization}


BY_CONCURRENCY = (
    "asymmetric_concurrency",
    "knative_kpa",
    "ray_serve",
    "aibrix_apa_intended",
    "aibrix_apa_as_shipped",
    "aibrix_kpa",
)
"""Peers that go by the requests in flight on their pods."""


def policy_defaults(
    policy: str, profile: PodProfile, qps_per_replica: float, peak_replicas: int
) -> dict[str, float]:
    """What a policy needs to be told of a pod before it can run."""
    if policy in ("static", "peak_static"):
        return {"replicas": float(peak_replicas)}
    if policy in BY_CONCURRENCY:
        return reactive_parameters(profile, qps_per_replica)
    if policy == "seasonal_naive":
        return {"targetQps": qps_per_replica * REACTIVE_UTILIZATION}
    tokens = {"inputTokens": profile.input_tokens, "outputTokens": profile.output_tokens}
    if policy in ("wva_v1", "wva_v2", "dynamo") and profile.kv_tokens is not None:
        return {"kvCacheTokens": float(profile.kv_tokens), **tokens}
    return {}


def complete_parameters(
    policy: str, own: Mapping[str, float], defaults: Mapping[str, float]
) -> dict[str, float]:
    """A policy's own parameters, and what it needs to be told besides; where they name one of its
    knobs, they have chosen among them."""
    knobs = POLICIES[policy].knobs
    chosen = any(knob in own for knob in knobs)
    told = {name: value for name, value in defaults.items() if not (chosen and name in knobs)}
    return {**told, **own}


def usual_most(scenario: Scenario, qps_per_replica: float) -> int:
    """`maxReplicas` where nobody gave it: twice what the highest minute of the whole trace needs.

    Of the days before the scored ones as well: within a bound that past days exceed, their replay
    finds no margin that keeps a target.
    """
    return 2 * int(-(-float(np.nanmax(scenario.traffic.values)) // qps_per_replica)) + 2


def static_peak(scenario: Scenario, qps_per_replica: float) -> int:
    """Replicas that carry the highest minute of the scenario, known only afterwards."""
    step = timedelta(seconds=scenario.traffic.step_seconds)
    served = scenario.traffic.between(scenario.starts_at, scenario.until + step)
    return int(-(-float(np.nanmax(served.values)) // qps_per_replica))
