"""The exact engine against the reference, in continuous time, and against theory.

Engine and reference see the same arrivals each second, so what is left of chance is lengths and
choices: with these numbers of requests about 0.1 % at P99 and 0.2 % at P99.9, where the bounds
are 0.3 % and 0.7 %.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator.balancers import Balancer, Balancing, Gateway
from simulator.engines.exact import ExactEngine, ExactSettings
from simulator.engines.histogram import TICK_SECONDS, edges, ticks_of
from simulator.engines.reference import Requests, reference_latencies
from simulator.pod import PROFILES, PodProfile

PROFILE = PROFILES["h100-1200"]
LEVELS = (0.5, 0.99, 0.999)
QUANTILES = (np.arange(4096) + 0.5) / 4096


def exact(routed: Balancer, rates: np.ndarray, pods: int, seed: int) -> ExactEngine:
    engine = ExactEngine(PROFILE, routed, seed, pods)
    engine.activate(pods)
    engine.advance(rates)
    engine.flush()
    return engine


def reference(
    routed: Balancer,
    arrivals: np.ndarray,
    pods: int,
    seed: int,
    connection: np.ndarray | None = None,
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    times = [second + np.sort(rng.random(count)) for second, count in enumerate(arrivals)]
    count = int(arrivals.sum())
    # Every quantile of the lengths equally often, in random order: one source of noise less.
    lengths = np.searchsorted(PROFILE.length_cdf, (np.arange(count) + 0.5) / count)
    rng.shuffle(lengths)
    pinned = routed.balancing is Balancing.PINNED
    requests = Requests(
        np.concatenate(times),
        lengths.astype(np.int64),
        np.full(count, 50),
        rng.random(count),
        rng.random(count),
        rng.integers(0, routed.connections if pinned else routed.clients, count),
    )
    return reference_latencies(PROFILE, routed, requests, np.ones(pods), connection)


def errors(routed: Balancer, load: float, pods: int, seconds: int, runs: int) -> np.ndarray:
    """Mean relative error of the engine at each level, each run against its own reference."""
    rates = np.concatenate([np.full(seconds, load * PROFILE.saturation_qps * pods), np.zeros(14)])
    found = []
    for seed in range(runs):
        engine = exact(routed, rates, pods, seed)
        assert engine.in_flight == 0
        assert engine.timed_out.sum() == 0
        assert engine.completed.sum() == engine.arrivals.sum()
        wanted = np.quantile(reference(routed, engine.arrivals, pods, seed), LEVELS)
        found.append([engine.quantile(level) for level in LEVELS] / wanted - 1)
    return np.array(found)


@pytest.mark.parametrize(
    ("load", "pods", "seconds", "runs"),
    [
        (0.3, 100, 100, 2),
        (0.7, 100, 60, 2),
        (0.9, 100, 60, 2),
        (0.97, 100, 60, 2),
        (1.08, 200, 15, 3),
        (1.25, 200, 8, 3),
    ],
)
def test_p2c_at_every_load(load: float, pods: int, seconds: int, runs: int) -> None:
    p50, p99, p999 = errors(Balancer(), load, pods, seconds, runs).mean(axis=0)
    assert abs(p50) < 0.004
    assert abs(p99) < 0.003
    assert abs(p999) < 0.007


@pytest.mark.parametrize(
    ("routed", "load"),
    [
        (Balancer(Balancing.P2C_LOCAL, clients=50), 0.9),
        (Balancer(Balancing.ROUND_ROBIN), 0.9),
        (Balancer(Balancing.ROUND_ROBIN, clients=16), 0.7),
        (Balancer(Balancing.RANDOM), 0.9),
        (Balancer(Balancing.LEAST_LOADED), 0.9),
    ],
    ids=lambda value: getattr(value, "balancing", value),
)
def test_other_balancers(routed: Balancer, load: float) -> None:
    p50, p99, p999 = errors(routed, load, 50, 80, 2).mean(axis=0)
    assert abs(p50) < 0.004
    assert abs(p99) < 0.003
    assert abs(p999) < 0.007


@pytest.mark.parametrize(
    ("balancing", "load", "limit"),
    [
        (Balancing.P2C, 0.7, None),
        (Balancing.P2C, 0.95, None),
        (Balancing.P2C, 1.1, None),
        (Balancing.P2C, 1.1, 560),
        (Balancing.P2C, 0.7, 210),
        (Balancing.RANDOM, 0.95, None),
        (Balancing.ROUND_ROBIN, 1.1, None),
        (Balancing.LEAST_LOADED, 1.1, None),
    ],
)
def test_a_queue_at_the_gateway(balancing: Balancing, load: float, limit: int | None) -> None:
    """A limit near the mean load holds requests back long before a pod is full, one above the batch
    lets some wait in their pods."""
    routed = Balancer(balancing, gateway=Gateway(limit))
    seconds = 15 if load > 1 else 60
    runs = 4 if load > 1 else 2
    p50, p99, p999 = errors(routed, load, 100, seconds, runs).mean(axis=0)
    assert abs(p50) < 0.004
    assert abs(p99) < 0.003
    assert abs(p999) < 0.007


def test_pinned_connections() -> None:
    """Connections fall on pods by chance and their fleet is uneven: given that, both agree."""
    routed, pods = Balancer(Balancing.PINNED, connections=20_000), 50
    rates = np.concatenate([np.full(60, 0.7 * PROFILE.saturation_qps * pods), np.zeros(10)])
    found = []
    for seed in range(4):
        engine = exact(routed, rates, pods, seed)
        connection = np.random.default_rng(seed + 100).integers(0, pods, routed.connections)
        latencies = reference(routed, engine.arrivals, pods, seed, connection)
        found.append(
            [engine.quantile(level) / np.quantile(latencies, level) - 1 for level in LEVELS]
        )
    p50, p99, _ = np.mean(found, axis=0)
    # The placement of connections is each side's own, hence the wider bounds.
    assert abs(p50) < 0.006
    assert abs(p99) < 0.02


LONG_OUTPUTS = np.rint(np.geomspace(10, 3000, 4096)).astype(np.int64)
MIXED_INPUTS = np.rint(np.geomspace(20, 6000, 4096)).astype(np.int64)


@pytest.mark.parametrize("routing", [Balancing.P2C, Balancing.RANDOM])
def test_outputs_of_thousands_of_tokens_and_prompts_that_fill_the_budget(
    routing: Balancing,
) -> None:
    profile = PodProfile(
        "assistant",
        6e-3,
        2e-5,
        1e-5,
        max_num_seqs=256,
        token_budget=6500,
        timeout_seconds=300.0,
        output_lengths=tuple(LONG_OUTPUTS.tolist()),
        input_lengths=tuple(MIXED_INPUTS.tolist()),
    )
    routed, pods = Balancer(routing), 20
    rates = np.concatenate([np.full(600, 0.75 * profile.saturation_qps * pods), np.zeros(150)])
    found = []
    for seed in range(4):
        engine = ExactEngine(profile, routed, seed, pods, ExactSettings(slot_seconds=2e-3))
        engine.activate(pods)
        engine.advance(rates)
        engine.flush()
        assert engine.in_flight == 0
        assert engine.timed_out.sum() == 0
        latencies = _reference_of(profile, routed, engine.arrivals, pods, seed)
        found.append(
            [engine.quantile(level) / np.quantile(latencies, level) - 1 for level in LEVELS[:2]]
        )
    assert engine.requests.sum() > 100_000
    p50, p99 = np.mean(found, axis=0)
    assert abs(p50) < 0.01
    assert abs(p99) < 0.01


def _reference_of(
    profile: PodProfile, routed: Balancer, arrivals: np.ndarray, pods: int, seed: int
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    times = [second + np.sort(rng.random(count)) for second, count in enumerate(arrivals)]
    count = int(arrivals.sum())
    spread = ((np.arange(count) + 0.5) / count * 4096).astype(np.int64)
    requests = Requests(
        np.concatenate(times),
        rng.permutation(profile.outputs[spread]),
        rng.permutation(profile.inputs[spread]),
        rng.random(count),
        rng.random(count),
        np.zeros(count, dtype=np.int64),
    )
    return reference_latencies(profile, routed, requests, np.ones(pods))


def geometric(mean: float) -> np.ndarray:
    """A table of lengths as near to exponential as 255 tokens allow."""
    lengths = np.ceil(np.log1p(-QUANTILES) / np.log1p(-1 / mean))
    return np.asarray(np.clip(lengths, 1, 255), dtype=np.int64)


def theory_engine(servers: int, name: str, pods: int, load: float, seconds: int) -> ExactEngine:
    """Pods whose step time does not depend on the batch: queues with so many servers each."""
    table = geometric(40.0)
    step = 2e-3
    profile = PodProfile("queue", step, 0.0, 0.0, servers, front_end_seconds=0.0)
    settings = ExactSettings(output_lengths=table)
    engine = ExactEngine(profile, name, 1, pods, settings)
    engine.activate(pods)
    rate = load * servers / (table.mean() * step) * pods
    engine.advance(np.full(seconds, rate))
    engine.flush()
    assert engine.timed_out.sum() == 0
    return engine


def mean_latency(engine: ExactEngine) -> float:
    counts = engine.histograms.sum(axis=0)[:-1]
    limits = edges(ticks_of(1.0))
    middles = (limits[:-1] + limits[1:]) / 2
    return float((counts * middles).sum() / counts.sum() * TICK_SECONDS)


def test_one_server_waits_as_pollaczek_and_khinchine_say() -> None:
    load, service = 0.7, geometric(40.0) * 2e-3
    engine = theory_engine(1, "random", 200, load, 300)
    rate = load / service.mean()
    wait = rate * (service**2).mean() / (2 * (1 - load))
    assert mean_latency(engine) == pytest.approx(service.mean() + wait, rel=0.015)


def test_four_servers_wait_as_erlang_says() -> None:
    load, servers, service = 0.8, 4, geometric(40.0) * 2e-3
    engine = theory_engine(servers, "random", 100, load, 300)
    offered = load * servers
    terms = np.cumprod(np.concatenate([[1.0], offered / np.arange(1, servers + 1)]))
    all_busy = terms[-1] / (1 - load)
    waits = all_busy / (terms[:-1].sum() + all_busy)
    wait = waits * service.mean() / (servers * (1 - load))
    # Allen and Cunneen for lengths that are not quite exponential; and whoever finds the pod busy
    # but a server free waits half a step on average.
    variability = (service**2).mean() / service.mean() ** 2 - 1
    wait *= (1 + variability) / 2
    idle = terms[0] / (terms[:-1].sum() + all_busy)
    half_step = 1e-3 * (1 - idle - waits)
    assert mean_latency(engine) == pytest.approx(service.mean() + wait + half_step, rel=0.015)


def test_two_choices_queue_as_the_supermarket_model_says() -> None:
    load = 0.9
    engine = theory_engine(1, "p2c", 500, load, 120)
    per_pod = (engine.running + engine.waiting)[30:].mean() / 500
    expected = sum(load ** (2**i - 1) for i in range(1, 8))
    assert per_pod == pytest.approx(expected, rel=0.03)


BOUNDS_CHECKED = """
import numpy as np
from simulator.balancers import Balancer, Balancing, Gateway
from simulator.engines.exact import ExactEngine, ExactSettings
from simulator.pod import PodProfile
profile = PodProfile("small", 2.5e-3, 7e-6, 5e-6, max_num_seqs=32, timeout_seconds=2.0)
def play(balancer, settings, empty_seconds):
    engine = ExactEngine(profile, balancer, 1, 6, settings)
    engine.advance(np.full(empty_seconds, 400.0))
    pods = engine.activate(6)
    engine.advance(np.full(4, 2500.0))
    engine.drain(pods[0], grace_seconds=1)
    engine.crash(pods[1])
    engine.advance(np.concatenate([np.full(3, 100.0), np.zeros(55)]))
    engine.flush()
    assert engine.in_flight == engine.held == 0
    assert engine.timed_out.sum() > 0 and engine.shed.sum() > 0
settings = ExactSettings(max_waiting=600, retry_ratio=0.1)
for balancing in Balancing:
    play(Balancer(balancing, clients=3, connections=50), settings, 0)
settings = ExactSettings(retry_ratio=0.1)
for balancing in (Balancing.P2C, Balancing.RANDOM, Balancing.ROUND_ROBIN, Balancing.LEAST_LOADED):
    for limit in (None, 20, 50):
        play(Balancer(balancing, clients=3, gateway=Gateway(limit, 3000)), settings, 4)
"""


def test_no_index_leaves_its_array(tmp_path: Path) -> None:
    """Everything once more with bounds checked, in a process and a cache of its own."""
    environment = {
        **os.environ,
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-c", BOUNDS_CHECKED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
