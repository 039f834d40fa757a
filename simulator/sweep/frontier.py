"""Frontier: each policy over its own one knob, or all over the target that they are asked to keep.

Knows which policies the compiled loop can play and what their knob is. A policy that it cannot
play is run in the full loop, setting by setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from forecaster.calendar import Calendar
from forecaster.combine import Combined, Rehearsal
from forecaster.demand import demand_of
from forecaster.history import Floats, TrafficHistory
from forecaster.spare import Recent, daily_peaks, highest_of, hourly_jumps
from policies.predictive import DEFAULT_MARGIN
from scaler.settings import Workload
from simulator.forecasters import plan_for
from simulator.pace import pace_of
from simulator.replay import Scenario
from simulator.sweep import loop
from simulator.sweep.calibrate import (
    DAILY_SECONDS,
    PRIOR_DAYS,
    SPARE_SECONDS,
    Tried,
    bridged,
    choose,
    rehearsed,
)
from simulator.sweep.plan import Options, Plan, Rows, SweepRun, fluid_pod
from simulator.sweep.tape import Tape, Walk, record
from simulator.traces.arrivals import on_step, poisson_counts, rates_by_second

SCALE = 1
"""Its place in a row of a tape."""
DAY_SECONDS = 86_400
LEAD_IN_SECONDS = 3600
"""Played before a day and not counted: longer than any window that a policy looks back."""
CALIBRATED_DAYS = 28
TARGETS = tuple(float(f"{10 ** (-tenths / 10):.1e}") for tenths in range(15, 54))
"""Ten in each power of ten: a level is then kept at nearly the setting that just keeps it."""
STEPS = 20
"""Settings of a peer above a fifth of what a pod carries, and as many below."""
UTILIZATIONS = tuple(
    float(use)
    for span in (np.geomspace(1.1, 0.2, STEPS), np.geomspace(0.18, 0.03, STEPS))
    for use in span.round(3)
)
"""Down to where a peer carries bursts of many times the present rate: a pod at a fifth of its rate
has far less than a fifth of its requests in flight."""
MARGINS = (-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
TARGET_KNOB, MARGIN_KNOB = "targetBadRatio", "margin"


@dataclass(frozen=True, slots=True)
class Peer:
    """A reactive policy that the compiled loop plays: its rule, its signal, and its windows."""

    kind: int
    knob: str
    options: Options


PEERS: dict[str, Peer] = {
    "asymmetric_concurrency": Peer(loop.ASYMMETRIC, "targetConcurrency", (1.0, 0.0, 20.0, 300.0)),
    "hpa": Peer(loop.HPA, "targetQps", (0.0, 0.0, 0.0, 300.0)),
    "knative_kpa": Peer(loop.KNATIVE, "targetConcurrency", (1.0, 0.0, 60.0, 60.0)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One point of a frontier; `tally` as the compiled loop gives it."""

    policy: str
    knob: str
    value: float
    tally: Floats


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """The scored part of a scenario as every setting meets it: requests by the second, and the
    history before."""

    scenario: Scenario
    arrivals: Floats
    demand: TrafficHistory

    @classmethod
    def of(cls, scenario: Scenario, step_seconds: int) -> World:
        past = scenario.traffic.between(scenario.traffic.start, scenario.starts_at)
        served = scenario.traffic.between(scenario.starts_at, scenario.until)
        seed = scenario.fleet.seed
        arrivals = poisson_counts(rates_by_second(served, scenario.fleet.dispersion, seed), seed)
        whole = len(arrivals) // step_seconds * step_seconds
        means = arrivals[:whole].reshape(-1, step_seconds).mean(axis=1)
        now = TrafficHistory(past.series, scenario.starts_at, step_seconds, means)
        if len(past):
            before = on_step(past, step_seconds)
            now = before.extended(now, len(before) + len(now))
        return cls(scenario, arrivals, now)

    def run(self, plan: Plan) -> SweepRun:
        """The scored part as a fleet meets it: the replicas that are there, the rate before."""
        past = self.scenario.traffic.between(self.scenario.traffic.start, self.scenario.starts_at)
        known = past.values[np.isfinite(past.values)]
        before = float(known[-1]) if len(known) else None
        return SweepRun(plan, self.arrivals, 1.0, self.scenario.fleet.initial_replicas, before)


def can_play(workload: Workload, scenario: Scenario, varied: Collection[str] = ()) -> bool:
    """Whether the compiled loop knows the policy, what it is told besides the parameters that are
    `varied`, and everything that happens to its pods."""
    life, profile = scenario.fleet.lifecycle, scenario.profile
    constant = life.cold_start.quantile(0.05) == life.cold_start.quantile(0.95)
    plain = not (life.slow_start_seconds or life.slow_ratio or life.crashes_per_pod_hour)
    return (
        scenario.engine == "fluid"
        and constant
        and plain
        and life.drain_seconds == loop.DRAIN_SECONDS
        and profile.max_waiting is None
        and not scenario.retries.ratio
        and _knows(workload, varied)
    )


