"""Floors: when past days outweigh the forecast, and when a fall is not believed."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.calendar import Calendar
from forecaster.demand import Demand, demand_of
from forecaster.features import MIN_EDGE_DAYS, Seen, layout_for, seen_from
from forecaster.floors import CERTAINTY, EDGE_DISTRUST, edge_floor, expected_floor
from forecaster.forecast import Window
from forecaster.history import Floats, TrafficHistory
from tests.traffic import MONDAY

ORDER = Window("order", 3, 6)
STEP_UP = 720
"""The minute of the day at which demand doubles for the rest of it."""


def floor_of(
    growths: list[float], located: float = 0.0, scale: float = 0.05, own_error: float = 0.1
) -> tuple[float, float]:
    """From a present log rate of 0 with these growths of past days at this clock."""
    level = np.zeros(1)
    known = np.array(growths)
    figures = [np.nan, np.nan, np.nan, len(growths)]
    if growths:
        figures[:3] = [np.median(known), np.quantile(known, 0.25), known.std()]
    seen = Seen(layout_for(60, (ORDER,)), level, np.zeros((1, 1)), np.array([figures]))
    floor, spread = edge_floor(
        seen, np.array([located]), scale, certain=CERTAINTY, own_error=own_error
    )
    return float(floor[0]), float(spread[0])


def test_an_edge_that_past_days_agree_on_is_scheduled_in_full_with_its_spread() -> None:
    growths = [0.6, 0.7, 0.8, 0.7]
    assert floor_of(growths) == pytest.approx((0.7, np.std(growths)))


def test_an_edge_within_the_forecast_s_own_error_is_not_scheduled() -> None:
    """The lower quartile must lie two scales beyond what the forecast says."""
    floor, spread = floor_of([0.6, 0.7, 0.8, 0.7], located=0.6)
    assert (floor, spread) == pytest.approx((0.7 - EDGE_DISTRUST * 0.1, 0.0))
    just, beyond = 0.675 - CERTAINTY * 0.05 + 1e-6, 0.675 - CERTAINTY * 0.05 - 1e-6
    assert floor_of([0.6, 0.7, 0.8, 0.7], located=just)[1] == 0.0
    assert floor_of([0.6, 0.7, 0.8, 0.7], located=beyond)[1] > 0.0


def test_past_days_that_disagree_schedule_nothing() -> None:
    floor, spread = floor_of([0.0, 0.0, 0.9, 0.9])
    assert (floor, spread) == pytest.approx((0.45 - EDGE_DISTRUST * 0.1, 0.0))


def test_a_wider_error_asks_for_more_certainty() -> None:
    assert floor_of([0.6, 0.7, 0.8, 0.7], scale=0.05)[1] > 0
    assert floor_of([0.6, 0.7, 0.8, 0.7], scale=0.4)[1] == 0


@pytest.mark.parametrize("days", range(MIN_EDGE_DAYS))
def test_fewer_than_three_past_days_are_no_floor(days: int) -> None:
    assert floor_of([0.7] * days) == (-np.inf, 0.0)


def daily_edge(days: int, missing: tuple[int, ...] = ()) -> Demand:
    """Days that are alike but for those on which the edge at noon did not come."""
    minute, day = np.arange(days * 1440) % 1440, np.arange(days * 1440) // 1440
    risen = (minute >= STEP_UP) & ~np.isin(day, missing)
    history = TrafficHistory("edge", MONDAY, 60, np.where(risen, 2_000.0, 1_000.0))
    return demand_of(history, Calendar())


def floors_before_noon(demand: Demand, day: int) -> Floats:
    """The floor seen from each of the twenty minutes before noon, over a flat forecast, as a
    factor on the present rate."""
    origins = day * 1440 + STEP_UP - np.arange(20, 0, -1)
    seen = seen_from(demand, layout_for(60, (ORDER,)), origins)
    floor, _ = edge_floor(seen, seen.level, 0.01, 2.0, np.zeros(len(origins)))
    return np.asarray(np.exp(floor - seen.level))


def test_an_edge_by_the_clock_is_seen_coming_once_three_days_had_it() -> None:
    """As soon as it lies in the order window, which is widened by a minute on either side."""
    expected = [1.0] * 14 + [2.0] * 6
    assert floors_before_noon(daily_edge(6), 4) == pytest.approx(expected, rel=0.01)
    assert floors_before_noon(daily_edge(3), 2).tolist() == [0.0] * 20


def test_an_edge_that_came_on_one_day_of_four_is_not_scheduled() -> None:
    odd = daily_edge(6, missing=(1, 2, 3))
    assert floors_before_noon(odd, 4).max() < 1.1


def test_a_fall_is_measured_against_the_highest_expectation_less_its_error() -> None:
    expected = np.log(np.array([[100.0, 130.0, 90.0]]))
    own_error = np.array([0.05, 0.2, 0.1])
    # The nearest less its error: 95; the second less twice its own: 87.
    floor = expected_floor(expected, own_error)
    assert np.exp(floor) == pytest.approx([100.0 * np.exp(-0.05)])
    assert np.exp(expected_floor(expected, np.array([0.5, 0.1, 0.1]))) == pytest.approx(
        [130.0 * np.exp(-0.2)]
    )


def test_expectations_that_were_not_made_expect_nothing() -> None:
    nothing = np.full((2, 3), np.nan)
    nothing[1, 2] = 4.0
    floor = expected_floor(nothing, np.zeros(3))
    assert floor.tolist() == [-np.inf, 4.0]
    assert expected_floor(np.zeros((1, 0)), np.zeros(0)).tolist() == [-np.inf]
