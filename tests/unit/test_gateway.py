"""Requests that wait at the gateway: in line for all pods, also for those that come later."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.balancers import Balancer, Balancing, Gateway
from simulator.engines.exact import ExactEngine, ExactSettings
from simulator.engines.registry import ENGINES, EngineSettings
from simulator.pod import PROFILES, PodProfile

PROFILE = PROFILES["h100-1200"]
SMALL = PodProfile("small", 2.5e-3, 7e-6, 5e-6, max_num_seqs=32, timeout_seconds=2.0)
AT_GATEWAY = Balancer(gateway=Gateway())
SHARED = (Balancing.P2C, Balancing.RANDOM, Balancing.ROUND_ROBIN, Balancing.LEAST_LOADED)


def made(routed: Balancer, pods: int, profile: PodProfile = PROFILE) -> ExactEngine:
    engine = ExactEngine(profile, routed, 3, 60)
    engine.activate(pods)
    return engine


@pytest.mark.parametrize("balancing", SHARED)
def test_no_pod_ever_has_more_than_the_gateway_may_send_it(balancing: Balancing) -> None:
    engine = made(Balancer(balancing, gateway=Gateway(100)), 5)
    for _ in range(6):
        engine.advance(np.full(1, 6000.0))
        assert max(engine.outstanding(pod) for pod in engine.active) <= 100
    assert engine.held > 1000
    assert engine.waiting[-1] >= engine.held


@pytest.mark.parametrize("balancing", SHARED)
def test_nobody_waits_outside_while_a_pod_has_room(balancing: Balancing) -> None:
    engine = made(Balancer(balancing, gateway=Gateway(150)), 10)
    engine.advance(np.full(5, 0.5 * 10 * PROFILE.saturation_qps))
    assert engine.held == 0
    engine.advance(np.full(3, 1.5 * 10 * PROFILE.saturation_qps))
    assert engine.held > 0
    # What a slot may have freed since is all that is missing.
    assert min(engine.outstanding(pod) for pod in engine.active) > 120


@pytest.mark.parametrize("balancing", SHARED)
def test_every_request_is_recorded_lost_held_or_in_a_pod(balancing: Balancing) -> None:
    settings = ExactSettings(retry_ratio=0.3)
    routed = Balancer(balancing, gateway=Gateway(max_waiting=1500))
    engine = ExactEngine(SMALL, routed, 3, 8, settings)
    first = engine.activate(4)
    engine.advance(np.full(6, 1500.0))
    engine.drain(first[0], grace_seconds=1)
    engine.crash(first[1])
    engine.advance(np.full(3, 1500.0))
    inside = sum(engine.outstanding(pod) for pod in engine.active)
    engine.flush()  # proves conservation
    assert engine.in_flight == engine.held + inside
    assert engine.held > 1000
    for lost in (engine.timed_out, engine.shed, engine.failed):
        assert lost.sum() > 0
    assert engine.total_retries > 0


def test_without_a_pod_requests_wait_for_one() -> None:
    engine = made(AT_GATEWAY, 0)
    engine.advance(np.full(4, 3000.0))
    assert engine.held == engine.total_arrivals
    engine.activate(10)
    engine.advance(np.zeros(10))
    engine.flush()
    assert engine.in_flight == 0
    assert engine.completed.sum() == engine.total_arrivals
    # The first have waited for four seconds, the last for none: latency counts from arrival.
    assert 2.0 < engine.quantile(0.5) < 3.0
    assert 4.0 < engine.quantile(0.99) < 4.8


def test_who_waits_too_long_or_finds_the_line_too_long_is_lost() -> None:
    patient = made(AT_GATEWAY, 0, SMALL)
    patient.advance(np.concatenate([np.full(1, 500.0), np.zeros(3)]))
    assert patient.timed_out.tolist() == [patient.total_arrivals]
    short = made(Balancer(gateway=Gateway(max_waiting=200)), 0)
    short.advance(np.full(1, 500.0))
    assert short.held == 200
    assert short.shed.tolist() == [short.total_arrivals - 200]


def test_pods_that_come_later_take_their_part_of_the_backlog_at_once() -> None:
    """After half a minute of overload there are three times as many pods: all of them share what
    waits at the gateway, while what waits in pods stays there."""

    def surge(routed: Balancer) -> ExactEngine:
        engine = made(routed, 20)
        engine.advance(np.full(30, 1.25 * 20 * PROFILE.saturation_qps))
        engine.activate(40)
        engine.advance(np.full(40, 0.9 * 20 * PROFILE.saturation_qps))
        engine.flush()
        assert engine.in_flight == engine.total_arrivals - engine.requests.sum()
        return engine

    def seconds_until_calm(engine: ExactEngine) -> int:
        calm = 1.3 * engine.running[-10:].mean()
        late = np.flatnonzero((engine.running + engine.waiting)[30:] > calm)
        return int(late[-1]) + 1 if len(late) else 0

    apart, together = surge(Balancer()), surge(AT_GATEWAY)
    assert seconds_until_calm(together) < 0.7 * seconds_until_calm(apart)
    assert together.quantile(0.999) < apart.quantile(0.999)


def test_a_line_outside_costs_a_freed_place_one_step() -> None:
    """A pod that is full admits the next request only a step after the one that left: with room
    for those that leave in a step, it serves as much as with its own line."""

    def served(routed: Balancer) -> float:
        engine = made(routed, 5)
        engine.advance(np.full(25, 1.3 * 5 * PROFILE.saturation_qps))
        inside = engine.running + engine.waiting
        return float(engine.arrivals[10:].sum() - (inside[-1] - inside[9])) / 15

    own = served(Balancer())
    # Of 51 steps that a place is taken, it is used in 50; with fewer running, steps are shorter.
    used = PROFILE.batch * 50 / 51
    step = PROFILE.t0_seconds + PROFILE.slope_seconds * used
    lower = used / PROFILE.output_tokens / step / PROFILE.saturation_qps
    assert lower < 0.996
    assert served(AT_GATEWAY) == pytest.approx(own * lower, rel=0.0015)
    assert served(Balancer(gateway=Gateway(540))) == pytest.approx(own, rel=0.0015)


def test_a_tenth_of_the_pods_has_a_tenth_of_the_line() -> None:
    settings = EngineSettings(balancer=Balancer(gateway=Gateway(max_waiting=50_000)), scale=10)
    engine = ENGINES["exact"](PROFILE, np.full(10, 30_000.0), settings)
    engine.advance(10)
    assert engine.seen(0, 10).waiting[-1] == 50_000


def test_what_has_no_common_line_is_refused() -> None:
    for balancing in (Balancing.P2C_LOCAL, Balancing.PINNED):
        with pytest.raises(ValueError, match="no queue that they share"):
            Balancer(balancing, gateway=Gateway())
    with pytest.raises(ValueError, match="from 1 to 65535 requests"):
        Gateway(0)
    with pytest.raises(ValueError, match="no fewer than 0"):
        Gateway(max_waiting=-1)
