"""Capacity: loads, rates and replicas."""

from __future__ import annotations

import math

import pytest

from policies.capacity import desired, needed, rate_per_replica, replicas_at

WITHIN, SATURATION = 1080.0, 1194.0


def test_a_replica_is_loaded_to_the_objective_where_margins_are_usual() -> None:
    assert rate_per_replica(WITHIN, SATURATION, 4.0) == pytest.approx(WITHIN, rel=1e-3)
    assert rate_per_replica(WITHIN, SATURATION, 100.0) == pytest.approx(WITHIN, rel=1e-9)


def test_a_small_margin_runs_replicas_hot_but_never_saturated() -> None:
    rates = [rate_per_replica(WITHIN, SATURATION, margin / 10) for margin in range(-100, 100)]
    assert rates == sorted(rates, reverse=True)
    assert WITHIN < rates[-1] < rates[0] < SATURATION
    # mu_slo * (1 + 0.85 * room / 2) at the margin of 1
    assert rate_per_replica(WITHIN, SATURATION, 1.0) == pytest.approx(WITHIN + 0.425 * 114)


def test_without_a_known_saturation_nothing_runs_hot() -> None:
    assert rate_per_replica(WITHIN, WITHIN, -5.0) == WITHIN
    assert rate_per_replica(WITHIN, 900.0, -5.0) == WITHIN


@pytest.mark.parametrize("rate", [1080.0, 0.1, 1 / 3, 917.3])
def test_an_exact_multiple_costs_no_replica_more(rate: float) -> None:
    assert [replicas_at(rate * n, rate) for n in range(300)] == list(range(300))
    assert [replicas_at(sum([rate] * n), rate) for n in range(300)] == list(range(300))
    assert [replicas_at(rate * n * (1 + 1e-6), rate) for n in (1, 10, 300)] == [2, 11, 301]


def test_any_load_has_a_number_of_replicas() -> None:
    assert replicas_at(0.0, 1080.0) == 0
    assert replicas_at(1e-3, 1080.0) == 1
    assert replicas_at(1e300, 1080.0) == replicas_at(math.inf, 1080.0) == 1_000_000_000


def test_what_is_there_may_run_at_saturation_and_the_backlog_is_worked_off() -> None:
    assert needed(11_000.0, 0.0, 1.1, 30.0) == pytest.approx(10_000.0)
    assert needed(11_000.0, 60_000.0, 1.1, 30.0) == pytest.approx(12_000.0)
    assert needed(11_000.0, -5.0, 1.1, 30.0) == pytest.approx(10_000.0)


@pytest.mark.parametrize(
    ("order", "hold", "current", "expected"),
    [
        (12, 5, 10, 12),  # rise at once
        (5, 8, 10, 8),  # fall to the hold
        (9, 8, 10, 9),  # and not below the order
        (5, 20, 10, 10),  # a hold never raises
    ],
)
def test_rise_to_the_order_and_fall_to_the_hold(
    order: int, hold: int, current: int, expected: int
) -> None:
    assert desired(order, hold, current) == expected
