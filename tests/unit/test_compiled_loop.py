"""The compiled loop and its fleet, second by second and decision by decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecaster.calendar import Calendar
from forecaster.combine import Rehearsal
from forecaster.demand import trailing_peaks
from forecaster.forecast import Calibration, FittedModel, Window
from forecaster.history import Floats, TrafficHistory
from forecaster.registry import combined
from forecaster.spare import with_spare
from policies.context import (
    Capacity,
    PastDecision,
    RateLimit,
    RateUnit,
    ReplicaChange,
    ScalingContext,
    ScalingRules,
    SelectPolicy,
)
from policies.guardrails import limit_rate, stabilize
from policies.predictive import propose
from scaler.settings import Workload
from simulator.engines.fluid import FluidEngine
from simulator.fleet import FleetSettings
from simulator.lifecycle import Lifecycle, constant_cold_start
from simulator.pod import PROFILES
from simulator.replay import Scenario, static_peak
from simulator.sweep import fleet, loop, rules
from simulator.sweep.calibrate import CANDIDATES, calibrate, choose, rehearsed, severity_of
from simulator.sweep.frontier import TARGETS, World, foretold, plan_of, sweep
from simulator.sweep.plan import Plan, SweepRun, direction_of, fluid_pod, slices
from simulator.sweep.tape import Walk
from simulator.traces.edit import with_outage, with_surge
from simulator.traces.generate import Diurnal, generate
from simulator.whatif import Run, run_one
from tests.situations import NOON, settings, situation, window_forecast
from tests.traffic import MONDAY, jobs_by_the_hour, office_hours, weeks

PROFILE = PROFILES["h100-1200"]
CAPACITY = PROFILE.capacity_within(1.0)
PODS = 10


def served(arrivals: Floats, slice_seconds: float = 1.0) -> tuple[Floats, Floats, Floats, float]:
    """Running and waiting of each slice of a constant fleet, late and failed ones, pod-seconds."""
    pod = fluid_pod(PROFILE)
    state, seen = np.zeros(fleet.STATE_WIDTH), np.zeros(2)
    state[fleet.READY] = PODS
    running, waiting, lost, overdue = np.zeros((4, len(arrivals)))
    late = 0.0
    for i in range(len(arrivals)):
        late_now, lost[i] = fleet.serve(
            state, arrivals, overdue, i, slice_seconds, pod.figures, pod.length_cdf, 1.0, seen
        )
        late += late_now
        running[i], waiting[i] = seen
    assert state[fleet.POD_SECONDS] == PODS * len(arrivals) * slice_seconds
    return running, waiting, lost, late


LOADS = {
    "calm": np.full(300, 0.6),
    "to the edge": np.linspace(0.5, 0.97, 300),
    "overload and back": np.concatenate([np.full(60, 0.9), np.full(40, 1.2), np.full(200, 0.5)]),
    "beyond the timeout": np.full(120, 3.0),
}


@pytest.mark.parametrize("name", LOADS)
def test_a_constant_fleet_serves_as_the_fluid_engine_does(name: str) -> None:
    rates = LOADS[name] * PROFILE.saturation_qps * PODS
    engine = FluidEngine(PROFILE, rates, seed=1)
    for _ in range(PODS):
        engine.add()
    engine.advance(len(rates))
    arrivals = engine.arrivals(0, len(rates))
    running, waiting, lost, late = served(arrivals)
    seen = engine.seen(0, len(rates))
    np.testing.assert_allclose(running, seen.running, rtol=1e-12)
    np.testing.assert_allclose(waiting, seen.waiting, rtol=1e-9, atol=1e-6)
    minutes = engine.minutes(1.0)
    assert lost.sum() == pytest.approx(minutes.failed.sum())
    assert late == pytest.approx(minutes.late.sum())
    assert (lost.sum() > 0) == (name == "beyond the timeout")
    assert (waiting.max() > 0) == ("over" in name or "beyond" in name)


def test_five_seconds_at_once_are_nearly_five_seconds_one_by_one() -> None:
    rates = LOADS["overload and back"] * PROFILE.saturation_qps * PODS
    whole = rates.reshape(-1, 5).sum(axis=1)
    fine, coarse = served(rates), served(whole, 5.0)
    assert coarse[1][:-1] == pytest.approx(fine[1][4::5][:-1], rel=0.01, abs=50.0)
    assert coarse[3] == pytest.approx(fine[3], rel=0.03)


def test_the_youngest_starting_pods_go_first_and_the_rest_drain() -> None:
    state, orders = np.zeros(fleet.STATE_WIDTH), np.zeros(4)
    state[fleet.READY] = 5
    assert fleet.order(state, orders, 0, 8) == 0
    assert fleet.order(state, orders, 1, 10) == 0
    assert (state[fleet.STARTING], orders.tolist()) == (5, [3, 2, 0, 0])
    assert fleet.order(state, orders, 2, 7) == 0
    assert (state[fleet.STARTING], orders.tolist()) == (2, [2, 0, 0, 0])
    assert fleet.order(state, orders, 3, 4) == 1
    assert (state[fleet.READY], state[fleet.STARTING]) == (4, 0)


def test_an_ordered_pod_serves_one_cold_start_later() -> None:
    state, orders = np.zeros(fleet.STATE_WIDTH), np.zeros(100)
    fleet.order(state, orders, 2, 3)  # 30 s into the run
    fleet.start(state, orders, 15.0, 180.0, 209)
    assert state[fleet.READY] == 0
    fleet.start(state, orders, 15.0, 180.0, 210)
    assert (state[fleet.READY], state[fleet.STARTING]) == (3, 0)


rates = st.floats(0, 500_000)
margins = st.floats(-5, 100)
forecasts = st.builds(window_forecast, rates, rates, st.floats(0, 3), rates, rates, st.just(True))


def row(context: ScalingContext, name: str) -> Floats:
    forecast = context.forecast
    window = forecast.window(name) if forecast else None
    assert window is not None
    return np.array([window.median_qps, window.scale, window.floor_qps, window.floor_scale])


@given(forecasts, rates, st.floats(0, 1e6), st.integers(0, 500), margins, st.floats(1, 2))
def test_the_compiled_policy_asks_for_what_the_policy_asks_for(
    forecast: object, demand: float, waiting: float, current: int, margin: float, ratio: float
) -> None:
    policy = settings(parameters={"margin": margin})
    context = situation(current, demand, forecast, policy)  # type: ignore[arg-type]
    context = replace(
        context,
        capacity=Capacity(1000.0, saturation_ratio=ratio),
        observation=replace(context.observation, requests_waiting=waiting),
    )
    limits = (1000.0, ratio, 30.0)
    order, hold = row(context, "order"), row(context, "hold")
    asked = rules.ours(order, hold, demand, waiting, current, limits, margin)
    assert asked == propose(context)[-1].replicas
    nothing = np.zeros(4)
    blind = rules.ours_untrusted(nothing, nothing, demand, waiting, limits, margin)
    assert blind == propose(replace(context, forecast=None))[-1].replicas


@given(rates, rates, rates, margins, st.booleans())
def test_what_is_spared_is_kept_while_no_forecast_is_trusted(
    demand: float, order: float, hold: float, margin: float, trusted: bool
) -> None:
    chosen = Calibration(1e-3, margin, hourly=1.0)
    said = window_forecast(demand, demand, 0.1, trusted=trusted)
    windows = tuple(
        replace(window, floor_qps=spare, spare_qps=spare)
        for window, spare in zip(said.windows, (order, hold), strict=True)
    )
    context = situation(10, demand, replace(said, windows=windows, calibration=chosen))
    context = replace(context, capacity=Capacity(1000.0, saturation_ratio=1.2))
    asked = propose(context)[-1].replicas
    rate = rules.rate_per_replica(1000.0, 1200.0, margin)
    assert asked >= rules.replicas_at(order, rate)
    if not trusted:
        rows = (np.array([0.0, 0.0, order, 0.0]), np.array([0.0, 0.0, hold, 0.0]))
        limits = (1000.0, 1.2, context.capacity.backlog_seconds)
        assert asked == rules.ours_untrusted(*rows, demand, 0.0, limits, margin)


directions = st.builds(
    ScalingRules,
    st.sampled_from([0, 20, 60, 300]),
    st.sampled_from(SelectPolicy),
    st.lists(
        st.builds(
            RateLimit, st.sampled_from(RateUnit), st.integers(1, 100), st.sampled_from([15, 50, 90])
        ),
        max_size=3,
    ).map(tuple),
)


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), min_size=1, max_size=30),
    directions,
    directions,
)
def test_the_compiled_behavior_is_that_of_the_guardrails(
    past: list[tuple[int, int]], up: ScalingRules, down: ScalingRules
) -> None:
    """`past`: what each decision found and what it asked for, the newest last."""
    specs, asked = (np.array(column, dtype=np.float64) for column in zip(*past, strict=True))
    newest = len(past) - 1
    at = [NOON - timedelta(seconds=15 * (newest - i)) for i in range(len(past))]
    context = replace(
        situation(current=past[-1][0], policy=settings(up=up, down=down)),
        recent=tuple(
            PastDecision(at[i], *past[i], desired=past[i][1]) for i in range(len(past) - 1)
        ),
        changes=tuple(
            ReplicaChange(at[i], past[i - 1][0], past[i][0]) for i in range(1, len(past))
        ),
    )
    replicas = past[-1][1]
    for guardrail in (stabilize, limit_rate):
        step = guardrail(context, replicas)
        replicas = replicas if step is None else step.replicas
    found = rules.behaved(
        asked, specs, newest, 15.0, past[-1][1], direction_of(up), direction_of(down)
    )
    assert found == replicas


def test_windows_count_the_decisions_younger_than_they_are_long() -> None:
    counted = [rules.ticks_within(seconds, 15.0) for seconds in (0, 15, 20, 30, 60, 61)]
    assert counted == [1, 1, 2, 2, 4, 5]
    values = np.array([9.0, 1.0, 5.0, 3.0])
    assert (rules.highest(values, 3, 3), rules.lowest(values, 3, 3)) == (5.0, 1.0)
    assert (rules.mean(values, 3, 2), rules.mean(values, 1, 60)) == (4.0, 5.0)


@pytest.mark.parametrize("steps", [1, 2, 5, 8, 40])
def test_the_highest_of_the_last_steps_looks_back_only(steps: int) -> None:
    values = np.random.Generator(np.random.Philox(key=1)).random(30)
    expected = [values[max(0, i - steps + 1) : i + 1].max() for i in range(len(values))]
    assert trailing_peaks(values, steps).tolist() == expected


@pytest.mark.parametrize("step", [1, 2, 5, 15, 60])
def test_slices_hold_every_request(step: int) -> None:
    rates = np.full(600 // step, 70.0)
    assert slices(rates, step).tolist() == [350.0] * 120


def test_what_is_spared_is_a_floor_unless_an_edge_asks_for_more() -> None:
    order = np.array([[100.0, 0.1, 50.0, 0.2], [100.0, 0.1, 300.0, 0.2], [100.0, 0.1, 150.0, 0.2]])
    spared = np.array([200.0, 200.0, 200.0])
    low, high = [100.0, 0.1, 200.0, 0.0], [100.0, 0.1, 300.0, 0.2]
    assert with_spare(order, spared, 0.0).tolist() == [low, high, low]
    assert with_spare(order, spared, 3.0)[2].tolist() == order[2].tolist()


def test_decisions_between_two_steps_read_the_newest_step_that_is_known() -> None:
    """Steps of a minute, a lag of 15 s: the step that ends at 1:00 is known from 1:15 on."""
    walk = Walk((Window("order", 3, 5), Window("hold", 0, 4)), 100, 15.0)
    assert walk.rows(9, 15.0, 60).tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert walk.rows(3, 15.0, 15).tolist() == [0, 1, 2]


@cache
def rough() -> Scenario:
    """Three days of history, then a day with a surge and an outage that nothing announced."""
    traffic = generate(Diurnal(50_000.0), MONDAY, 4, 3)
    starts_at = MONDAY + timedelta(days=3)
    traffic = with_surge(traffic, starts_at + timedelta(hours=13), 3.0, 15.0, 2.5)
    traffic = with_outage(traffic, starts_at + timedelta(hours=16), 40.0, 0.02)
    first = float(traffic.between(starts_at, traffic.end).values[0])
    settings_ = FleetSettings(
        Lifecycle(constant_cold_start(180)), 180.0, int(-(-first * 1.2 // CAPACITY))
    )
    return Scenario(traffic, starts_at, traffic.end, settings_, PROFILE)


def fixed(margin: float, step_seconds: int, lag_seconds: int = 15) -> Workload:
    return Workload.model_validate(
        {
            "name": "trace",
            "target": {"name": "trace", "mode": "shadow"},
            "demand": {"query": "trace"},
            "history": {"days": 4, "stepSeconds": step_seconds},
            "capacity": {"qpsPerReplica": CAPACITY, "saturationQps": PROFILE.saturation_qps},
            "leadTime": {
                "p50Seconds": 180,
                "p95Seconds": 180,
                "metricLagSeconds": lag_seconds,
            },
            "maxReplicas": 2 * static_peak(rough(), CAPACITY),
            "policy": {"name": "predictive", "parameters": {"margin": margin}},
        }
    )


@pytest.mark.parametrize(
    ("margin", "step", "every"),
    [(-2.0, 15, 15), (4.0, 15, 15), (100.0, 15, 15), (4.0, 60, 15), (4.0, 15, 5)],
)
def test_a_rough_day_costs_what_it_costs_in_the_full_loop(
    margin: float, step: int, every: int
) -> None:
    """Decision by decision: limits, holds, lost trust and all; scraped as often as decided."""
    workload = fixed(margin, step, every)
    card = run_one(rough(), Run(workload, every)).card
    world = World.of(rough(), step)
    plan = plan_of(rough(), workload, every)
    run = world.run(plan)
    said = foretold(world, workload, plan)
    tally = run.play(loop.PREDICTIVE, margin, rows=said.at_margin())
    assert tally[loop.POD_SECONDS] / 3600 == pytest.approx(card.pod_hours, rel=1e-3)
    assert tally[loop.BAD] == pytest.approx(card.bad_requests, rel=0.01)
    changes = (tally[loop.UPS], tally[loop.DOWNS])
    assert changes == pytest.approx((card.scale_ups, card.scale_downs), abs=2)
    assert tally[loop.MOST] == card.max_replicas
    assert tally[loop.OVER] == card.minutes_p99_over_slo
    assert card.bad_requests > 0


@cache
def rehearsal() -> tuple[FittedModel, Rehearsal]:
    windows = (Window("order", 3, 6), Window("hold", 0, 5))
    return combined(Calendar()).rehearse(weeks(), weeks().end, windows)


def test_a_rehearsal_says_what_the_forecaster_says() -> None:
    """A row is what a fit that has not seen the day says, so it may differ a little."""
    fitted, rehearsed = rehearsal()
    order, hold = rehearsed.window("order"), rehearsed.window("hold")
    forecaster = combined(Calendar())
    for back in (1, 700, 1_400):
        place = len(rehearsed.origins) - back
        known = weeks().steps(0, int(rehearsed.origins[place]))
        said = forecaster.predict(fitted, known, known.end)
        for name, rows in (("order", order), ("hold", hold)):
            window = said.window(name)
            assert window is not None
            assert rows[place, 0] == pytest.approx(window.median_qps, rel=0.03)
    newest, window = order[-1], forecaster.predict(fitted, weeks(), weeks().end).window("order")
    assert window is not None
    assert newest[1] == pytest.approx(window.scale, rel=0.1)
    assert newest[2] == pytest.approx(window.floor_qps, rel=0.03)


def test_edges_that_were_not_known_yet_do_not_widen_the_margin() -> None:
    """Demand rises by half within a minute at nine on working days. Once known it costs nothing, so
    the days on which nobody could know it must not be paid for."""
    minutes = np.arange(15 * 1440)
    working = minutes // 1440 % 7 < 5
    rng = np.random.default_rng(3)
    rates = 20_000 * np.exp(0.01 * rng.normal(size=len(minutes)))
    rates = np.where(working & (minutes % 1440 >= 540) & (minutes % 1440 < 1020), 1.5, 1.0) * rates
    history = TrafficHistory("edges", MONDAY, 60, rates)
    windows = (Window("order", 3, 4), Window("hold", 0, 4))
    _, rehearsal = combined(Calendar()).rehearse(history, history.end, windows)
    plan = replace(plan_of(rough(), fixed(4.0, 60), 15.0), max_replicas=1000)
    tried = rehearsed(rehearsal, plan)
    assert tried.requests / tried.day == pytest.approx(10, abs=0.1)
    assert tried.severity == 1.0  # 180 s and the metrics' age of 15 s
    assert severity_of(replace(plan, cold_seconds=570.0)) == 9.0
    assert severity_of(replace(plan, cold_seconds=30.0)) == 1.0
    chosen = choose(tried, 1e-4)
    assert (chosen.kept, chosen.headroom, chosen.burst_factor) == (True, 0.0, 0.0)
    assert chosen.margin < 10


def test_a_margin_is_not_found_by_forecasts_that_nobody_goes_by() -> None:
    """Where no model is trusted the policy goes by the present rate, so the replay does."""
    _, trusted = rehearsal()
    plan = plan_of(rough(), fixed(4.0, 60), 15.0)
    margins = [candidate.choice.margin for candidate in CANDIDATES]
    wide = margins.index(20.0)
    foreseen = rehearsed(trusted, plan)
    present = rehearsed(replace(trusted, trusted=False), plan)
    # Beyond a margin of eight scales there is nothing more to be had from the present rate.
    assert present.pod_seconds[wide] == present.pod_seconds[margins.index(8.0)]
    assert foreseen.pod_seconds[wide] > foreseen.pod_seconds[margins.index(8.0)]


def test_who_cannot_keep_the_target_need_not_be_played() -> None:
    """The choice is the one among all, also where none of them keeps it."""
    windows = (Window("order", 3, 6), Window("hold", 0, 5))
    _, known = combined(Calendar()).rehearse(weeks(1), weeks(1).end, windows)
    plan = plan_of(rough(), fixed(4.0, 60), 15.0)
    every = rehearsed(known, plan)
    for target in (1e-2, 1e-4, 1e-9):
        chosen = calibrate(known, plan, target)
        assert chosen == choose(every, target)
        assert chosen.kept is (target > 1e-9)


def last_day(traffic: TrafficHistory) -> Scenario:
    """Its last day to score, with as many replicas as it needs at most."""
    starts_at = traffic.end - timedelta(days=1)
    found = replace(rough().fleet, initial_replicas=150)
    return replace(rough(), traffic=traffic, starts_at=starts_at, until=traffic.end, fleet=found)


@cache
def jobs() -> Scenario:
    """Eight days of jobs that are started by the clock in some half hours, and a day to score."""
    return last_day(jobs_by_the_hour(9))


@cache
def office() -> Scenario:
    """Eleven days of office hours that begin and end unevenly, and a Friday to score."""
    return last_day(office_hours(12, 20))


@pytest.mark.parametrize(
    ("made", "kind", "saved"), [(jobs, "hourly", 0.15), (office, "daily", 0.4)]
)
def test_what_comes_by_the_clock_is_kept_ready_for_only_then(
    made: Callable[[], Scenario], kind: str, saved: float
) -> None:
    """Nobody knows in which half hour, or by how many minutes early: all the day without, for some
    minutes of each half hour or of the morning with it."""
    scenario = made()
    workload = fixed(4.0, 60)
    plan = plan_of(scenario, workload, 15.0)
    world = World.of(scenario, 60)
    said = foretold(world, workload, plan)
    row, morning = said.tried[0]
    chosen = choose(morning, 1e-3)
    assert chosen.kept
    assert getattr(chosen, kind) > 0
    by_clock = np.array([getattr(candidate.choice, kind) > 0 for candidate in CANDIDATES])
    barred = replace(morning, bad=np.where(by_clock, np.inf, morning.bad))
    tallies = []
    for tried in (morning, barred):
        margins, rows = replace(said, tried=[(row, tried)]).at_target(1e-3)
        tallies.append(world.run(plan).play(loop.PREDICTIVE, margins, rows=rows))
    only_then, all_day = tallies
    assert only_then[loop.POD_SECONDS] < (1 - saved) * all_day[loop.POD_SECONDS]
    assert only_then[loop.BAD] < 1e-3 * world.run(plan).requests


@pytest.mark.parametrize("made", [jobs, office])
def test_a_day_at_a_target_costs_what_it_costs_in_the_full_loop(
    made: Callable[[], Scenario],
) -> None:
    """With the margin calibrated in the morning, and what is spared for what comes by the clock."""
    scenario = made()
    calibrated = fixed(4.0, 60)
    policy = calibrated.policy.model_copy(update={"parameters": {}, "target_bad_ratio": 1e-3})
    workload = calibrated.model_copy(update={"policy": policy})
    card = run_one(scenario, Run(workload, 15.0)).card
    played = sweep(World.of(scenario, 60), workload, 15.0, calibrated=True)
    tally = next(each.tally for each in played if each.value == 1e-3)
    assert tally[loop.POD_SECONDS] / 3600 == pytest.approx(card.pod_hours, rel=2e-3)
    assert tally[loop.MOST] == card.max_replicas
    changes = (tally[loop.UPS], tally[loop.DOWNS])
    assert changes == pytest.approx((card.scale_ups, card.scale_downs), abs=4)


def test_a_peer_without_a_day_before_it_goes_by_the_prior() -> None:
    """No warm-up: the first day has nothing to be calibrated on."""
    traffic = rough().traffic
    cold = replace(rough(), starts_at=traffic.start, until=traffic.start + timedelta(days=1))
    peer = fixed(4.0, 60)
    policy = peer.policy.model_copy(update={"name": "hpa", "parameters": {"targetQps": 800.0}})
    named = peer.model_copy(update={"policy": policy})
    tallies = sweep(World.of(cold, 60), named, 15.0, calibrated=True)
    assert [each.value for each in tallies] == list(TARGETS)
    hours = [each.tally[loop.POD_SECONDS] for each in tallies]
    assert hours == sorted(hours)


def test_a_run_finds_what_it_is_told_or_what_its_first_minute_takes() -> None:
    arrivals = np.full(600, 7_300.0)
    plan: Plan = plan_of(rough(), fixed(4.0, 15), 15.0)
    assert SweepRun(plan, arrivals, 1.0).begins == (9.0, 7_300.0)
    assert SweepRun(plan, arrivals, 1.0, 7, 500.0).begins == (7.0, 500.0)


def test_history_of_one_run_is_that_of_the_other() -> None:
    """What a forecaster reads in the compiled loop is what the fleet would have told it."""
    world = World.of(rough(), 15)
    scenario_fleet = rough().new_fleet()
    scenario_fleet.advance(rough().starts_at + timedelta(hours=1))
    start = rough().starts_at - timedelta(hours=1)
    told = scenario_fleet.demand_history(start, start + timedelta(minutes=90), 15).value
    same: TrafficHistory = world.demand.between(told.start, told.end)
    np.testing.assert_allclose(told.values, same.values)


@pytest.mark.parametrize(
    ("late", "failed", "over"), [(0.0, 2.0, 1), (0.6, 0.6, 1), (0.0, 0.5, 0), (0.9, 0.0, 0)]
)
def test_a_minute_is_over_where_more_than_one_in_a_hundred_is_late_or_failed(
    late: float, failed: float, over: int
) -> None:
    """As in the scorecard of the full loop: what failed has no latency."""
    tally = np.zeros(loop.TALLY_WIDTH)
    loop._count(np.zeros(3), tally, late, failed, 100.0, 60.0)
    assert tally[loop.OVER] == over
