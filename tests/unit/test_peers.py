"""Golden values of the peers' algorithms."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.context import Observation
from policies.engine import decide
from policies.peers.asymmetric_concurrency import combine
from tests.situations import NOON, settings, situation


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
def test_asymmetric_concurrency_golden(
    target: int, current: int, up: int, down: int, expected: int
) -> None:
    assert combine(current, -(-up // target), -(-down // target)) == expected


def test_asymmetric_concurrency_reads_requests_in_flight() -> None:
    policy = settings("asymmetric_concurrency", parameters={"targetConcurrency": 100.0})
    seen = Observation(NOON, requests_running=700.0, requests_waiting=30.0)
    context = replace(situation(current=5, policy=policy), observation=seen)
    assert decide(context).desired == 8


def test_asymmetric_concurrency_without_a_target_says_so() -> None:
    with pytest.raises(ValueError, match="targetConcurrency"):
        decide(situation(policy=settings("asymmetric_concurrency")))


def test_static_never_moves() -> None:
    policy = settings("static", parameters={"replicas": 42.0})
    assert decide(situation(current=3, demand=90_000.0, policy=policy)).desired == 42
