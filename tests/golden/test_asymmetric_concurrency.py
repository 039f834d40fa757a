"""Asymmetric concurrency: both readings, both signals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from policies.context import Observation, PastDecision, ScalingContext
from policies.engine import decide
from policies.peers.asymmetric_concurrency import combine, needed
from tests.situations import NOON, settings, situation


def seen(
    current: int, newest: float, ages: Mapping[int, float], parameters: Mapping[str, float]
) -> ScalingContext:
    """Requests in flight now, and so many seconds ago."""
    policy = settings("asymmetric_concurrency", parameters=parameters)
    past = tuple(
        PastDecision(NOON - timedelta(seconds=age), current, current, current, value, value)
        for age, value in sorted(ages.items(), reverse=True)
    )
    observation = Observation(NOON, newest, requests_running=newest, requests_waiting=0.0)
    context = situation(current=current, policy=policy)
    return replace(context, observation=observation, recent=past)


@pytest.mark.parametrize(
    ("target", "current", "up", "down", "expected"),
    [
        (100, 5, 730, 610, 8),
        (100, 8, 420, 760, 8),
        (100, 8, 420, 560, 6),
        (100, 8, 310, 290, 4),
        (300, 167, 51_000, 49_000, 170),
    ],
)
def test_first_reading(target: int, current: int, up: int, down: int, expected: int) -> None:
    assert combine(current, needed(up, target), needed(down, target)) == expected


def test_first_reading_from_what_was_seen() -> None:
    """730 over the last 20 s and 610 over all that there is."""
    ages = {10: 660.0, 150: 440.0, 290: 540.0}
    context = seen(5, 800.0, ages, {"targetConcurrency": 100.0})
    assert decide(context).desired == 8
    assert "730 requests in flight need 8, 610" in decide(context).steps[0].message


@pytest.mark.parametrize(("current", "expected"), [(5, 7), (8, 8), (12, 9)])
def test_second_reading(current: int, expected: int) -> None:
    """The smallest proposal of 20 s is 7, the largest of 300 s is 9."""
    parameters = {"targetConcurrency": 100.0, "minMax": 1.0}
    context = seen(current, 800.0, {10: 700.0, 100: 900.0, 200: 300.0}, parameters)
    assert decide(context).desired == expected


def test_a_sample_exactly_as_old_as_the_window_lies_outside() -> None:
    parameters = {"targetConcurrency": 100.0, "minMax": 1.0}
    assert decide(seen(12, 700.0, {20: 100.0, 299: 1100.0}, parameters)).desired == 11
    assert decide(seen(12, 700.0, {20: 100.0, 300: 1100.0}, parameters)).desired == 7


def test_the_rate_as_its_signal() -> None:
    policy = settings("asymmetric_concurrency", parameters={"targetQps": 900.0})
    assert decide(situation(current=5, demand=9_001.0, policy=policy)).desired == 11


@pytest.mark.parametrize("parameters", [{}, {"targetConcurrency": 100.0, "targetQps": 900.0}])
def test_exactly_one_target_must_be_given(parameters: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one of the parameters targetConcurrency"):
        decide(situation(policy=settings("asymmetric_concurrency", parameters=parameters)))


def test_without_a_load_it_holds() -> None:
    policy = settings("asymmetric_concurrency", parameters={"targetConcurrency": 100.0})
    assert decide(situation(current=5, policy=policy)).desired == 5
