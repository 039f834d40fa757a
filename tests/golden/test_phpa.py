"""PHPA: votes, the linear model and its rate limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from policies.context import PastDecision, ReplicaChange, ScalingContext
from policies.engine import decide
from policies.peers.phpa import DecisionType, decided, linear
from tests.situations import NOON, settings, situation, window_forecast


def voted(
    demand: float | None,
    forecast: float | None,
    more: Mapping[str, float] = {},
    current: int = 10,
) -> ScalingContext:
    policy = settings("phpa", parameters={"targetQps": 1_000.0, **more})
    ahead = None if forecast is None else window_forecast(forecast, 0.0)
    return situation(current, demand, ahead, policy)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (DecisionType.MAXIMUM, 7),
        (DecisionType.MINIMUM, 0),
        (DecisionType.MEAN, 4),
        (DecisionType.MEDIAN, 3),
    ],
)
def test_two_votes(kind: DecisionType, expected: int) -> None:
    assert decided([7, 0], kind) == expected


def test_a_median_of_three_is_the_middle_one() -> None:
    assert decided([9, 1, 4], DecisionType.MEDIAN) == 4


def test_the_largest_vote_wins_by_default() -> None:
    assert decide(voted(7_000.0, 12_100.0)).recommended == 13
    assert decide(voted(14_000.0, 12_100.0)).recommended == 14


def test_a_model_that_warms_up_votes_none() -> None:
    assert decide(voted(7_000.0, None)).recommended == 7
    assert decide(voted(7_000.0, None, {"decisionType": 3.0})).recommended == 3


def test_linear_reads_the_line_at_the_look_ahead() -> None:
    """One more every 15 s: at 180 s from now twelve more."""
    rising = [(45.0, 7), (30.0, 8), (15.0, 9), (0.0, 10)]
    assert linear(rising, 180.0) == 22
    assert linear(rising[-1:], 180.0) == 10
    assert linear([(15.0, 10), (0.0, 1)], 180.0) == 0


def test_the_linear_model_works_past_proposals_out_again() -> None:
    context = voted(10_500.0, None, {"linearSamples": 3.0}, current=1)
    past = tuple(
        PastDecision(NOON - timedelta(seconds=age), 1, 1, 1, demand_qps=demand)
        for age, demand in ((30, 8_500.0), (15, 9_500.0))
    )
    # 9, 10, 11 and the lead time of 180 s: 23.
    assert decide(replace(context, recent=past)).recommended == 23


def test_its_periods_are_a_minute() -> None:
    context = voted(90_000.0, None, current=10)
    change = ReplicaChange(NOON - timedelta(seconds=40), 6, 10)
    assert decide(context).desired == 20
    assert decide(replace(context, changes=(change,))).desired == 12


def test_without_its_metric_it_holds() -> None:
    assert decide(voted(None, 90_000.0)).desired == 10
