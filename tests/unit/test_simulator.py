"""The fleet, its pods and what they are worth."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from forecaster.history import TrafficHistory
from policies.decision import OutcomeKind
from scaler.ports import MetricsError
from simulator.clairvoyant import Limits, need, optimum_pod_slots, optimum_under_limits
from simulator.engines.fluid import FluidEngine
from simulator.fleet import FleetSettings, SimulatedFleet
from simulator.lifecycle import COLD_STARTS, ColdStart, Lifecycle, Phase, constant_cold_start
from simulator.pod import PROFILES
from simulator.replay import complete_parameters
from simulator.scorecard import score
from tests.traffic import MONDAY

PROFILE = PROFILES["h100-1200"]


def flat(qps: float, minutes: int = 120) -> TrafficHistory:
    return TrafficHistory("flat", MONDAY, 60, np.full(minutes, qps))


def fleet(
    qps: float = 10_800.0, replicas: int = 14, life: Lifecycle | None = None
) -> SimulatedFleet:
    """An hour of history, then an hour to serve."""
    return serving(flat(qps), replicas, life)


def serving(
    traffic: TrafficHistory, replicas: int, life: Lifecycle | None = None
) -> SimulatedFleet:
    settings = FleetSettings(life or Lifecycle(constant_cold_start(180)), 180.0, replicas)
    return SimulatedFleet(
        traffic, MONDAY + timedelta(hours=1), settings, lambda rates: FluidEngine(PROFILE, rates)
    )


def engine_at(qps: list[float], pods: int, speed: float = 1.0) -> FluidEngine:
    """Seconds of traffic at exact rates on so many pods."""
    engine = FluidEngine(PROFILE, np.array(qps))
    engine._arrivals = np.array(qps)  # Poisson noise is not what these tests are about
    for _ in range(pods):
        engine.add(speed)
    engine.advance(len(qps))
    return engine


@pytest.mark.parametrize(
    ("name", "saturation", "within"),
    [("h100-1200", 1194, 1080), ("h100-750", 758, 517), ("l40s", 304, 230)],
)
def test_profiles_saturate_where_the_study_says(
    name: str, saturation: float, within: float
) -> None:
    profile = PROFILES[name]
    assert profile.saturation_qps == pytest.approx(saturation, rel=0.002)
    assert profile.capacity_within(1.0) == pytest.approx(within, rel=0.01)
    assert np.diff(profile.length_cdf).min() >= 0
    mean = float((1 - profile.length_cdf).sum())
    assert mean == pytest.approx(50.0, rel=0.002)


def test_a_profile_that_cannot_meet_the_objective_says_so() -> None:
    slow = replace(PROFILE, name="slow", t0_seconds=0.02)
    with pytest.raises(ValueError, match="slow is above 1 s even when idle"):
        slow.capacity_within(1.0)


def test_steady_latency_matches_the_study() -> None:
    """840 requests/s a pod: P99 of 705 to 708 ms before the 10 ms front end."""
    engine = engine_at([840.0 * 100] * 60, 100)
    assert engine.quantiles((0.99,))[0] == pytest.approx(0.706 + 0.010, rel=0.01)
    minutes = engine.minutes(1.0)
    assert (minutes.late / minutes.requests)[0] == pytest.approx(0.0012, abs=0.0005)


def test_a_slower_pod_is_one_whose_time_runs_slower() -> None:
    fast = engine_at([600.0] * 60, 1).quantiles((0.99,))[0] - PROFILE.front_end_seconds
    slow = engine_at([400.0] * 60, 1, speed=1.5).quantiles((0.99,))[0] - PROFILE.front_end_seconds
    assert slow == pytest.approx(1.5 * fast, rel=0.001)


def test_a_backlog_makes_every_request_wait_and_is_worked_off() -> None:
    engine = engine_at([1300.0] * 60 + [900.0] * 140, 1)
    backlog = engine.seen(0, 200).waiting
    assert backlog[59] == pytest.approx(60 * (1300 - 1194.5), rel=0.01)
    assert backlog[79] == pytest.approx(backlog[59] - 20 * (1194.5 - 900), rel=0.01)
    assert backlog[150] == 0
    minutes = engine.minutes(1.0)
    assert minutes.late[0] / minutes.requests[0] > 0.7
    assert minutes.p99[0] > 5


def test_requests_are_served_dropped_or_waiting() -> None:
    engine = engine_at([5000.0] * 300, 2)
    minutes = engine.minutes(1.0)
    assert minutes.requests.sum() == 300 * 5000
    kept = 2 * PROFILE.saturation_qps * (300 + PROFILE.timeout_seconds)
    assert minutes.failed.sum() == pytest.approx(300 * 5000 - kept, rel=0.01)


def test_nobody_serves_without_pods() -> None:
    assert engine_at([100.0] * 60, 0).minutes(1.0).failed[0] == pytest.approx(6000)


def test_the_same_seed_gives_the_same_arrivals_however_they_are_served() -> None:
    rates = np.full(120, 5000.0)
    one, other = FluidEngine(PROFILE, rates, 3), FluidEngine(PROFILE, rates, 3)
    for _ in range(8):
        one.add()
    one.advance(120)
    for _ in range(120):
        other.advance(1)
    assert np.array_equal(one.seen(0, 120).arrivals, other.seen(0, 120).arrivals)


def test_seconds_served_together_come_out_as_one_by_one() -> None:
    """Through calm, saturation, a backlog that drops requests, and calm again."""
    rates = np.concatenate([np.full(30, 8_000.0), np.full(200, 30_000.0), np.full(300, 3_000.0)])
    together, alone = FluidEngine(PROFILE, rates, 3), FluidEngine(PROFILE, rates, 3)
    for engine in (together, alone):
        for pod in range(8):
            engine.add(1.0 + pod / 10)
    together.advance(len(rates))
    for _ in rates:
        alone.advance(1)
    one, other = together.seen(0, len(rates)), alone.seen(0, len(rates))
    assert one.waiting.max() > 0 == one.waiting[-1]
    for name in ("arrivals", "running", "waiting", "p99"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert together.minutes(1.0).failed.sum() == alone.minutes(1.0).failed.sum() > 0


def test_cold_starts_are_the_sum_of_their_phases() -> None:
    eager, lazy = COLD_STARTS["eager-image"], COLD_STARTS["lazy-image"]
    assert eager.quantile(0.5) > 3 * lazy.quantile(0.5) > 120
    assert eager.quantile(0.95) > eager.quantile(0.5)
    cold = COLD_STARTS["lazy-image-cold-nodes"]
    rng = np.random.default_rng(1)
    drawn = [cold.draw(rng, node_is_warm=False) for _ in range(500)]
    assert np.median(drawn) == pytest.approx(lazy.quantile(0.5) + 95, rel=0.1)


def test_a_node_that_never_comes_leaves_its_pod_starting() -> None:
    cold = ColdStart(
        (Phase("start", 10, 10),), Phase("node", 60, 60), warm_nodes=5, node_missing_ratio=1.0
    )
    world = fleet(replicas=4, life=Lifecycle(cold))
    world.apply(7, world.read(world.now), 1)
    world.advance(world.now + timedelta(minutes=30))
    after = world.read(world.now)
    assert (after.spec, after.ready, len(after.starting)) == (7, 5, 2)
    assert world.billed_by_second[-1] == 7


def test_crashed_pods_come_back_and_cost_requests() -> None:
    life = Lifecycle(COLD_STARTS["lazy-image"], crashes_per_pod_hour=5.0)
    world = fleet(qps=10_000, replicas=12, life=life)
    world.advance(world.now + timedelta(hours=1))
    ready = world.ready_by_second
    assert ready.min() < 12
    assert ready.max() == 12
    assert world.read(world.now).spec == 12


def test_a_crash_costs_a_cold_start_that_is_one_figure() -> None:
    life = Lifecycle(constant_cold_start(600), crashes_per_pod_hour=5.0)
    world = fleet(qps=100, replicas=1, life=life)
    world.advance(world.now + timedelta(hours=1))
    crashed = int(world.ready_by_second.argmin())
    assert world.ready_by_second[crashed] == 0
    assert (world.ready_by_second[crashed : crashed + 600] == 0).all()


def test_new_and_slow_pods_take_longer() -> None:
    life = Lifecycle(
        constant_cold_start(10), slow_start_seconds=60, slow_start_factor=2.0, slow_ratio=0.0
    )
    world = fleet(qps=4_000, replicas=5, life=life)
    world.apply(10, world.read(world.now), 1)
    world.advance(world.now + timedelta(seconds=120))
    running = world.engine.seen(0, 120).running
    assert running[40] > 1.2 * running[100]


def test_the_lead_time_holds_the_node_where_one_must_come_first() -> None:
    """A node that never comes has no time; of the others the new one is part of the start."""
    warm, cold = COLD_STARTS["eager-image"], COLD_STARTS["eager-image-cold-nodes"]
    assert cold.quantile(0.5) - warm.quantile(0.5) == pytest.approx(95.0, abs=3.0)
    assert replace(cold, warm_nodes=None).quantile(0.95) == warm.quantile(0.95)
    assert math.isfinite(replace(cold, node_missing_ratio=1.0).quantile(0.99))


def test_a_pod_serves_only_after_its_cold_start() -> None:
    world = fleet(replicas=5)
    start = world.now
    world.advance(start + timedelta(minutes=1))
    seen = world.read(world.now)
    assert world.apply(8, seen, 1).kind is OutcomeKind.APPLIED
    world.advance(start + timedelta(minutes=3, seconds=59))
    before = world.read(world.now)
    assert (before.spec, before.ready, len(before.starting)) == (8, 5, 3)
    assert before.starting[0] == start + timedelta(minutes=4)
    world.advance(start + timedelta(minutes=4, seconds=1))
    assert world.read(world.now).ready == 8


def test_starting_pods_go_first_and_drained_ones_are_paid_until_gone() -> None:
    world = fleet(replicas=5)
    world.advance(world.now + timedelta(seconds=10))
    world.apply(8, world.read(world.now), 1)
    world.apply(4, world.read(world.now), 2)
    after = world.read(world.now)
    assert (after.spec, after.ready, after.draining, after.starting) == (4, 4, 1, ())
    world.advance(world.now + timedelta(seconds=60))
    assert world.billed_by_second[15] == 5
    assert world.billed_by_second[-1] == 4


def test_an_order_that_does_not_match_the_fleet_is_a_conflict() -> None:
    world = fleet()
    seen = replace(world.read(world.now), spec=3)
    assert world.apply(9, seen, 1).kind is OutcomeKind.CONFLICT
    assert world.read(world.now).spec == 14


def test_a_policy_sees_nothing_earlier_than_in_life() -> None:
    """A step in demand at minute 10 is not seen before it is scraped and has arrived."""
    values = np.concatenate([np.full(70, 5_000.0), np.full(50, 10_000.0)])
    traffic = TrafficHistory("step", MONDAY, 60, values)
    world = serving(traffic, 20)
    step_at = world.now + timedelta(minutes=9, seconds=30)  # half a minute is interpolated
    world.advance(step_at + timedelta(seconds=14))
    assert world.observe(world.now).value.demand_qps == pytest.approx(5_000, rel=0.02)
    assert world.observe(world.now).value.at <= world.now - timedelta(seconds=15)
    with pytest.raises(MetricsError, match="nothing is known"):
        world.demand_history(MONDAY, world.now + timedelta(minutes=1), 60)
    world.advance(step_at + timedelta(minutes=3))
    assert world.observe(world.now).value.demand_qps == pytest.approx(10_000, rel=0.02)


def test_history_runs_on_into_what_was_served() -> None:
    world = fleet()
    world.advance(world.now + timedelta(minutes=10, seconds=20))
    reading = world.demand_history(MONDAY, MONDAY + timedelta(minutes=70), 60)
    assert len(reading.value) == 70
    assert reading.value.values == pytest.approx(np.full(70, 10_800.0), rel=0.01)


def test_history_gives_the_steps_asked_for_and_no_others() -> None:
    world = fleet()
    start = world.now
    world.advance(start + timedelta(minutes=10))
    arrivals = world.engine.arrivals(0, 600)
    asked = world.demand_history(start + timedelta(seconds=50), start + timedelta(minutes=3), 15)
    assert asked.value.start == start + timedelta(seconds=60)
    assert asked.value.values.tolist() == arrivals[60:180].reshape(-1, 15).mean(axis=1).tolist()
    newest = world.demand_history(start + timedelta(minutes=9), world.now, 15).value
    assert newest.end == world.now - timedelta(seconds=15)
    assert len(world.demand_history(world.now, world.now, 15).value) == 0


def test_the_closed_form_keeps_a_pod_across_short_gaps_only() -> None:
    pods = np.array([1, 2, 1, 2, 1, 1, 1, 1, 2])
    # Level 2: on at 1, 3, 8; free at the start costs its opening gap of 1, the gap of 1 is kept,
    # the gap of 4 costs a cold start of 2.
    assert optimum_pod_slots(pods, 2) == 9 + (3 + 1 + 1 + 2)
    assert optimum_pod_slots(np.zeros(5, dtype=np.int64), 2) == 0


@pytest.mark.parametrize("cold", [0, 1, 3, 10])
def test_the_closed_form_is_never_beaten_by_a_brute_force_schedule(cold: int) -> None:
    """Against dynamic programming over every fleet size, on random needs."""
    rng = np.random.default_rng(4)
    for _ in range(60):
        pods = rng.integers(0, 5, 12)
        assert optimum_pod_slots(pods, cold) == _brute_force(pods.tolist(), cold)


def _brute_force(pods: list[int], cold: int) -> int:
    best = {size: size for size in range(5) if size >= pods[0]}  # the first stock is free
    for wanted in pods[1:]:
        best = {
            size: min(cost + size + cold * max(0, size - before) for before, cost in best.items())
            for size in range(5)
            if size >= wanted
        }
    return min(best.values())


def test_the_closed_form_equals_the_linear_programme_on_500_random_cases() -> None:
    rng = np.random.default_rng(11)
    for _ in range(500):
        slots, cold = int(rng.integers(1, 40)), int(rng.integers(0, 12))
        pods = rng.integers(0, 7, slots)
        programme = optimum_under_limits(pods, cold, Limits())
        assert optimum_pod_slots(pods, cold) == pytest.approx(programme, abs=1e-6), (pods, cold)


def test_limits_cost_and_their_optimum_is_whole() -> None:
    rng = np.random.default_rng(12)
    dearer = 0
    for _ in range(60):
        pods = rng.integers(0, 6, 30)
        free = optimum_under_limits(pods, 3, Limits())
        bound = optimum_under_limits(pods, 3, Limits(max_up=1, max_down=1, min_life_slots=4))
        assert bound >= free - 1e-6
        assert bound == pytest.approx(round(bound), abs=1e-6)
        dearer += bound > free + 0.5
    assert dearer > 30


def test_a_need_beyond_every_schedule_is_said() -> None:
    with pytest.raises(ValueError, match="no schedule meets the need"):
        optimum_under_limits(np.array([1, 5]), 0, Limits(max_pods=3))


def test_need_rounds_up_but_not_for_a_rounding_error() -> None:
    assert need(np.array([0.0, 1.0, 1080.0, 1080.1]), 1080.0).tolist() == [0, 1, 1, 2]


def test_a_healthy_hour_counts_no_bad_request() -> None:
    world = fleet()
    world.advance(world.now + timedelta(hours=1))
    card = score("static", world, 1.0, 1080.0)
    assert card.bad_ratio == 0
    assert card.late_ratio > 0
    assert card.pod_hours == pytest.approx(14.0)
    assert card.minutes == 60
    assert card.clairvoyant_pod_hours == pytest.approx(10.5, rel=0.05)


def test_an_overloaded_hour_counts_nearly_all() -> None:
    world = fleet(replicas=8)
    world.advance(world.now + timedelta(hours=1))
    card = score("static", world, 1.0, 1080.0)
    assert card.bad_ratio > 0.95
    assert card.failed_ratio > 0.05
    assert card.minutes_p99_over_slo == 60


@pytest.mark.parametrize(
    ("policy", "own", "expected"),
    [
        ("knative_kpa", {}, {"targetConcurrency": 300.0}),
        ("knative_kpa", {"targetQps": 900.0}, {"targetQps": 900.0}),
        ("aibrix_apa_intended", {"targetKvUsage": 0.5}, {"targetKvUsage": 0.5}),
        (
            "ray_serve",
            {"upscaleDelaySeconds": 9.0},
            {"upscaleDelaySeconds": 9.0, "targetConcurrency": 300.0},
        ),
    ],
)
def test_a_policy_is_told_of_a_pod_what_its_own_parameters_leave_open(
    policy: str, own: dict[str, float], expected: dict[str, float]
) -> None:
    assert complete_parameters(policy, own, {"targetConcurrency": 300.0}) == expected


def test_what_is_no_knob_is_told_beside_the_chosen_one() -> None:
    own, told = {"kvUtilization": 0.5}, {"kvCacheTokens": 6e5}
    assert complete_parameters("wva_v1", own, told) == {**told, **own}
