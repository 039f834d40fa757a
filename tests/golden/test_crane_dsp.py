"""Crane's EffectiveHPA: the larger of two metrics."""

from __future__ import annotations

import pytest

from policies.engine import decide
from tests.situations import settings, situation, window_forecast


@pytest.mark.parametrize(
    ("demand", "predicted", "expected"),
    [
        (11_500.0, 15_100.0, 16),
        (15_100.0, 11_500.0, 16),
        (9_500.0, 10_900.0, 10),  # both within the tolerance
        (8_000.0, 10_900.0, 10),
        (11_500.0, None, 12),
        (None, 15_100.0, 16),
    ],
)
def test_the_larger_of_both(demand: float | None, predicted: float | None, expected: int) -> None:
    ahead = None if predicted is None else window_forecast(predicted, 0.0)
    policy = settings("crane_dsp", parameters={"targetQps": 1_000.0})
    assert decide(situation(10, demand, ahead, policy)).recommended == expected
