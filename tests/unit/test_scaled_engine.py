"""One pod in k simulated: the load of each is exact, and all counts are the whole fleet's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from simulator.balancers import Balancer
from simulator.engines.engine import Engine, Retries
from simulator.engines.exact_fleet import ExactFleetEngine
from simulator.engines.registry import ENGINES, EngineSettings
from simulator.engines.scaled import ScaledEngine, parts
from simulator.pod import PROFILES

PROFILE = PROFILES["h100-1200"]
LOAD = 0.8 * PROFILE.saturation_qps


def made(rates: np.ndarray, scale: int, seed: int = 1) -> ScaledEngine:
    return ScaledEngine(ExactFleetEngine(PROFILE, rates, seed, "p2c", 1.0), rates, scale)


def eventful(engine: Engine) -> None:
    """Two minutes of a fleet that grows, shrinks, loses a pod and has slow ones."""
    pods = [engine.add(1.5 if number % 10 == 0 else 1.0) for number in range(100)]
    engine.advance(30)
    pods += [engine.add() for _ in range(25)]
    engine.advance(30)
    for pod in pods[-40:]:
        engine.drain(pod)
    engine.advance(20)
    for pod in pods[-40:]:
        engine.remove(pod)
    engine.remove(pods.pop(3))
    engine.advance(40)
    engine.finish()


def test_one_in_one_is_the_exact_engine_itself() -> None:
    rates = np.linspace(60_000, 90_000, 120)
    exact, scaled = ExactFleetEngine(PROFILE, rates, 1, "p2c", 1.0), made(rates, 1)
    for engine in (exact, scaled):
        pods = [engine.add() for _ in range(90)]
        engine.advance(50)
        for pod in pods[-10:]:
            engine.drain(pod)
        engine.advance(70)
        engine.finish()
    assert scaled.minutes(1.0).late.tolist() == exact.minutes(1.0).late.tolist()
    assert scaled.minutes(1.0).requests.tolist() == exact.minutes(1.0).requests.tolist()
    assert scaled.seen(0, 120).running.tolist() == exact.seen(0, 120).running.tolist()
    assert scaled.offered(0, 120) == pytest.approx(exact.offered(0, 120))
    assert scaled.quantiles((0.5, 0.99)) == exact.quantiles((0.5, 0.99))


def test_a_tenth_measures_what_the_whole_fleet_measures() -> None:
    rates = np.full(120, 85 * LOAD)
    exact, scaled = ExactFleetEngine(PROFILE, rates, 1, "p2c", 1.0), made(rates, 10)
    for engine in (exact, scaled):
        eventful(engine)
    whole, tenth = exact.minutes(1.0), scaled.minutes(1.0)
    assert tenth.requests.sum() == pytest.approx(whole.requests.sum(), rel=0.003)
    assert tenth.p99 == pytest.approx(whole.p99, rel=0.02)
    assert scaled.quantiles((0.5, 0.99)) == pytest.approx(exact.quantiles((0.5, 0.99)), rel=0.02)
    edges = np.array([0.3, 0.6, 0.9])
    assert scaled.slower_shares(edges) == pytest.approx(exact.slower_shares(edges), abs=0.01)
    running = scaled.seen(0, 120).running / exact.seen(0, 120).running
    assert running[20:] == pytest.approx(np.ones(100), abs=0.12)
    assert running[20:].mean() == pytest.approx(1.0, abs=0.02)


def test_every_request_of_a_minute_is_recorded_dropped_or_still_under_way() -> None:
    """The engine's own law is proved by `finish`; the whole fleet's counts keep to it."""
    rates = np.concatenate([np.full(60, 85 * LOAD), np.zeros(60)])
    scaled = made(rates, 10)
    pods = [scaled.add() for _ in range(87)]
    scaled.advance(30)
    for pod in pods[:10]:
        scaled.remove(pod)
    scaled.advance(90)
    scaled.finish()
    assert scaled.minutes(1.0).requests.sum() == pytest.approx(scaled.offered(0, 120).sum())
    assert scaled.minutes(1.0).failed.sum() > 0


def test_the_load_of_a_pod_is_exact_however_the_division_rounds() -> None:
    for pods in (87, 94, 96, 104):
        scaled = made(np.full(300, pods * LOAD), 10)
        for _ in range(pods):
            scaled.add()
        scaled.advance(300)
        simulated = scaled._simulated
        assert simulated.arrivals(0, 300).mean() == pytest.approx(
            round(pods / 10) * LOAD, rel=4 / np.sqrt(300 * 9 * LOAD)
        )


def test_what_is_observed_has_the_noise_of_the_whole_fleet_s_traffic() -> None:
    rates = np.full(600, 50_000.0)
    scaled = made(rates, 25)
    for _ in range(100):
        scaled.add()
    scaled.advance(600)
    seen = scaled.offered(0, 600)
    assert seen.mean() == pytest.approx(50_000, rel=4 / np.sqrt(600 * 50_000 / 25))
    assert seen.var() == pytest.approx(50_000, rel=0.2)


def test_crashes_lose_as_much_as_they_would_on_the_whole_fleet() -> None:
    rates = np.full(200, 100 * LOAD)
    failed = []
    for engine in (ExactFleetEngine(PROFILE, rates, 1, "p2c", 1.0), made(rates, 10)):
        pods = [engine.add() for _ in range(100)]
        for turn in range(30):
            engine.advance(5)
            engine.remove(pods[turn])
            engine.add()
        engine.advance(50)
        engine.finish()
        failed.append(float(engine.minutes(1.0).failed.sum()))
    assert failed[1] == pytest.approx(failed[0], rel=0.1)


def test_slow_pods_keep_their_share_while_the_fleet_changes() -> None:
    scaled = made(np.full(10, 1000.0), 10)
    pods = [scaled.add(1.5 if number % 5 == 0 else 1.0) for number in range(100)]
    assert Counter(scaled._stand_ins.values()) == {1.0: 8, 1.5: 2}
    for pod in pods[:50]:
        scaled.drain(pod)
    assert Counter(scaled._stand_ins.values()) == {1.0: 4, 1.5: 1}
    new = [scaled.add(2.0) for _ in range(50)]
    assert Counter(scaled._stand_ins.values()) == {1.0: 4, 1.5: 1, 2.0: 5}
    for pod in new:
        scaled.set_speed(pod, 1.0)
    assert Counter(scaled._stand_ins.values()) == {1.0: 9, 1.5: 1}


def test_a_drained_pod_takes_along_what_it_had_not_finished() -> None:
    """Over its grace the stand-in is removed, however much it still serves."""
    rates = np.full(20, 100 * 1.5 * LOAD)
    scaled = made(rates, 10)
    pods = [scaled.add() for _ in range(100)]
    scaled.advance(8)
    for pod in pods[-10:]:
        scaled.drain(pod)
    assert len(scaled._stand_ins) == 9
    scaled.advance(1)
    for pod in pods[-10:]:
        scaled.remove(pod)
    scaled.advance(11)
    scaled.finish()
    failed = scaled._simulated._exact.failed.sum()
    assert failed > 100


def test_lost_requests_that_come_again_are_counted_for_the_whole_fleet() -> None:
    settings = EngineSettings(1, Balancer(), 1.0, Retries(1.0, 2), 10)
    engine = ENGINES["exact"](PROFILE, np.full(12, 5_000.0), settings)
    engine.advance(4)
    for _ in range(20):
        engine.add()
    engine.advance(8)
    again = engine.offered(0, 12) - engine.arrivals(0, 12)
    assert again[2:6].sum() == pytest.approx(5_000 * 6, rel=0.05)


@pytest.mark.parametrize(
    ("counts", "total", "expected"),
    [
        ({1.0: 90, 1.5: 10}, 10, {1.0: 9, 1.5: 1}),
        ({1.0: 96, 1.5: 4}, 10, {1.0: 10, 1.5: 0}),
        ({1.0: 95, 1.5: 5}, 10, {1.0: 10, 1.5: 0}),
        ({1.0: 1}, 1, {1.0: 1}),
        ({}, 0, {}),
    ],
)
def test_parts_are_whole_and_nearest(
    counts: dict[float, int], total: int, expected: dict[float, int]
) -> None:
    assert parts(Counter(counts), total) == expected
