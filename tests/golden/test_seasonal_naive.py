"""The seasonal naive floor under asymmetric concurrency."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policies.context import Observation
from policies.engine import decide
from tests.situations import NOON, settings, situation, window_forecast


@pytest.mark.parametrize(
    ("demand", "before", "expected"),
    [(9_000.0, 15_000.0, 15), (9_000.0, 5_000.0, 9), (9_000.0, None, 9)],
)
def test_the_floor_only_raises(demand: float, before: float | None, expected: int) -> None:
    ahead = None if before is None else window_forecast(before, 0.0)
    policy = settings("seasonal_naive", parameters={"targetQps": 1_000.0})
    assert decide(situation(9, demand, ahead, policy)).desired == expected


def test_its_floor_goes_by_the_rate_where_the_signal_is_concurrency() -> None:
    parameters = {"targetConcurrency": 100.0, "floorQps": 500.0}
    policy = settings("seasonal_naive", parameters=parameters)
    seen = Observation(NOON, requests_running=900.0, requests_waiting=0.0)
    context = situation(9, 9_000.0, window_forecast(6_000.0, 0.0), policy)
    assert decide(replace(context, observation=seen)).desired == 12