def _knows(workload: Workload, varied: Collection[str]) -> bool:
    """A peer's windows and tolerances are compiled in as they are by default."""
    policy = workload.policy
    if policy.name == "predictive":
        return True
    peer = PEERS.get(policy.name)
    return peer is not None and policy.parameters.keys() <= {peer.knob, *varied}


def sweep(
    world: World, workload: Workload, interval_seconds: float, calibrated: bool
) -> list[Setting]:
    """Every setting of one policy. `calibrated`: the knob of a peer is the target, from which its
    own knob is calibrated daily by the same replay as ours."""
    name = workload.policy.name
    plan = plan_of(world.scenario, workload, interval_seconds)
    if name == "predictive":
        return _ours(world, workload, plan)
    peer = PEERS[name]
    if calibrated:
        return _calibrated_peer(world, plan, name, peer)
    run = world.run(plan)
    full = _full_use(world.scenario, plan, peer)
    return [
        Setting(name, peer.knob, use * full, run.play(peer.kind, use * full, peer.options))
        for use in UTILIZATIONS
    ]


def plan_of(scenario: Scenario, workload: Workload, interval_seconds: float) -> Plan:
    """The plan of a run as the full loop would live it: decided on and scraped at the policy's
    own pace, cold starts as they are drawn."""
    pace = pace_of(workload, interval_seconds)
    plan = plan_for(workload, pace.interval_seconds, fluid_pod(scenario.profile))
    return replace(
        plan,
        tick_seconds=pace.interval_seconds,
        scrape_seconds=float(pace.scrape_seconds),
        lag_seconds=float(pace.lag_seconds),
        cold_seconds=math.ceil(scenario.fleet.lifecycle.cold_start.quantile(0.5)),
        rate_window_seconds=float(scenario.fleet.rate_window_seconds),
        slo_seconds=scenario.slo_seconds,
    )


def _full_use(scenario: Scenario, plan: Plan, peer: Peer) -> float:
    """The knob at which a replica is used as much as the SLO allows."""
    if peer.knob == "targetQps":
        return plan.qps_per_replica
    return scenario.profile.concurrency_at(plan.qps_per_replica)


def walk_of(workload: Workload, interval_seconds: float) -> Walk:
    """How the workload's forecaster goes through a run."""
    settings = workload.loop_settings(interval_seconds)
    lag = settings.lead_time.metric_lag_seconds
    return Walk(settings.windows, settings.history_steps, lag)


@dataclass(frozen=True, slots=True, eq=False)
class Foretold:
    """What our forecaster says along a run, and what each morning's calibration found: `at` is
    each decision's row of the tape, `recent` is what each row knows of the recent past."""

    tape: Tape
    at: npt.NDArray[np.int64]
    tried: list[tuple[int, Tried]]
    recent: Recent

    def at_margin(self) -> Rows:
        """What the decisions of a fixed margin read."""
        return self.tape.order[self.at], self.tape.hold[self.at], self.tape.trusted[self.at]

    def at_target(self, target: float) -> tuple[Floats, Rows]:
        """Each day's margin as its morning's calibration chose it, and what decisions read."""
        tape = self.tape
        margins = np.full(len(tape.trusted), DEFAULT_MARGIN)
        order, hold = tape.order.copy(), tape.hold.copy()
        for row, found in self.tried:
            chosen = choose(found, target)
            margins[row:] = chosen.margin
            order[row:], hold[row:] = tape.order[row:], tape.hold[row:]
            if chosen.steady:
                order[row:, SCALE], hold[row:, SCALE] = found.steady_scales
            order[row:], hold[row:] = self.recent.since(row).spared(
                order[row:], hold[row:], chosen.spare, chosen.margin
            )
        return margins[self.at], (order[self.at], hold[self.at], tape.trusted[self.at])


def foretold(
    world: World, workload: Workload, plan: Plan, on_day: Callable[[], None] = lambda: None
) -> Foretold:
    """The forecasts of a whole run; `on_day` is told of each fit."""
    walk, step = walk_of(workload, plan.tick_seconds), world.demand.step_seconds
    tried: list[tuple[int, Tried]] = []

    def on_fit(row: int, rehearsal: Rehearsal) -> None:
        tried.append((row, rehearsed(rehearsal, plan)))
        on_day()

    forecaster = Combined(workload.traffic_calendar())
    tape = record(forecaster, world.demand, world.scenario.starts_at, walk, on_fit)
    at = walk.rows(world.run(plan).ticks, plan.tick_seconds, step)
    return Foretold(tape, at, tried, _recent(world, walk, workload.traffic_calendar()))


def _ours(world: World, workload: Workload, plan: Plan) -> list[Setting]:
    run, said = world.run(plan), foretold(world, workload, plan)
    settings = []
    for target in TARGETS:
        margins, rows = said.at_target(target)
        tally = run.play(loop.PREDICTIVE, margins, rows=rows)
        settings.append(Setting("predictive", TARGET_KNOB, target, tally))
    return settings


