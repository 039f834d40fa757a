"""AIBrix: APA as it is meant and as it ships, and its KPA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from policies.context import Observation, PolicySettings, ScalingContext
from policies.engine import decide
from policies.peers import aibrix_apa, aibrix_kpa
from tests.golden.sequence import decided, later
from tests.situations import NOON, decided_before, settings, situation


def kv(name: str, minimum: int = 1) -> PolicySettings:
    return settings(name, minimum, parameters={"targetKvUsage": 0.5})


def usage(
    current: int, ratio: float, name: str = "aibrix_apa_intended", asked: Mapping[int, int] = {}
) -> ScalingContext:
    context = situation(current, policy=kv(name))
    seen = replace(context, observation=Observation(NOON, kv_cache_usage_ratio=ratio))
    return decided_before(seen, asked)


@pytest.mark.parametrize(
    ("current", "ratio", "expected"),
    [(4, 0.65, 6), (4, 0.2, 2), (4, 1.5, 8), (4, 0.54, 4), (10, 0.05, 5)],
)
def test_apa(current: int, ratio: float, expected: int) -> None:
    assert aibrix_apa.scale(current, ratio, 0.5) == expected
    assert decide(usage(current, min(ratio, 1.5))).recommended == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("aibrix_apa_intended", 9), ("aibrix_apa_as_shipped", 3)]
)
def test_its_down_window_as_meant_and_as_shipped(name: str, expected: int) -> None:
    """Ten replicas want 7; within 300 s 9 and 3 were asked for."""
    assert decide(usage(10, 0.34, name, {100: 9, 200: 3})).desired == expected


@pytest.mark.parametrize("name", ["aibrix_apa_intended", "aibrix_apa_as_shipped"])
def test_what_lies_outside_the_window_does_not_count(name: str) -> None:
    assert decide(usage(10, 0.34, name, {300: 9, 301: 3})).desired == 7


def test_apa_averages_180_s_from_its_notes() -> None:
    contexts = [later(usage(4, 0.5), 10.0 * tick) for tick in range(17)]
    contexts.append(replace(later(usage(4, 0.5), 170), observation=usage(4, 1.4).observation))
    # 17 of 0.50 and one of 1.40 are 0.55 on average: at the edge of the tolerance.
    assert decided(contexts)[-1].steps[0].message.startswith("0.55 a replica")


def test_apa_by_the_rate_of_a_replica() -> None:
    policy = settings("aibrix_apa_intended", parameters={"targetQps": 1_000.0})
    assert decide(situation(4, 5_200.0, policy=policy)).recommended == 6


def test_kpa_given_averages_of_one_pod_walks_to_two() -> None:
    """KV usage 0.6 at a target of 0.5: the proposal is 2 whatever n is."""
    walked = [64]
    for _ in range(6):
        walked.append(aibrix_kpa.scale(walked[-1], 0.6, 0.5))
    assert walked == [64, 32, 16, 8, 4, 2, 2]


@pytest.mark.parametrize(
    ("current", "observed", "expected"),
    [(10, 10_900.0, 10), (10, 15_000.0, 15), (10, 90_000.0, 20), (10, 1_000.0, 5), (0, 500.0, 1)],
)
def test_kpa_given_the_whole_fleets_load(current: int, observed: float, expected: int) -> None:
    assert aibrix_kpa.scale(current, observed, 1_000.0) == expected


def test_kpa_panics_on_a_burst_and_keeps_its_most() -> None:
    policy = settings("aibrix_kpa", parameters={"targetQps": 1_000.0})
    loads = [5_000.0] * 18 + [30_000.0] * 6 + [5_000.0] * 20
    contexts = [
        later(situation(5, load, policy=policy), 10.0 * tick) for tick, load in enumerate(loads)
    ]
    recommended = [decision.recommended for decision in decided(contexts)]
    assert recommended[:18] == [5] * 18
    assert max(recommended[18:24]) == 10
    # Called for at second 230 for the last time, the panic outlasts a stable window of 180 s.
    assert recommended[24:42] == [10] * 18
    assert recommended[42] == 5


def test_without_a_load_they_hold() -> None:
    for name in ("aibrix_apa_intended", "aibrix_kpa"):
        policy = settings(name, parameters={"targetQps": 1_000.0})
        assert decide(situation(7, None, policy=policy)).desired == 7
