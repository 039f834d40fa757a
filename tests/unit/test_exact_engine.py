"""The exact engine on small fleets: repeatability, conservation, pods that come and go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.balancers import Balancer, Balancing, Gateway, balancer
from simulator.engines.exact import ExactEngine, ExactSettings, most_pods, slot_within
from simulator.engines.histogram import (
    BEYOND,
    TICK_SECONDS,
    WIDTH,
    bucket_of,
    late_count,
    quantile,
    ticks_of,
)
from simulator.engines.random_streams import ARRIVALS, poisson, stream_key
from simulator.pod import PROFILES, PodProfile

PROFILE = PROFILES["h100-1200"]
SHARED = ("p2c", "round_robin", "random", "least_loaded")
PINNED = Balancer(Balancing.PINNED, connections=200, churn_per_second=0.05)
BALANCERS = [PINNED, Balancer(Balancing.ROUND_ROBIN, clients=7)] + [
    balancer(name) for name in ("p2c", "p2c_local", "random", "least_loaded")
]
LINED_UP = [
    replace(routed, gateway=Gateway(450)) for routed in BALANCERS if routed.balancing in SHARED
]


def eventful(routed: Balancer, batches: tuple[int, ...]) -> ExactEngine:
    """A minute with a ramp, a crash, a drain that ends early, one that does not, and a slow pod."""
    engine = ExactEngine(
        PROFILE, routed, 5, 12, ExactSettings(retry_ratio=0.7, retry_delay_seconds=4)
    )
    first = engine.activate(6)
    rates = np.linspace(2000, 5500, 70)
    for second, act in (
        (10, lambda: engine.set_speed(first[2], 1.5)),
        (20, lambda: engine.crash(first[0])),
        (30, lambda: engine.activate(3, speed_factor=1.2)),
        (40, lambda: engine.drain(first[1])),
        (50, lambda: engine.drain(first[3], grace_seconds=0.2)),
        (70, lambda: None),
    ):
        step = 0
        while engine.clock < second:
            length = min(batches[step % len(batches)], second - engine.clock)
            engine.advance(rates[engine.clock : engine.clock + length])
            step += 1
        act()
    engine.flush()
    return engine


def fingerprint(engine: ExactEngine) -> bytes:
    by_second = (
        engine.arrivals,
        engine.retried,
        engine.running,
        engine.waiting,
        engine.ready,
    )
    by_minute = (engine.histograms, engine.failed, engine.timed_out, engine.shed)
    return b"".join(values.tobytes() for values in (*by_second, *by_minute))


@pytest.mark.parametrize(
    "routed",
    BALANCERS + LINED_UP,
    ids=lambda routed: routed.balancing + ("_at_gateway" if routed.gateway else ""),
)
def test_repeats_bit_for_bit_in_whatever_batches_time_is_advanced(routed: Balancer) -> None:
    once = eventful(routed, (70,))
    assert fingerprint(once) == fingerprint(eventful(routed, (70,)))
    assert fingerprint(once) == fingerprint(eventful(routed, (1,)))
    assert fingerprint(once) == fingerprint(eventful(routed, (3, 4)))
    assert once.failed.sum() > 0
    assert once.draining == []
    assert len(once.active) == 6


def test_arrivals_do_not_depend_on_pods_or_balancer() -> None:
    def arrivals(name: str, pods: int, seed: int) -> list[int]:
        engine = ExactEngine(PROFILE, name, seed, 20)
        engine.activate(pods)
        engine.advance(np.full(5, 3000.0))
        return [int(count) for count in engine.arrivals]

    assert arrivals("p2c", 4, 1) == arrivals("random", 20, 1)
    assert arrivals("p2c", 4, 1) != arrivals("p2c", 4, 2)


def test_requests_without_a_pod_fail_and_are_conserved() -> None:
    engine = ExactEngine(PROFILE, seed=1)
    engine.advance(np.full(3, 500.0))
    engine.activate(2)
    engine.advance(np.full(3, 500.0))
    engine.flush()
    assert engine.failed.tolist() == [engine.arrivals[:3].sum()]
    assert engine.completed.sum() + engine.in_flight == engine.arrivals[3:].sum()


@pytest.mark.parametrize("name", ["p2c", "p2c_local"])
def test_overload_times_out_sheds_and_retries_within_bounds(name: str) -> None:
    profile = PodProfile("small", 2.5e-3, 7e-6, 5e-6, max_num_seqs=32, timeout_seconds=2.0)
    overload = np.concatenate([np.full(12, 1500.0), np.zeros(12)])

    def run(settings: ExactSettings) -> ExactEngine:
        engine = ExactEngine(profile, name, 3, 4, settings)
        engine.activate(4)
        engine.advance(overload)
        engine.flush()
        assert engine.in_flight == 0
        return engine

    plain = run(ExactSettings())
    assert plain.timed_out.sum() > 1000
    assert plain.quantile(1.0) < 2.0 + 2.5
    shedding = run(ExactSettings(max_waiting=20))
    assert shedding.shed.sum() > 1000
    assert shedding.timed_out.sum() == 0
    assert shedding.quantile(0.99) < plain.quantile(0.5)
    retrying = run(ExactSettings(retry_ratio=0.5, retry_delay_seconds=2))
    assert retrying.total_arrivals == plain.total_arrivals
    lost = retrying.requests.sum() - retrying.completed.sum()
    assert retrying.total_retries == pytest.approx(0.5 * lost, abs=1)
    assert lost > plain.timed_out.sum()


def test_lost_requests_come_again_after_the_delay_and_are_conserved() -> None:
    engine = ExactEngine(PROFILE, "p2c", 3, 4, ExactSettings(retry_ratio=1, retry_delay_seconds=3))
    engine.advance(np.concatenate([np.full(2, 500.0), np.zeros(3)]))
    pods = engine.activate(3)
    engine.advance(np.zeros(10))
    arrived = engine.arrivals
    # Each second's come again three seconds later, and once more, until there are pods.
    assert engine.retried[:9].tolist() == [0, 0, 0, *arrived[:2], 0, *arrived[:2], 0]
    engine.advance(np.full(3, 2000.0))
    engine.crash(pods[0])
    lost = engine.failed.sum() - 2 * arrived[:2].sum()
    engine.advance(np.zeros(10))
    assert engine.retried[-10:].sum() == lost > 100
    engine.flush()
    assert engine.in_flight == 0


def test_more_retries_than_a_slot_holds_wait_for_the_next_second() -> None:
    settings = ExactSettings(retry_ratio=1, slot_seconds=2.5e-3)
    engine = ExactEngine(PROFILE, "random", 3, 4, settings)
    rate = 8_000_000.0
    for _ in range(3):
        engine.advance(np.full(1, rate))
    assert engine.retried.max() == 400 * 32_768
    assert engine.failed.sum() == engine.arrivals.sum() + engine.retried.sum()


def test_token_budget_and_kv_cap_limit_admission() -> None:
    plain = PodProfile("plain", 2.5e-3, 7e-6, 5e-6)
    tight = PodProfile("tight", 2.5e-3, 7e-6, 5e-6, token_budget=700)
    small = PodProfile("small", 2.5e-3, 7e-6, 5e-6, kv_tokens=20_000)

    def most_running(profile: PodProfile) -> int:
        engine = ExactEngine(profile, "random", 1, 2)
        engine.activate(2)
        engine.advance(np.full(8, 2 * 1150.0))
        return int(engine.running.max())

    assert most_running(small) <= 2 * 200 < most_running(plain)
    assert most_running(tight) < most_running(plain)


def test_input_lengths_may_differ() -> None:
    inputs = np.tile([20, 80], 2048)
    same = np.full(4096, 50)

    def p50(table: np.ndarray) -> float:
        engine = ExactEngine(PROFILE, "p2c", 1, 10, ExactSettings(input_lengths=table))
        engine.activate(10)
        engine.advance(np.full(20, 8400.0))
        engine.flush()
        return engine.quantile(0.5)

    assert p50(inputs) == pytest.approx(p50(same), rel=0.01)


def test_a_prompt_that_does_not_fit_stays_long() -> None:
    """Were its length drawn again at each step, long prompts would never be admitted."""
    profile = PodProfile(
        "prompts",
        5e-3,
        1e-5,
        1e-5,
        max_num_seqs=64,
        token_budget=2100,
        timeout_seconds=1000.0,
        output_lengths=(20,) * 4096,
        input_lengths=(100,) * 2048 + (2000,) * 2048,
    )
    engine = ExactEngine(profile, "p2c", 1, 4)
    engine.activate(4)
    engine.advance(np.concatenate([np.full(100, 400.0), np.zeros(900)]))
    engine.flush()
    assert engine.in_flight == 0
    # Half of the prompts are long, and no two of those fit one step of 25 ms.
    busy = np.flatnonzero(engine.running)[-1] + 1
    assert busy > engine.arrivals.sum() / 2 / 4 * 0.025


@pytest.mark.parametrize(
    ("t0", "slot"), [(2.5e-3, 1e-3), (3.4e-3, 1e-3), (5e-3, 2e-3), (0.03, 0.01), (4e-4, 1e-4)]
)
def test_slots_are_a_share_of_a_step(t0: float, slot: float) -> None:
    assert slot_within(t0) == slot


def test_steps_too_short_for_any_slot_are_refused() -> None:
    with pytest.raises(ValueError, match="too short to be simulated"):
        slot_within(1e-4)


def test_memory_bounds_the_pods() -> None:
    assert most_pods(PROFILE, 1e-3) > 4000
    patient = replace(PROFILE, timeout_seconds=600.0)
    assert 100 < most_pods(patient, 1e-3) < 1000
    wordy = replace(PROFILE, output_lengths=(40_000,) * 4096)
    assert most_pods(wordy, 1e-3) == 1024


def test_p2c_routes_around_slow_pods() -> None:
    def p99(name: str) -> float:
        engine = ExactEngine(PROFILE, name, 1, 20)
        engine.activate(18)
        engine.activate(2, speed_factor=1.5)
        engine.advance(np.full(20, 20 * 838.0))
        engine.flush()
        return engine.quantile(0.99)

    assert p99("p2c") < 0.85
    assert p99("round_robin") > 1.2
    assert p99("least_loaded") < 0.85


def test_a_row_is_clean_when_another_pod_gets_it() -> None:
    engine = ExactEngine(PROFILE, seed=1, max_pods=2)
    for _ in range(5):
        pods = engine.activate(2)
        engine.advance(np.full(3, 1500.0))
        engine.crash(pods[0])
        engine.drain(pods[1])
        engine.advance(np.zeros(8))
        assert engine.active == []
    engine.flush()
    assert engine.in_flight == 0
    assert engine.failed.sum() < 1000


def test_seconds_keep_their_mean_rate_on_a_ramp_and_at_a_cliff() -> None:
    rates = np.concatenate([np.linspace(1000, 20_000, 20), np.full(5, 50.0)])
    engine = ExactEngine(PROFILE, seed=1, max_pods=30)
    engine.activate(30)
    engine.advance(rates)
    assert np.all(np.abs(engine.arrivals - rates) < 5 * np.sqrt(rates))


def test_minutes_are_those_of_arrival() -> None:
    engine = ExactEngine(PROFILE, seed=1, max_pods=4)
    engine.activate(4)
    engine.advance(np.concatenate([np.zeros(59), [2000.0], np.zeros(10)]))
    engine.flush()
    assert engine.requests.tolist() == [engine.arrivals[59], 0]


def test_latencies_beyond_the_histogram_are_clamped_and_counted() -> None:
    slow = PodProfile("slow", 0.5, 0.0, 0.0, max_num_seqs=1, timeout_seconds=2000.0)
    engine = ExactEngine(slow, "p2c", 1, 1, ExactSettings(slot_seconds=0.1))
    engine.activate(1)
    engine.advance(np.concatenate([np.full(60, 1.0), np.zeros(2000)]))
    engine.flush()
    assert engine.in_flight == 0
    assert engine.beyond_histogram > 5
    assert bucket_of(np.uint32(2**32 - 1), np.uint32(1000)) == WIDTH - 1
    assert bucket_of(np.uint32(0), np.uint32(1000)) == 0


@pytest.mark.parametrize("objective", [0.5, 1.0, 3.0])
def test_histogram_counts_late_exactly_and_interpolates_quantiles(objective: float) -> None:
    latencies = np.random.default_rng(1).lognormal(-0.5, 0.6, 50_000)
    ticks = np.array([ticks_of(latency) for latency in latencies])
    limit = ticks_of(objective)
    counts = np.zeros(WIDTH, dtype=np.int64)
    for latency in ticks:
        counts[bucket_of(np.uint32(latency), np.uint32(limit))] += 1
    assert late_count(counts, limit) == (ticks > limit).sum()
    for level in (0.01, 0.5, 0.99, 0.999):
        exact = np.quantile(ticks, level) * TICK_SECONDS
        assert quantile(counts, level, limit) == pytest.approx(exact, rel=2e-3)
    assert np.isnan(quantile(np.zeros(WIDTH, dtype=np.int64), 0.5, limit))
    assert BEYOND == WIDTH - 2


@pytest.mark.parametrize("mean", [0.3, 5.0, 40.0, 700.0])
def test_poisson_counts_have_their_mean_and_variance(mean: float) -> None:
    cells = np.arange(20_000, dtype=np.uint64)
    keys = [np.uint64(stream_key(np.uint64(9), ARRIVALS, cell)) for cell in cells]
    counts = np.array([poisson(mean, key) for key in keys])
    assert counts.mean() == pytest.approx(mean, rel=5 / np.sqrt(20_000 * mean))
    assert counts.var() == pytest.approx(mean, rel=0.06)


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 65535 tokens"):
        ExactEngine(PROFILE, settings=ExactSettings(output_lengths=np.full(4096, 70_000)))
    with pytest.raises(
        ValueError, match="longest output would take 6,789 s, more than the engine's clock"
    ):
        ExactEngine(replace(PROFILE, t0_seconds=0.1, output_lengths=(65_535,) * 4096)).activate()
    with pytest.raises(ValueError, match="no longer than t0"):
        ExactEngine(PROFILE, settings=ExactSettings(slot_seconds=4e-3))
    with pytest.raises(ValueError, match="can admit no request"):
        ExactEngine(PodProfile("x", 2.5e-3, 7e-6, 5e-6, token_budget=500))
    with pytest.raises(ValueError, match="retries need a ratio from 0 to 1"):
        ExactEngine(PROFILE, settings=ExactSettings(retry_ratio=1.5))
    with pytest.raises(ValueError, match="retries need a ratio from 0 to 1"):
        ExactEngine(PROFILE, settings=ExactSettings(retry_delay_seconds=0))
    with pytest.raises(ValueError, match="unknown balancer"):
        balancer("lucky")
    with pytest.raises(ValueError, match="shorter than a slot"):
        ExactEngine(PROFILE).activate(1, speed_factor=0.3)
    with pytest.raises(ValueError, match="max_pods"):
        ExactEngine(PROFILE, max_pods=3).activate(4)
    engine = ExactEngine(PROFILE)
    with pytest.raises(ValueError, match="not negative"):
        engine.advance(np.array([-1.0]))
    with pytest.raises(ValueError, match="arrivals in a slot"):
        engine.advance(np.array([1e9]))
    engine.flush()
    with pytest.raises(ValueError, match="flushed"):
        engine.advance(np.array([1.0]))