def _recent(world: World, walk: Walk, calendar: Calendar) -> Recent:
    """What each row of a tape knows of the recent past."""
    rates, step = bridged(world.demand.values), world.demand.step_seconds
    passed = (world.scenario.starts_at - world.demand.start).total_seconds()
    first = round(passed) // step
    known = np.arange(first, len(rates) + 1) - walk.lag_steps(step)
    newest = np.maximum(known - 1, 0)
    demand = demand_of(replace(world.demand, values=rates), calendar, 1.0)
    order, hold = walk.windows[:2]
    highest = highest_of(rates, SPARE_SECONDS, step)
    return Recent(
        rates[newest],
        {span: each[newest] for span, each in highest.items()},
        hourly_jumps(demand.logs, known, step, order),
        hourly_jumps(demand.logs, known, step, hold),
        {
            side: daily_peaks(demand, known, order, side, walk.history_steps)
            for side in DAILY_SECONDS
        },
    )


def _calibrated_peer(world: World, plan: Plan, name: str, peer: Peer) -> list[Setting]:
    """A peer with its knob found each day by the same replay over the same history as ours."""
    full = _full_use(world.scenario, plan, peer)
    knobs = full * np.array(UTILIZATIONS)
    days = _days(world, plan, peer, knobs)
    run = world.run(plan)
    settings = []
    for target in TARGETS:
        chosen = np.concatenate(
            [np.full(ticks, knobs[_cheapest(tried, target)]) for ticks, tried in days]
        )[: run.ticks]
        tally = run.play(peer.kind, chosen, peer.options)
        settings.append(Setting(name, TARGET_KNOB, target, tally))
    return settings


def _days(world: World, plan: Plan, peer: Peer, knobs: Floats) -> list[tuple[int, Tried]]:
    """For each scored day its number of decisions, and what each knob came to on the days before
    it, at most four weeks, each day played once, with an hour before it: a fleet that begins at
    midnight would be scaled by a look-back of one moment."""
    passed = round((world.scenario.starts_at - world.demand.start).total_seconds())
    rates = np.repeat(bridged(world.demand.values), world.demand.step_seconds)
    first = passed % DAY_SECONDS
    bounds = [0, *range(first or DAY_SECONDS, len(rates), DAY_SECONDS)]
    played = []
    for start, end in pairwise(bounds):
        tallies = led_in(
            partial(_all_played, plan, rates, peer, knobs), start, end, LEAD_IN_SECONDS
        )
        played.append((start, end, float(rates[start:end].sum()), tallies))
    found = []
    for at in range(passed, len(rates), DAY_SECONDS):
        known = [day for day in played if at - CALIBRATED_DAYS * DAY_SECONDS <= day[0] < at]
        found.append((int(DAY_SECONDS // plan.tick_seconds), _together(known, len(knobs))))
    return found


def _all_played(
    plan: Plan, rates: Floats, peer: Peer, knobs: Floats, first: int, last: int
) -> Floats:
    run = SweepRun(plan, rates[first:last], 1.0)
    return np.array([run.play(peer.kind, float(knob), peer.options) for knob in knobs])


def led_in(play: Callable[[int, int], Floats], first: int, last: int, lead: int) -> Floats:
    """What the span first .. last - 1 comes to behind a lead-in, whose own tally is then taken
    off: the loop tells only what a whole run came to. What lies behind the lead-in matters only to
    a fleet that has run away, and such a one keeps no target."""
    begin = max(0, first - lead)
    tally = play(begin, last)
    if begin < first:
        tally -= play(begin, first)
    return np.maximum(tally, 0.0)


def _together(days: Sequence[tuple[int, int, float, Floats]], knobs: int) -> Tried:
    """What each knob came to on some days: their first and last second, requests and tallies.
    Without a day there is nothing but the prior."""
    nothing = np.zeros(knobs)
    if not days:
        return Tried(nothing, nothing, nothing, 0.0, 1.0)
    tallies = np.sum([day[3] for day in days], axis=0)
    requests = sum(day[2] for day in days)
    seconds = sum(day[1] - day[0] for day in days)
    a_day = requests / seconds * DAY_SECONDS
    return Tried(tallies[:, loop.POD_SECONDS], tallies[:, loop.BAD], nothing, requests, a_day)


PEER_PRIOR = tuple(
    float(prior)
    for span in (np.linspace(-1.0, -5.0, STEPS), np.linspace(-5.05, -6.0, STEPS))
    for prior in 10**span
)
"""Of each of `UTILIZATIONS`."""


def _cheapest(tried: Tried, target: float) -> int:
    weight = PRIOR_DAYS * tried.day
    estimate = (tried.bad + weight * np.array(PEER_PRIOR)) / (tried.requests + weight)
    keeps = estimate <= target
    if not keeps.any():
        return int(np.argmin(estimate))
    return int(np.argmin(np.where(keeps, tried.pod_seconds, np.inf)))
