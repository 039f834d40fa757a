"""Floors: when past days outweigh the forecast, and when a fall is not believed."""

from __future__ import annotations

import numpy as np
import pytest

from forecaster.calendar import Calendar
from forecaster.combine import Combined
from forecaster.demand import Demand, demand_of
from forecaster.features import MIN_EDGE_DAYS, Seen, layout_for, seen_from
from forecaster.floors import (
    CERTAINTY,
    COLLAPSE,
    COLLAPSE_ERRORS,
    EDGE_DISTRUST,
    MOST_RISE,
    NEVER_STEEP,
    edge_floor,
    expected_floor,
    rise_floor,
    steep_rise,
)
from forecaster.forecast import Window
from forecaster.history import Floats, TrafficHistory
from forecaster.registry import combined
from tests.traffic import MONDAY, weeks

ORDER = Window("order", 3, 6)
STEP_UP = 720
"""The minute of the day at which demand doubles for the rest of it."""


def floor_of(
    growths: list[float],
    located: float = 0.0,
    scale: float = 0.05,
    own_error: float = 0.1,
    weekly: tuple[float, float] = (np.nan, np.nan),
) -> tuple[float, float]:
    """From a present log rate of 0 with these growths of past days at this clock, and the least and
    the most of the same weekday's."""
    level = np.zeros(1)
    known = np.array(growths)
    figures = [np.nan, np.nan, np.nan, len(growths), *weekly]
    if growths:
        figures[:3] = [np.median(known), np.quantile(known, 0.25), known.std()]
    seen = Seen(layout_for(60, (ORDER,)), level, np.zeros((1, 1)), np.array([figures]))
    floor, spread = edge_floor(
        seen, np.array([located]), np.array([scale]), CERTAINTY, np.array([own_error])
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
    floor, _ = edge_floor(
        seen, seen.level, np.full(len(origins), 0.01), 2.0, np.zeros(len(origins))
    )
    return np.asarray(np.exp(floor - seen.level))


def test_an_edge_by_the_clock_is_seen_coming_once_three_days_had_it() -> None:
    """As soon as it lies in the order window, which is widened by a minute on either side."""
    expected = [1.0] * 14 + [2.0] * 6
    assert floors_before_noon(daily_edge(6), 4) == pytest.approx(expected, rel=0.01)
    assert floors_before_noon(daily_edge(3), 2).tolist() == [0.0] * 20


def test_an_edge_that_came_on_one_day_of_four_is_not_scheduled() -> None:
    odd = daily_edge(6, missing=(1, 2, 3))
    assert floors_before_noon(odd, 4).max() < 1.1


def test_what_the_same_weekday_always_brought_is_scheduled_whatever_other_days_brought() -> None:
    calm = [0.0, 0.0, 0.0, 0.7]
    assert floor_of(calm, weekly=(0.7, 0.75)) == pytest.approx((0.75, 0.05))
    # Within the error of what is forecast it is nothing: twice as many scales as of all days,
    assert floor_of(calm, scale=0.1, weekly=(4.0 * 0.1 - 0.01, 0.75))[1] == 0.0
    assert floor_of(calm, scale=0.1, weekly=(4.0 * 0.1 + 0.01, 0.75))[1] > 0.0
    # nor is what two or three weeks may have seen by chance, however well they are forecast.
    assert floor_of(calm, scale=0.01, weekly=(0.19, 0.75))[1] == 0.0
    assert floor_of(calm, scale=0.01, weekly=(0.21, 0.75))[1] > 0.0
    # Nor does it take back what other days ask for as well.
    assert floor_of([0.8, 0.9, 0.9, 1.0], weekly=(0.7, 0.75))[0] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("weeks", "missing", "seen"),
    [(1, (), False), (2, (), True), (3, (), True), (3, (2,), False)],
)
def test_an_edge_of_one_weekday_is_seen_coming_once_two_weeks_had_it(
    weeks: int, missing: tuple[int, ...], seen: bool
) -> None:
    others = tuple(day for day in range(7 * weeks + 2) if day % 7 != 1 or day // 7 in missing)
    floors = floors_before_noon(daily_edge(7 * weeks + 2, missing=others), 7 * weeks + 1)
    assert floors[:14].max() < 1.1
    if seen:
        assert floors[14:] == pytest.approx([2.0] * 6, rel=0.01)
    else:
        assert floors[14:].max() < 1.1
    # Other days ask for nothing.
    calm = floors_before_noon(daily_edge(7 * weeks + 2, missing=others), 7 * weeks)
    assert calm.max() < 1.1


def expected(
    said: list[float], own_error: list[float], present: float = np.nan
) -> tuple[float, float]:
    """From log rates that earlier forecasts said of now, the nearest first."""
    floor, spread = expected_floor(np.array([said]), np.array([own_error]), np.array([present]))
    return float(floor[0]), float(spread[0])


def test_a_fall_is_measured_against_the_highest_expectation_less_its_error() -> None:
    said = np.log([100.0, 130.0, 90.0]).tolist()
    # The nearest less its error: 95; the second less twice its own: 87.
    assert expected(said, [0.05, 0.2, 0.1]) == pytest.approx((np.log(100.0) - 0.05, 0.0))
    assert expected(said, [0.5, 0.1, 0.1]) == pytest.approx((np.log(130.0) - 0.2, 0.0))


def test_expectations_that_were_not_made_expect_nothing() -> None:
    assert expected([np.nan] * 3, [0.0] * 3) == (-np.inf, 0.0)
    assert expected([np.nan, np.nan, 4.0], [0.0] * 3) == (4.0, 0.0)
    assert expected([], []) == (-np.inf, 0.0)
    assert expected([np.nan] * 3, [0.0] * 3, present=-6.0) == (-np.inf, 0.0)


def test_in_a_collapse_the_farthest_expectation_is_believed_in_full() -> None:
    """The nearer forecasts have seen it and expect nothing any more."""
    said, own_error = [1.0, 1.0, 5.0], [0.05, 0.05, 0.1]
    assert expected(said, own_error, 5.0 - COLLAPSE + 1e-9) == pytest.approx((4.8, 0.0))
    assert expected(said, own_error, 5.0 - COLLAPSE - 1e-9) == (5.0, 0.1)


def test_a_fall_within_the_usual_error_of_hours_ahead_is_no_collapse() -> None:
    said, own_error = [1.0, 1.0, 5.0], [0.05, 0.05, 0.5]
    assert expected(said, own_error, 5.0 - COLLAPSE_ERRORS * 0.5 + 1e-9) == (4.0, 0.0)
    assert expected(said, own_error, 5.0 - COLLAPSE_ERRORS * 0.5 - 1e-9) == (5.0, 0.5)


def test_a_nearer_expectation_that_asks_for_more_stands() -> None:
    assert expected([6.0, 1.0, 5.0], [0.05, 0.05, 0.1], 2.0) == pytest.approx((5.95, 0.0))


@pytest.mark.parametrize("left", [0.02, 0.0])
def test_through_an_hour_without_traffic_the_fleet_is_kept_for_what_was_expected(
    left: float,
) -> None:
    """Until noon of a working day; with the trust gate, as the daemon asks."""
    history, noon = weeks(2), 11 * 1440 + 720
    values = history.values[:noon].copy()
    values[-60:] *= left
    forecaster = combined(Calendar())
    past = history.steps(0, noon - 60)
    fitted = forecaster.fit(past, past.end, [ORDER, Window("hold", 0, 6)])
    for end in range(noon - 60, noon + 1):
        known = TrafficHistory(history.series, history.start, 60, values[:end])
        forecast = forecaster.predict(fitted, known, known.end)
    hold = forecast.window("hold")
    assert forecast.trusted, forecast.failures
    assert hold is not None
    assert hold.median_qps < 0.05 * past.values[-1]
    assert past.values[-1] < hold.floor_upper(4.0) < 1.6 * past.values[-1]


SLOPE = 0.01
"""Of log rate in a step of 15 s: 4 % a minute."""


def rising(steps: int = 8, flat: int = 400, slope: float = SLOPE) -> Floats:
    """Log rates that were flat, and have now risen for so many steps of 15 s."""
    return np.concatenate([np.full(flat, 5.0), 5.0 + slope * np.arange(1, steps + 1)])


def risen_to(logs: Floats, steep: float = SLOPE / 2, announced: float = np.nan) -> float:
    """The floor for a window that ends 14 steps ahead, over the newest step."""
    origin = np.array([len(logs)])
    floor = rise_floor(logs, origin, 15, 14, steep, np.array([announced]))
    return float(floor[0] - logs[-1])


def test_a_steep_rise_is_taken_to_go_on_to_the_end_of_the_window() -> None:
    """From the newest step to the window's last are 14."""
    assert risen_to(rising()) == pytest.approx(14 * SLOPE)


def test_a_rise_is_as_steep_as_it_is_now_where_it_began_within_a_step() -> None:
    logs = np.concatenate([np.full(400, 5.0), [5.0 + 0.6 * SLOPE, 5.0 + 1.6 * SLOPE]])
    assert risen_to(logs) == pytest.approx(14 * SLOPE)


def test_on_finer_steps_means_over_the_same_time_are_compared() -> None:
    """Steps of 5 s, three to a mean: the mean lies one step behind, as many more are ahead."""
    logs = rising(steps=24, slope=SLOPE / 3)
    floor = rise_floor(logs, np.array([len(logs)]), 5, 42, SLOPE / 6, np.array([np.nan]))
    assert floor[0] - logs[-1] == pytest.approx(42 * SLOPE / 3)
    one_seen = rise_floor(
        logs, np.array([len(logs) - 24 + 3]), 5, 42, SLOPE / 6, np.array([np.nan])
    )
    assert one_seen[0] == -np.inf
    known_steep = steep_rise(np.arange(200, dtype=np.float64) * SLOPE, 5)
    assert known_steep == pytest.approx(SLOPE)


def test_a_rise_that_was_announced_is_the_forecast_s_business() -> None:
    logs = rising()
    present = float(logs[-1])
    assert risen_to(logs, announced=present + 1e-9) == -np.inf
    assert risen_to(logs, announced=present - 1e-9) > 0


def test_a_rise_that_this_traffic_often_sees_is_no_floor() -> None:
    assert risen_to(rising(), steep=SLOPE * 1.01) == -np.inf


def test_a_fall_is_no_rise_even_where_traffic_always_falls() -> None:
    assert risen_to(rising(slope=-SLOPE), steep=-1.0) == -np.inf


def test_a_jump_alone_is_no_rise() -> None:
    """Where a Sunday ends and a Monday begins, demand may stand a quarter higher at once."""
    jump = np.concatenate([np.full(400, 5.0), np.full(8, 5.25)])
    for seen in range(401, 409):
        assert risen_to(jump[:seen]) == -np.inf


def test_a_burst_is_not_taken_to_go_on_far_beyond_what_was_seen() -> None:
    assert risen_to(rising(steps=2, slope=0.5)) == pytest.approx(MOST_RISE)


def test_a_return_from_an_outage_may_go_on_to_the_peak_of_the_last_days() -> None:
    logs = np.concatenate([np.full(100, 5.0), np.full(60, 0.0), 0.2 * np.arange(1, 5)])
    present = float(logs[-1])
    assert risen_to(logs) == pytest.approx(min(5.0 - present, 14 * 0.2))


def test_a_gap_in_the_newest_minute_is_no_rise() -> None:
    logs = rising()
    logs[-3] = np.nan
    assert risen_to(logs) == -np.inf


def test_what_is_steep_is_learned_from_the_history() -> None:
    rng = np.random.default_rng(0)
    calm, restless = (5.0 + scale * rng.normal(size=5000) for scale in (0.01, 0.1))
    assert steep_rise(restless, 15) > 5 * steep_rise(calm, 15) > 0
    assert steep_rise(np.full(10, np.nan), 15) == NEVER_STEEP


def test_a_rise_that_no_day_has_seen_orders_more_than_the_model() -> None:
    """Days that are alike, then demand that doubles within eight minutes: two minutes in, the
    floor leads on."""
    minutes = np.arange(5 * 1440)
    rng = np.random.default_rng(1)
    usual = 1_000 + 300 * np.sin(2 * np.pi * minutes / 1440) + rng.normal(0, 2, len(minutes))
    lifted = np.repeat(usual, 4)
    surge = np.exp(np.log(2) / 32 * np.arange(1, 9))
    lifted = np.concatenate([lifted, lifted[-1] * surge])
    windows = [Window("order", 13, 14), Window("hold", 1, 14)]
    forecaster = Combined(Calendar())
    past = TrafficHistory("surge", MONDAY, 15, lifted[:-8])
    fitted = forecaster.fit(past, past.end, windows)
    now = TrafficHistory("surge", MONDAY, 15, lifted)
    order = forecaster.predict(fitted, now, now.end).window("order")
    assert order is not None
    assert order.floor_reason == "a rise that was not announced"
    assert order.floor_qps == pytest.approx(lifted[-1] * 2 ** (14 / 32), rel=0.03)
    assert order.floor_qps > order.median_qps
    calm = forecaster.predict(fitted, past, past.end).window("order")
    assert calm is not None
    assert calm.floor_reason != order.floor_reason
