"""The clouds' predictive scaling, as far as it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from policies.context import ReplicaChange, ScalingContext
from policies.engine import decide
from policies.peers import aws_predictive, azure_predictive
from tests.situations import NOON, decided_before, settings, situation, window_forecast


def fleet(
    name: str,
    current: int,
    demand: float | None,
    order: float | None = None,
    hold: float = 0.0,
    more: Mapping[str, float] = {},
    maximum: int = 1000,
) -> ScalingContext:
    policy = settings(name, maximum=maximum, parameters={"targetQps": 1_000.0, **more})
    ahead = None if order is None else window_forecast(order, hold)
    return situation(current, demand, ahead, policy)


@pytest.mark.parametrize(
    ("capacity", "maximum", "percent", "expected"), [(50, 40, 10, 55), (30, 40, 10, 40)]
)
def test_aws_raises_its_maximum_in_integers(
    capacity: int, maximum: int, percent: int, expected: int
) -> None:
    assert aws_predictive.increased_max(capacity, maximum, percent) == expected


def test_aws_never_lowers_on_a_forecast() -> None:
    assert decide(fleet("aws_predictive", 10, 8_500.0, 3_000.0, 3_000.0)).desired == 9
    assert decide(fleet("aws_predictive", 10, 8_500.0, 3_000.0, 14_500.0)).desired == 15


def test_aws_capacity_stops_at_the_maximum() -> None:
    bounded = fleet("aws_predictive", 10, 8_500.0, 0.0, 50_000.0, maximum=40)
    assert decide(bounded).recommended == 40
    more = {"maxCapacityBufferPercent": 10.0}
    raised = fleet("aws_predictive", 10, 8_500.0, 0.0, 50_000.0, more, maximum=40)
    assert (decide(raised).recommended, decide(raised).desired) == (50, 40)


@pytest.mark.parametrize(("name", "seconds"), [("aws_predictive", 900), ("gcp_predictive", 600)])
def test_scale_in_waits(name: str, seconds: int) -> None:
    context = fleet(name, 10, 2_000.0)
    assert decide(decided_before(context, {seconds - 1: 7})).desired == 7
    assert decide(decided_before(context, {seconds: 7})).desired == 2


def test_gcp_is_the_larger_of_now_and_the_initialization_period() -> None:
    assert decide(fleet("gcp_predictive", 10, 12_100.0, 0.0, 11_000.0)).desired == 13
    assert decide(fleet("gcp_predictive", 10, 12_100.0, 0.0, 14_100.0)).desired == 15


@pytest.mark.parametrize("name", ["aws_predictive", "gcp_predictive"])
def test_a_forecast_alone_may_raise(name: str) -> None:
    assert decide(fleet(name, 10, None, 0.0, 14_100.0)).desired == 15
    assert decide(fleet(name, 20, None, 0.0, 14_100.0)).desired == 20


@pytest.mark.parametrize(
    ("demand", "order", "expected"),
    [
        (15_000.0, None, 20),
        (20_001.0, None, 22),
        (15_000.0, 20_001.0, 22),
        (9_000.0, 9_000.0, 18),
        (9_000.0, 20_001.0, 22),  # no step in where the forecast wants one out
        (None, 20_001.0, 22),
    ],
)
def test_azure_moves_by_steps(demand: float | None, order: float | None, expected: int) -> None:
    assert decide(fleet("azure_predictive", 20, demand, order)).desired == expected


def test_azure_leaves_what_would_cross_the_threshold_at_once() -> None:
    assert azure_predictive.by_rule(2, 1_100.0, 0.0, 1_000.0, 600.0, 1) == 2
    assert azure_predictive.by_rule(2, 900.0, 1_001.0, 1_000.0, 600.0, 1) == 2
    assert azure_predictive.by_rule(2, 900.0, 0.0, 1_000.0, 600.0, 1) == 1
    assert azure_predictive.by_rule(1, 0.0, 0.0, 1_000.0, 600.0, 1) == 1


def test_azure_waits_out_its_cool_down() -> None:
    context = fleet("azure_predictive", 20, 30_000.0)
    change = ReplicaChange(NOON - timedelta(seconds=299), 18, 20)
    assert decide(replace(context, changes=(change,))).desired == 20
    older = replace(change, at=NOON - timedelta(seconds=300))
    assert decide(replace(context, changes=(older,))).desired == 22


def test_azure_steps_are_at_least_one() -> None:
    assert [azure_predictive.step_size(n, 10) for n in (1, 10, 11, 167)] == [1, 1, 2, 17]
