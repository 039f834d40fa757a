"""Knative's two windows and its panic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from policies.context import Observation, Replicas, ScalingContext
from policies.decision import Reason
from policies.engine import decide
from policies.peers.knative_kpa import CALM, needed, scale
from tests.golden.sequence import decided, later
from tests.situations import NOON, decided_before, settings, situation


def in_flight(loads: Sequence[float], ready: int, interval: float = 2.0) -> list[ScalingContext]:
    policy = settings("knative_kpa", 0, parameters={"targetConcurrency": 70.0})
    base = replace(situation(ready, policy=policy), replicas=Replicas(ready, ready))
    return [
        later(
            replace(
                base, observation=Observation(NOON, requests_running=load, requests_waiting=0.0)
            ),
            tick * interval,
        )
        for tick, load in enumerate(loads)
    ]


@pytest.mark.parametrize(
    ("stable", "panic", "ready", "expected", "panics"),
    [(150, 300, 2, 5, True), (150, 200, 3, 3, False), (20, 20, 10, 5, False)],
)
def test_one_tick(stable: float, panic: float, ready: int, expected: int, panics: bool) -> None:
    replicas, panicked_at, _ = scale(
        needed(stable, 70.0), needed(panic, 70.0), ready, 1_000.0, CALM, 0
    )
    assert replicas == expected
    assert (panicked_at == 1_000.0) is panics


def test_twice_the_ready_pods_are_a_panic() -> None:
    assert scale(1, 4, 2, 0.0, CALM, 0)[:2] == (4, 0.0)
    assert scale(1, 4, 3, 0.0, CALM, 0)[:2] == (1, CALM)


def test_growth_is_limited_by_the_rate() -> None:
    assert scale(5_000, 1, 2, 0.0, CALM, 0)[0] == 2_000


def test_panic_never_falls_below_its_most_and_ends_after_the_stable_window() -> None:
    replicas, at, highest = scale(3, 9, 4, 100.0, CALM, 0)
    assert (replicas, at, highest) == (9, 100.0, 9)
    assert scale(3, 3, 9, 160.0, at, highest) == (9, 100.0, 9)
    assert scale(3, 3, 9, 161.0, at, highest) == (4, CALM, 0)


@pytest.mark.parametrize(("window", "calm_from"), [(60.0, 62.0), (120.0, 122.0)])
def test_panic_lasts_as_long_as_the_stable_window_that_was_chosen(
    window: float, calm_from: float
) -> None:
    told = {"targetConcurrency": 70.0, "stableWindowSeconds": window}
    policy = settings("knative_kpa", 0, parameters=told)
    contexts = [replace(each, settings=policy) for each in in_flight([70.0] * 70, 2)]
    steps = [decision.steps[0] for decision in decided(contexts)]
    calm = next(tick for tick, step in enumerate(steps) if step.reason is not Reason.PANIC)
    assert calm * 2.0 == calm_from


def test_a_qualifying_tick_renews_the_panic() -> None:
    _, at, highest = scale(3, 9, 4, 100.0, CALM, 0)
    _, at, highest = scale(3, 9, 4, 150.0, at, highest)
    assert scale(3, 3, 9, 200.0, at, highest)[1] == 150.0


def test_the_log_is_the_memory_of_a_panic() -> None:
    """A burst of 6 s on one ready pod; 40 s later the fleet still has what the panic asked for."""
    decisions = decided(in_flight([60.0] * 10 + [700.0] * 3 + [60.0] * 40, ready=1))
    # Of the ten, eleven and twelve samples seen by then the panic window holds the newest three.
    assert [decision.desired for decision in decisions[9:13]] == [1, 4, 7, 10]
    # The window still holds the burst for two ticks; 60 s after the second the panic has ended.
    assert {decision.desired for decision in decisions[13:44]} == {10}
    assert decisions[30].reason is Reason.PANIC
    assert decisions[-1].desired < 10


def test_a_revision_found_running_starts_in_panic() -> None:
    first, *_, last = decided(in_flight([70.0] * 40, ready=6))
    assert first.desired == 6
    assert last.desired == 3


def test_without_load_the_memory_is_kept() -> None:
    contexts = in_flight([60.0] * 10 + [700.0] * 3 + [60.0] * 10, ready=1)
    contexts[15] = replace(contexts[15], observation=Observation(NOON))
    decisions = decided(contexts)
    assert decisions[15].recommended == 1
    assert decisions[16].desired == 10


def test_it_goes_to_none_after_a_stable_window_without_traffic() -> None:
    decisions = decided(in_flight([60.0] * 3 + [0.0] * 40, ready=1))
    assert decisions[10].desired == 1
    assert decisions[-1].desired == 0


def test_the_rate_as_its_signal() -> None:
    policy = settings("knative_kpa", parameters={"targetQps": 700.0})
    context = decided_before(situation(1, 2_000.0, policy=policy), {2: 1}, demand=1_000.0)
    assert decide(context).recommended == 3
