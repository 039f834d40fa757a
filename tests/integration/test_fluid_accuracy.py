"""The fluid engine against the exact one: the same latencies, the same minutes out of SLO."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.engines.engine import NO_RETRIES, Engine, Minutes, Retries
from simulator.engines.exact_fleet import ExactFleetEngine
from simulator.engines.fluid import FluidEngine
from simulator.pod import PROFILES, PodProfile

PROFILE = PROFILES["h100-1200"]
PODS = 20


def served(engine: Engine, seconds: int) -> Minutes:
    for _ in range(PODS):
        engine.add()
    engine.advance(seconds)
    engine.finish()
    return engine.minutes(1.0)


@pytest.mark.parametrize(
    ("profile", "retries"),
    [
        (replace(PROFILE, timeout_seconds=2.0), NO_RETRIES),
        (replace(PROFILE, max_waiting=100), NO_RETRIES),
        (PROFILE, Retries(0.5, 2)),
        (replace(PROFILE, max_waiting=100), Retries(0.8, 1)),
    ],
    ids=["timeout", "shedding", "retries", "shedding and retries"],
)
def test_lost_requests_of_an_overload(profile: PodProfile, retries: Retries) -> None:
    load = np.concatenate([np.full(240, 0.9), np.full(240, 1.1), np.full(240, 0.6)])
    rates = load * PROFILE.saturation_qps * PODS
    engines = (
        FluidEngine(profile, rates, 1, retries),
        ExactFleetEngine(profile, rates, 1, "p2c", 1.0, retries),
    )
    fluid, exact = (served(engine, len(rates)) for engine in engines)
    assert exact.failed.sum() > 300_000
    assert fluid.failed.sum() == pytest.approx(exact.failed.sum(), rel=0.1)
    assert fluid.late.sum() == pytest.approx(exact.late.sum(), rel=0.05)
    assert fluid.requests.sum() == pytest.approx(exact.requests.sum(), rel=0.005)
    assert np.nanmax(fluid.p99) == pytest.approx(np.nanmax(exact.p99), rel=0.02)
    again = [engine.offered(0, 720).sum() - engine.arrivals(0, 720).sum() for engine in engines]
    assert again[0] == pytest.approx(again[1], rel=0.1)
    assert bool(again[1] > 0) is (retries.ratio > 0)


@pytest.mark.parametrize(
    "profile",
    [PROFILE, replace(PROFILE, max_waiting=1000), replace(PROFILE, max_waiting=13_000)],
    ids=["timeout", "shedding", "both"],
)
def test_what_is_sent_again_comes_when_it_is_given_up(profile: PodProfile) -> None:
    """All of it, through an overload that ends before most requests that it loses are back."""
    load = np.concatenate([np.full(60, 0.9), np.full(30, 1.8), np.full(90, 0.6)])
    rates = load * PROFILE.saturation_qps * PODS
    again = []
    for engine in (
        FluidEngine(profile, rates, 1, Retries(1.0, 3)),
        ExactFleetEngine(profile, rates, 1, "p2c", 1.0, Retries(1.0, 3)),
    ):
        served(engine, len(rates))
        again.append(engine.offered(0, 180) - engine.arrivals(0, 180))
    firsts = [int(np.flatnonzero(each > 0.01 * each.max())[0]) for each in again]
    assert firsts[0] == pytest.approx(firsts[1], abs=2)
    assert again[0].sum() == pytest.approx(again[1].sum(), rel=0.1)


def test_crashes_lose_what_the_pods_had_under_way() -> None:
    rates = np.full(600, 0.7 * PROFILE.saturation_qps * PODS)
    found = []
    for engine in (
        FluidEngine(PROFILE, rates, 1, Retries(1.0, 1)),
        ExactFleetEngine(PROFILE, rates, 1, "p2c", 1.0, Retries(1.0, 1)),
    ):
        pods = [engine.add() for _ in range(PODS)]
        for number in range(3):
            engine.advance(150)
            engine.remove(pods[number])
        engine.advance(150)
        engine.finish()
        lost = engine.minutes(1.0).failed
        again = engine.offered(0, 600).sum() - engine.arrivals(0, 600).sum()
        assert again == pytest.approx(lost.sum(), rel=0.01)
        found.append(lost)
    assert found[1].sum() > 500
    assert found[0].sum() == pytest.approx(found[1].sum(), rel=0.1)


def test_a_draining_pod_ends_when_the_fleet_says_so() -> None:
    """With outputs of minutes a short grace loses requests, and a long one none."""
    wordy = replace(PROFILE, output_lengths=(20_000,) * 4096, timeout_seconds=600.0)
    lost = []
    for grace in (30, 120):
        rates = np.concatenate([np.full(60, 0.5 * wordy.saturation_qps * 2), np.zeros(140)])
        engine = ExactFleetEngine(wordy, rates, 1, "p2c", 1.0)
        pods = [engine.add() for _ in range(2)]
        engine.advance(60)
        engine.drain(pods[0])
        engine.advance(grace)
        engine.remove(pods[0])
        engine.advance(140 - grace)
        engine.finish()
        lost.append(engine.minutes(1.0).failed.sum())
    assert lost[0] > 10
    assert lost[1] == 0


def test_an_hour_through_an_overload_and_back() -> None:
    load = np.concatenate(
        [
            np.linspace(0.5, 0.95, 1200),
            np.linspace(0.95, 1.06, 600),
            np.linspace(1.06, 0.7, 900),
            np.full(900, 0.7),
        ]
    )
    rates = load * PROFILE.saturation_qps * PODS
    fluid = served(FluidEngine(PROFILE, rates, 1), len(rates))
    exact = served(ExactFleetEngine(PROFILE, rates, 1, "p2c", 1.0), len(rates))
    error = np.abs(fluid.p99 / exact.p99 - 1)
    overloaded = exact.p99 > 1.2
    assert 5 < overloaded.sum() < 30
    assert error[~overloaded].mean() < 0.01
    assert error[overloaded].mean() < 0.05
    assert np.array_equal(fluid.p99 > 1.0, exact.p99 > 1.0)
    assert fluid.requests.sum() == pytest.approx(exact.requests.sum(), rel=0.001)
    assert fluid.failed.sum() == pytest.approx(exact.failed.sum(), rel=0.1)


def test_what_waits_and_gives_up_in_time_is_seen_until_then() -> None:
    """Concurrency autoscalers go by it: three times the load that can be served, then more pods."""
    load = np.concatenate([np.full(60, 0.8), np.full(60, 3.0)])
    rates = load * PROFILE.saturation_qps * PODS
    fluid, exact = FluidEngine(PROFILE, rates, 1), ExactFleetEngine(PROFILE, rates, 1, "p2c", 1.0)
    seen = []
    for engine in (fluid, exact):
        for _ in range(PODS):
            engine.add()
        engine.advance(90)
        for _ in range(PODS // 2):
            engine.add()
        engine.advance(30)
        seen.append(engine.seen(0, 120).waiting)
    assert seen[0][60:75] == pytest.approx(seen[1][60:75], rel=0.1, abs=3000)
    for second in (75, 89, 119):
        assert seen[0][second] == pytest.approx(seen[1][second], rel=0.02)
    assert seen[0][89] == pytest.approx(3.0 * PROFILE.saturation_qps * PODS * 10, rel=0.02)
