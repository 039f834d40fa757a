"""The compiled loop: the same policies as the full loop, and what a target comes to."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.history import Floats, TrafficHistory
from policies import capacity
from scaler.cli.scenario import Setting, run_of, workload_document
from scaler.settings import Workload
from simulator.fleet import FleetSettings
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pod import PROFILES
from simulator.replay import Scenario, policy_defaults, static_peak
from simulator.sweep import frontier, loop, rules
from simulator.sweep.calibrate import CANDIDATES, Tried, choose, exposure_of
from simulator.sweep.frontier import World
from simulator.sweep.knobs import knob_at_full_use
from simulator.sweep.results import Point, clairvoyant_hours, point
from simulator.sweep.results import frontier as frontier_rows
from simulator.traces.edit import scaled_to_peak
from simulator.traces.generate import Diurnal, generate
from simulator.whatif import Run, run_one
from tests.traffic import MONDAY

PROFILE = PROFILES["h100-1200"]
CAPACITY = PROFILE.capacity_within(1.0)


@cache
def scenario() -> Scenario:
    """Three days of history, then half a day around the morning's ramp."""
    traffic = scaled_to_peak(generate(Diurnal(), MONDAY, 4, 3), 100_000.0)
    starts_at = MONDAY + timedelta(days=3, hours=4)
    first = float(traffic.between(starts_at, traffic.end).values[0])
    replicas = int(-(-first * 1.2 // CAPACITY))
    fleet = FleetSettings(Lifecycle(constant_cold_start(180)), 180.0, replicas)
    until = starts_at + timedelta(hours=12)
    return Scenario(traffic, starts_at, until, fleet, PROFILE)


def test_a_replay_that_would_move_its_traffic_is_refused() -> None:
    made = scenario()
    with pytest.raises(ValueError, match="no step of"):
        replace(made, starts_at=made.starts_at + timedelta(seconds=7))


def test_past_days_fit_within_the_bound_of_a_what_if() -> None:
    """Their replay finds the margin: one that they exceed keeps no target."""
    busier = scenario().traffic.values.copy()
    busier[:600] *= 5
    made = replace(scenario(), traffic=replace(scenario().traffic, values=busier))
    setting = Setting(
        profile=PROFILE,
        lifecycle=made.fleet.lifecycle,
        engine="fluid",
        scale=1,
        balancer=made.balancer,
        dispersion=1.0,
        retries=made.retries,
        seed=0,
        workload=workload_document(None, None, None),
        interval_seconds=15.0,
    )
    most = run_of("predictive", made, setting).workload.max_replicas
    assert most * CAPACITY > 2 * np.nanmax(busier)
    assert most > 2 * static_peak(made, CAPACITY) + 2


def workload(policy: str, **parameters: float) -> Workload:
    peak = static_peak(scenario(), CAPACITY)
    own = {**policy_defaults(policy, PROFILE, CAPACITY, peak), **parameters}
    return Workload.model_validate(
        {
            "name": "trace",
            "target": {"name": "trace", "mode": "shadow"},
            "demand": {"query": "trace"},
            "history": {"days": 4},
            "capacity": {"qpsPerReplica": CAPACITY, "saturationQps": PROFILE.saturation_qps},
            "leadTime": {"p50Seconds": 180, "p95Seconds": 180},
            "maxReplicas": 2 * peak,
            "policy": {"name": policy, "parameters": own},
        }
    )


@pytest.mark.parametrize(
    ("policy", "knob", "interval"),
    [
        ("asymmetric_concurrency", "targetConcurrency", 5.0),
        ("hpa", "targetQps", 15.0),
        ("knative_kpa", "targetConcurrency", 2.0),
    ],
)
def test_peers_cost_what_they_cost_in_the_full_loop(
    policy: str, knob: str, interval: float
) -> None:
    full_use = CAPACITY if knob == "targetQps" else PROFILE.concurrency_at(CAPACITY)
    use = frontier.UTILIZATIONS[8]
    done = run_one(scenario(), Run(workload(policy, **{knob: use * full_use}), interval))
    world = World.of(scenario(), 15)
    settings = frontier.sweep(world, workload(policy), interval, calibrated=False)
    same = next(each for each in settings if each.value == pytest.approx(use * full_use))
    hours = same.tally[loop.POD_SECONDS] / 3600
    assert hours == pytest.approx(done.card.pod_hours, rel=0.01)
    bad = same.tally[loop.BAD] / world.arrivals.sum()
    assert bad == pytest.approx(done.card.bad_ratio, abs=2e-4)


def test_ours_costs_what_it_costs_in_the_full_loop() -> None:
    ours = workload("predictive")
    turned = ours.policy.model_copy(update={"target_bad_ratio": 1e-3})
    done = run_one(scenario(), Run(ours.model_copy(update={"policy": turned}), 15.0))
    world = World.of(scenario(), 15)
    settings = frontier.sweep(world, ours, 15.0, calibrated=False)
    same = next(each for each in settings if each.value == 1e-3)
    assert same.tally[loop.POD_SECONDS] / 3600 == pytest.approx(done.card.pod_hours, rel=0.01)
    bad = same.tally[loop.BAD] / world.arrivals.sum()
    assert bad == pytest.approx(done.card.bad_ratio, abs=2e-4)
    optimum = clairvoyant_hours(world, CAPACITY)
    assert point(same, world, optimum).excess == pytest.approx(done.card.excess, abs=0.01)


def test_a_peer_is_not_doubted_for_bursts_that_only_a_fleet_just_begun_would_lose() -> None:
    """Three times the traffic two minutes into each day of the calibration."""
    traffic = scaled_to_peak(generate(Diurnal(), MONDAY, 4, 3), 100_000.0)
    values = traffic.values.copy()
    for day in range(1, 4):
        values[day * 1440 + 242 : day * 1440 + 246] *= 3
    bursts = replace(scenario(), traffic=replace(traffic, values=values))
    world, peer = World.of(bursts, 15), workload("asymmetric_concurrency")
    fixed = frontier.sweep(world, peer, 5.0, calibrated=False)
    calibrated = frontier.sweep(world, peer, 5.0, calibrated=True)
    strict = next(each for each in calibrated if each.value == 1e-4)
    assert strict.tally[loop.POD_SECONDS] < 0.9 * fixed[-1].tally[loop.POD_SECONDS]


def test_a_lower_target_is_dearer_and_misses_less() -> None:
    settings = frontier.sweep(World.of(scenario(), 15), workload("predictive"), 15.0, False)
    cost = [each.tally[loop.POD_SECONDS] for each in settings]
    bad = [each.tally[loop.BAD] for each in settings]
    assert cost == sorted(cost)
    assert bad[-1] <= bad[0]


def test_repeats_to_the_bit() -> None:
    peer = workload("hpa")
    one, two = (frontier.sweep(World.of(scenario(), 15), peer, 15.0, False) for _ in range(2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first.tally, second.tally)


positive = st.floats(0.01, 1e6)


@given(positive, positive, st.floats(1, 2), st.floats(-5, 200))
def test_the_compiled_sizes_are_the_policy_s_own(
    load: float, within: float, ratio: float, margin: float
) -> None:
    rate = capacity.rate_per_replica(within, within * ratio, margin)
    assert rules.rate_per_replica(within, within * ratio, margin) == pytest.approx(rate)
    assert rules.replicas_at(load, within) == capacity.replicas_at(load, within)
    assert rules.needed(load, 3.0, ratio, 30.0) == capacity.needed(load, 3.0, ratio, 30.0)


def tried(bad: Floats, cost: Floats) -> Tried:
    return Tried(cost, bad, np.zeros(len(CANDIDATES)), requests=1e12, day=1e9)


def test_the_cheapest_candidate_that_keeps_the_target_is_chosen() -> None:
    cost = np.array(range(len(CANDIDATES), 0, -1), dtype=np.float64)
    bad = np.where(np.arange(len(CANDIDATES)) < 5, 1e6, 1e12)
    chosen = choose(tried(bad, cost), 1e-2)
    assert chosen.kept
    assert chosen.margin == CANDIDATES[4].choice.margin


def test_without_one_the_least_bad_is_chosen_and_said_so() -> None:
    bad = np.full(len(CANDIDATES), 9e11)
    bad[7] = 4e11
    chosen = choose(tried(bad, np.ones(len(CANDIDATES))), 1e-4)
    assert not chosen.kept
    assert chosen.margin == CANDIDATES[7].choice.margin


@pytest.mark.parametrize("lost_by_all", [1e9, 6e11])
def test_what_no_candidate_saves_is_not_paid_for(lost_by_all: float) -> None:
    """The target holds for the rest, however much that is: a bound that no fleet of a past week
    would have met is no reason for the smallest margin."""
    cost = np.arange(1.0, len(CANDIDATES) + 1.0)
    bad = lost_by_all + np.linspace(0.2e8, 0.0, len(CANDIDATES))
    bad[:4] = lost_by_all + 2e8
    chosen = choose(tried(bad, cost), 1e-4)
    assert not chosen.kept
    assert chosen.margin == CANDIDATES[4].choice.margin


def test_a_short_lucky_history_promises_no_more_than_the_prior() -> None:
    nothing = np.zeros(len(CANDIDATES))
    nothing_bad = Tried(np.arange(1.0, len(CANDIDATES) + 1.0), nothing, nothing, 1.0, 1e9)
    margins = [choose(nothing_bad, target).margin for target in (1e-2, 1e-3, 1e-4)]
    assert margins == sorted(margins)
    assert margins[-1] > margins[0]


def test_slower_starts_promise_less_of_what_no_history_held() -> None:
    """By the square of the lead time: three times as long, nine times the prior."""
    cost, calm = np.arange(1.0, len(CANDIDATES) + 1.0), np.zeros(len(CANDIDATES))
    chosen = [
        choose(Tried(cost, calm, calm, 1.0, 1e9, severity=severity), 1e-3)
        for severity in (1.0, 9.0)
    ]
    assert chosen[0].margin < chosen[1].margin
    assert all(each.expected_bad_ratio <= 1e-3 for each in chosen)
    open_to_all = np.ones(len(CANDIDATES))
    ready = choose(Tried(cost, calm, open_to_all, 1.0, 1e9, severity=1e9), 1e-3)
    assert ready.kept
    assert ready.burst_factor or ready.hourly


def test_no_margin_promises_more_than_what_it_had_ready_holds() -> None:
    """However wide it is in scales of a small error: twenty of them are taken where they came to
    half as much again, and headroom is where they came to nothing."""
    calm, cost = np.zeros(len(CANDIDATES)), np.full(len(CANDIDATES), 3.0)
    wide = np.array(
        [each.choice.margin >= 20.0 and not each.choice.headroom for each in CANDIDATES]
    )
    half = np.array([each.choice.headroom == 0.5 for each in CANDIDATES])
    cost[wide], cost[half] = 1.0, 2.0
    for ready, headroom in ((1.5, 0.0), (1.0, 0.5)):
        exposure = np.where(wide, ready, np.where(half, 1.5, 1.0)) ** -6.0
        chosen = choose(Tried(cost, calm, exposure, 1e9, 1e9), 2.5e-5)
        assert (chosen.kept, chosen.headroom) == (True, headroom)


def test_how_open_a_fleet_is_to_jumps() -> None:
    """By its requests: with half as much again, the sixth power of two thirds; never above 1."""
    rates = np.array([100.0, 100.0, 200.0])
    assert exposure_of(1.5 * rates, rates) == pytest.approx((2 / 3) ** 6)
    assert exposure_of(0.5 * rates, rates) == 1.0
    twice = exposure_of(np.array([200.0, 200.0, 200.0]), rates)
    assert twice == pytest.approx((2 * 2**-6 + 2) / 4)
    assert exposure_of(np.ones(3), np.zeros(3)) == 0.0


def test_a_frontier_is_the_least_excess_that_kept_a_ratio() -> None:
    points = [Point("p", "k", 1.0, 11.0, 0.1, 5e-4, 3), Point("p", "k", 2.0, 13.0, 0.3, 5e-5, 1)]
    (row,) = frontier_rows(points)
    assert row["excess_at_bad_ratio"] == {"1e-3": 0.1, "1e-4": 0.3, "1e-5": None}
    assert row["points"] == 2


def test_random_cold_starts_are_left_to_the_full_loop() -> None:
    assert frontier.can_play(workload("hpa"), scenario())
    life = Lifecycle(constant_cold_start(180), crashes_per_pod_hour=0.1)
    crashing = replace(scenario(), fleet=replace(scenario().fleet, lifecycle=life))
    assert not frontier.can_play(workload("hpa"), crashing)
    assert not frontier.can_play(workload("hpa"), replace(scenario(), engine="exact"))
    assert not frontier.can_play(workload("dynamo"), scenario())


@pytest.mark.parametrize(
    ("policy", "parameter", "value"),
    [
        ("hpa", "tolerance", 0.5),
        ("hpa", "scaleDownWindowSeconds", 3600.0),
        ("hpa", "targetConcurrency", 80.0),
        ("asymmetric_concurrency", "minMax", 1.0),
        ("knative_kpa", "stableWindowSeconds", 1800.0),
    ],
)
def test_what_a_peer_is_told_besides_its_knob_is_left_to_the_full_loop(
    policy: str, parameter: str, value: float
) -> None:
    told = workload(policy, **{parameter: value})
    assert frontier.can_play(workload(policy), scenario())
    assert not frontier.can_play(told, scenario())
    assert frontier.can_play(told, scenario(), varied=(parameter,))


@pytest.mark.parametrize(
    ("policy", "own", "knob", "full"),
    [
        ("hpa", {}, "targetQps", CAPACITY),
        ("hpa", {"targetConcurrency": 80.0}, "targetConcurrency", PROFILE.concurrency_at(CAPACITY)),
        ("hpa", {"targetWaiting": 50.0}, "targetWaiting", 50.0),
        ("aibrix_kpa", {}, "targetConcurrency", PROFILE.concurrency_at(CAPACITY)),
        ("aibrix_kpa", {"targetQps": 900.0}, "targetQps", CAPACITY),
    ],
)
def test_the_knob_that_is_turned_is_the_one_that_was_chosen(
    policy: str, own: dict[str, float], knob: str, full: float
) -> None:
    assert knob_at_full_use(workload(policy, **own), scenario()) == (knob, full)


def test_history_is_not_scored() -> None:
    world = World.of(scenario(), 15)
    assert len(world.arrivals) == 12 * 3600
    assert isinstance(world.demand, TrafficHistory)
    assert world.demand.start == scenario().traffic.start
