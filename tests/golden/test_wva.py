"""llm-d's WVA: spare capacity by one, and tokens by as many as needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from policies.context import Observation, Replicas, ScalingContext
from policies.engine import decide
from policies.peers import wva_v1, wva_v2
from tests.golden.sequence import decided, later
from tests.situations import NOON, settings, situation

TOKENS = {"kvCacheTokens": 500_000.0, "inputTokens": 1_000.0, "outputTokens": 250.0}


def pods(
    name: str,
    count: int,
    kv: float | None,
    running: float = 0.0,
    waiting: float = 0.0,
    parameters: Mapping[str, float] = {},
) -> ScalingContext:
    policy = settings(name, parameters=parameters)
    seen = Observation(NOON, None, running, waiting, kv_cache_usage_ratio=kv)
    return replace(situation(count, policy=policy), observation=seen)


@pytest.mark.parametrize(
    ("kv", "waiting", "expected"),
    [
        ([0.65, 0.72], [0, 1], 0),
        ([0.65, 0.75], [0, 1], 0),  # 0.10 to spare is not below 0.10
        ([0.65, 0.76], [0, 1], 1),
        ([0.3] * 4, [0] * 4, -1),
        ([0.3], [0], 0),
        ([0.85, 0.9], [0, 0], 1),
        ([0.3, 0.3], [2.5, 2.5], 1),
        ([0.3, 0.3], [1.5, 1.5], 0),
    ],
)
def test_v1(kv: list[float], waiting: list[float], expected: int) -> None:
    assert wva_v1.verdict(kv, waiting) == expected


@pytest.mark.parametrize(("kv", "expected"), [(0.3, 3), (0.69, 4), (0.75, 5)])
def test_v1_moves_by_one(kv: float, expected: int) -> None:
    assert decide(pods("wva_v1", 4, kv)).desired == expected


def test_v1_goes_by_the_last_minutes_peak() -> None:
    busy, calm = pods("wva_v1", 4, 0.75), pods("wva_v1", 4, 0.69)
    contexts = [later(busy, 15), later(calm, 30), later(calm, 60)]
    assert [decision.desired for decision in decided(contexts)] == [5, 4, 5]


def test_v1_decides_once_a_minute() -> None:
    contexts = [later(pods("wva_v1", 4, 0.3), 15.0 * tick) for tick in range(6)]
    assert [decision.desired for decision in decided(contexts)] == [3, 4, 4, 4, 3, 4]


def test_v1_waits_while_replicas_start() -> None:
    context = replace(pods("wva_v1", 4, 0.3), replicas=Replicas(4, 3, (NOON,)))
    assert decide(context).desired == 4


def test_v1_by_tokens_where_usage_is_not_observed() -> None:
    """1,600 requests of 1,125 tokens on 4 replicas of 500,000: 0.90 of the cache."""
    assert decide(pods("wva_v1", 4, None, 1_600.0, parameters=TOKENS)).desired == 5
    assert decide(pods("wva_v1", 4, None, 1_600.0)).desired == 4


@pytest.mark.parametrize(
    ("demand", "ready", "pending", "expected"),
    [
        (1.5e6, 3, 1, 1),
        (0.6e6, 4, 0, -1),
        (1.5e6, 3, 0, 2),
        (1.2e6, 4, 0, 0),
        (0.0, 4, 0, -3),
    ],
)
def test_v2(demand: float, ready: int, pending: int, expected: int) -> None:
    assert wva_v2.verdict(demand, 400_000.0, ready, pending) == expected


@pytest.mark.parametrize(
    ("prompt", "output", "expected"), [(1_000.0, 250.0, 288_000), (4_000.0, 100.0, 809_209)]
)
def test_v2_tokens_that_a_batch_holds(prompt: float, output: float, expected: int) -> None:
    assert wva_v2.batch_tokens(8_192.0, 256.0, prompt, output) == expected


def test_v2_sizes_by_cache_or_batch_whichever_is_less() -> None:
    """The batch holds 288,000 tokens; 4 x 0.75 x 500,000 over 0.85 need 6.1 of those."""
    assert decide(pods("wva_v2", 4, 0.75, parameters=TOKENS)).desired == 7
    small = TOKENS | {"kvCacheTokens": 300_000.0}
    # 240,000 of the cache: 4 x 0.75 x 300,000 over 0.85 need 4.4.
    assert decide(pods("wva_v2", 4, 0.75, parameters=small)).desired == 5


def test_v2_remembers_what_a_replica_held_when_its_queue_was_long() -> None:
    long_queue = pods("wva_v2", 4, 0.4, waiting=20.0, parameters=TOKENS)
    calm = later(pods("wva_v2", 4, 0.39, parameters=TOKENS), 60)
    first, second = decided([long_queue, calm])
    assert "200,000 a replica" in first.steps[0].message
    assert "200,000 a replica" in second.steps[0].message


def test_v2_without_the_size_of_a_cache_says_so() -> None:
    with pytest.raises(ValueError, match="wva_v2 needs the parameter kvCacheTokens above 0"):
        decide(pods("wva_v2", 4, 0.4))


def test_unobserved_pods_are_kept() -> None:
    for name in ("wva_v1", "wva_v2"):
        context = replace(pods(name, 4, None, parameters=TOKENS), observation=Observation(NOON))
        assert decide(context).desired == 4


def test_v2_a_queue_over_empty_caches_says_nothing_of_what_a_replica_holds() -> None:
    """The pods that just started: the derived capacity counts, not the zero tokens in use."""
    waiting = pods("wva_v2", 1, 0.0, waiting=5.0, parameters=TOKENS)
    assert decide(waiting).desired == 1
    longer = pods("wva_v2", 1, 0.0, waiting=900.0, parameters=TOKENS)
    assert decide(longer).desired == 4
