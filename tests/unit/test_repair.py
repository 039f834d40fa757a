"""Repair of the history: what is no demand becomes a gap, and what is demand stays."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import process_time

import numpy as np
import pytest

from forecaster.calendar import Calendar, Event
from forecaster.history import Floats, TrafficHistory
from forecaster.repair import Stretch, bridged, repaired
from tests.traffic import MONDAY, real_trace, weeks

DAY = 1440
UTC_CALENDAR = Calendar()


def with_values(history: TrafficHistory, values: Floats) -> TrafficHistory:
    return TrafficHistory(history.series, history.start, history.step_seconds, values)


def changed(change: Callable[[Floats], None], days: int = 21) -> TrafficHistory:
    """Generated minutes of demand after a change of their values in place."""
    whole = weeks(3)
    values = whole.values[: days * DAY].copy()
    change(values)
    return with_values(whole, values)


def at(day: int, hour: float) -> int:
    """The minute of the history at which an hour of a day begins."""
    return day * DAY + round(hour * 60)


def outage(values: Floats, start: int, minutes: int, left: float = 0.005) -> None:
    """A collapse within two minutes, and a return within five."""
    values[start : start + minutes] *= left
    values[start - 1] *= 0.6
    values[start + minutes : start + minutes + 4] *= np.linspace(0.2, 0.8, 4)


def searched(history: TrafficHistory) -> list[tuple[str, int, int]]:
    """What was masked: the reason and the steps from first to last, exclusive."""
    step = history.step
    return [
        (found.reason, (found.start - history.start) // step, (found.end - history.start) // step)
        for found in repaired(history, UTC_CALENDAR).masked
    ]


@pytest.mark.parametrize("minutes", [1, 5, 80, 600])
@pytest.mark.parametrize("hour", [3, 13])
def test_an_outage_is_masked_with_its_edges(minutes: int, hour: float) -> None:
    start = at(9, hour)
    found = searched(changed(lambda values: outage(values, start, minutes)))
    ((reason, first, last),) = found
    assert reason == "outage"
    assert start - 2 <= first <= start - 1
    assert start + minutes + 3 <= last <= start + minutes + 5


def test_an_incident_with_short_recoveries_is_one_outage() -> None:
    def flapping(values: Floats) -> None:
        for begin in (0, 20, 38):
            values[at(9, 13) + begin : at(9, 13) + begin + 10] *= 0.01

    assert searched(changed(flapping)) == [("outage", at(9, 13), at(9, 13) + 48)]


def test_a_collapse_that_has_not_ended_is_kept() -> None:
    def collapsing(values: Floats) -> None:
        values[at(20, 13) :] *= 0.01

    assert searched(changed(collapsing)) == []


@pytest.mark.parametrize("days", [1, 21])
def test_zeros_amid_busy_traffic_are_masked_even_on_the_first_day(days: int) -> None:
    def losing(values: Floats) -> None:
        values[at(0, 9) : at(0, 9) + 3] = 0
        values[at(0, 15)] = 0

    found = searched(changed(losing, days))
    assert found == [("zero", at(0, 9), at(0, 9) + 3), ("zero", at(0, 15), at(0, 15) + 1)]


def test_zeros_of_a_quiet_service_are_demand() -> None:
    rng = np.random.default_rng(5)
    quiet = with_values(weeks(3), rng.poisson(weeks(3).values / 50_000).astype(np.float64) / 60)
    assert (quiet.values == 0).sum() > 1000
    assert searched(quiet) == []


@pytest.mark.parametrize("ratio", [4.0, 12.0])
def test_a_load_test_is_masked(ratio: float) -> None:
    def testing(values: Floats) -> None:
        values[at(9, 2) : at(9, 4)] = values[at(9, 2)] * ratio

    assert searched(changed(testing)) == [("load test", at(9, 2), at(9, 4))]


def test_one_impossible_reading_is_masked() -> None:
    def reading(values: Floats) -> None:
        values[at(9, 13)] = 1e300

    assert searched(changed(reading)) == [("spike", at(9, 13), at(9, 13) + 1)]


@pytest.mark.parametrize("bad", [-1.0, -1e-9, np.inf, -np.inf])
def test_what_no_rate_can_be_does_not_enter_a_history(bad: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        with_values(weeks(1), np.array([1.0, bad]))


def shift(values: Floats) -> None:
    values[at(10, 13) :] *= 4


def shift_down(values: Floats) -> None:
    values[at(10, 13) :] /= 6


def growth(values: Floats) -> None:
    values *= np.geomspace(1, 65, len(values))


def holiday(values: Floats) -> None:
    values[at(9, 0) : at(11, 0)] *= 0.35


def deep_nights(values: Floats) -> None:
    for day in range(21):
        values[at(day, 0) : at(day, 6)] *= 0.01


def nightly_job(values: Floats) -> None:
    for day in range(21):
        values[at(day, 2) : at(day, 2) + 12] *= 8


def sunday_maintenance(values: Floats) -> None:
    for day in (6, 13, 20):
        values[at(day, 3) : at(day, 4)] = 0


def machine_bursts(values: Floats) -> None:
    rng = np.random.default_rng(11)
    for start in rng.integers(0, len(values) - 20, 200):
        values[start : start + 8] *= 5


def flash_crowd(values: Floats) -> None:
    rise = np.concatenate([np.geomspace(1, 6, 8), np.geomspace(6, 1, 90)])
    values[at(9, 2) : at(9, 2) + len(rise)] *= rise


def weekly_job(values: Floats) -> None:
    """Never twice at quite the same time."""
    for day, late in ((6, 0), (13, 50), (20, 25)):
        values[at(day, 2) + late : at(day, 2) + late + 12] *= 8


def event_traffic(values: Floats) -> None:
    """Sets in and ends at once, and moves in between as no load test does."""
    values[at(9, 2) : at(9, 4)] *= 9 + 5 * np.sin(np.linspace(0, 12, 120))


def short_bursts(values: Floats) -> None:
    for day, hour in ((5, 2), (12, 5)):
        values[at(day, hour) : at(day, hour) + 2] *= 6


def outage_on_an_odd_day(values: Floats) -> None:
    values[at(9, 6) : at(9, 20)] *= 0.3
    values[at(9, 13) : at(9, 14)] *= 0.02


def busy_hour_of_a_busy_day(values: Floats) -> None:
    """Far above other days, but not above the hours around it."""
    values[at(9, 0) : at(10, 0)] *= 1.7
    values[at(9, 2) : at(9, 4)] *= 2.3


def collapse_after_a_gap(values: Floats) -> None:
    values[at(9, 13) : at(9, 14)] *= 0.01
    values[at(9, 12) : at(9, 13)] = np.nan


def one_closed_afternoon(values: Floats) -> None:
    fall = np.concatenate([np.geomspace(1, 0.1, 90), np.full(120, 0.1), np.geomspace(0.1, 1, 90)])
    values[at(9, 12) : at(9, 12) + len(fall)] *= fall


@pytest.mark.parametrize(
    "change",
    [
        shift,
        shift_down,
        growth,
        holiday,
        deep_nights,
        nightly_job,
        sunday_maintenance,
        machine_bursts,
        weekly_job,
        event_traffic,
        short_bursts,
        outage_on_an_odd_day,
        busy_hour_of_a_busy_day,
        collapse_after_a_gap,
        flash_crowd,
        one_closed_afternoon,
    ],
)
def test_demand_is_kept(change: Callable[[Floats], None]) -> None:
    assert [found for found in searched(changed(change)) if found[0] != "gap"] == []


def test_too_few_other_days_tell_nothing() -> None:
    def testing(values: Floats) -> None:
        values[at(2, 2) : at(2, 4)] = values[at(2, 2)] * 5

    assert searched(changed(testing, days=3)) == []
    assert searched(changed(testing, days=5)) == [("load test", at(2, 2), at(2, 4))]


@pytest.mark.parametrize(("requests", "expected"), [(4, []), (40, ["load test"])])
def test_few_requests_a_step_tell_nothing(requests: int, expected: list[str]) -> None:
    """The same shape; at few requests chance could draw it."""

    def testing(values: Floats) -> None:
        values[:] = requests / 60
        values[at(9, 2) : at(9, 3)] *= 8

    assert [reason for reason, _, _ in searched(changed(testing))] == expected


def test_gaps_hide_no_load_test() -> None:
    """What follows a gap is no jump: nothing is known of before."""

    def losing(values: Floats) -> None:
        for day in range(12, 20):
            values[at(day, 8) : at(day, 9)] = np.nan
        values[at(9, 2) : at(9, 4)] = values[at(9, 2)] * 5

    assert ("load test", at(9, 2), at(9, 4)) in searched(changed(losing))


@pytest.mark.parametrize(
    "name",
    ["wc98_1min", "isp_uk_5min", "appserver_hourly", "twitter_1pct_2021_1min", "nyc_taxi_30min"],
)
def test_nothing_of_a_measured_trace_is_masked(name: str) -> None:
    trace = real_trace(name)
    assert searched(trace) == []
    for days in range(0, min(200, int(trace.days) - 7), 7):
        start = trace.start + timedelta(days=days)
        assert searched(trace.between(start, start + timedelta(days=28))) == []


@pytest.mark.parametrize(("name", "step"), [("wc98_1min", 60), ("isp_uk_5min", 300)])
def test_an_outage_put_into_a_measured_trace_is_found(name: str, step: int) -> None:
    trace = real_trace(name)
    trace = trace.between(trace.start, trace.start + timedelta(days=28))
    start = (9 * 86_400 + 14 * 3600) // step
    values = trace.values.copy()
    values[start : start + 3600 // step] = 0
    ((reason, first, last),) = searched(with_values(trace, values))
    assert (reason, first, last) == ("outage", start, start + 3600 // step)


def test_gaps_and_events_are_told_with_their_reasons() -> None:
    def losing(values: Floats) -> None:
        values[100:130] = np.nan

    history = changed(losing)
    party = Event(
        "launch", MONDAY + timedelta(hours=2), MONDAY + timedelta(hours=3), ignore_history=True
    )
    done = repaired(history, Calendar(events=(party,)))
    assert done.masked == (
        Stretch("gap", MONDAY + timedelta(minutes=100), MONDAY + timedelta(minutes=120)),
        Stretch("event: launch", MONDAY + timedelta(hours=2), MONDAY + timedelta(hours=3)),
    )


def test_what_is_masked_is_what_is_missing_and_the_rest_is_untouched() -> None:
    def spoiling(values: Floats) -> None:
        outage(values, at(9, 13), 80)
        values[at(12, 5) : at(12, 7)] = np.nan
        values[at(15, 2) : at(15, 3)] *= 7
        values[at(2, 10)] = 0

    history = changed(spoiling)
    done = repaired(history, UTC_CALENDAR)
    masked = np.zeros(len(history), dtype=bool)
    for found in done.masked:
        first, last = ((t - history.start) // history.step for t in (found.start, found.end))
        masked[first:last] = True
    assert {found.reason for found in done.masked} == {"gap", "outage", "zero", "load test"}
    assert np.array_equal(np.isnan(done.history.values), masked)
    assert np.array_equal(done.history.values[~masked], history.values[~masked])
    again = repaired(done.history, UTC_CALENDAR)
    assert np.array_equal(again.history.values, done.history.values, equal_nan=True)


@pytest.mark.parametrize("values", [[], [np.nan] * 30, [0.0] * 30, [5.0] * 3])
def test_histories_that_say_nothing(values: list[float]) -> None:
    done = repaired(with_values(weeks(1), np.array(values)), UTC_CALENDAR)
    assert np.array_equal(done.history.values, values, equal_nan=True)


def test_the_clock_is_the_users_own() -> None:
    """A job at 05:00 of the wall clock, before and after the clocks change, comes twice."""
    start = datetime(2026, 3, 25, tzinfo=UTC)
    values = np.full(9 * DAY, 1000.0)
    for day, utc_hour in ((2, 4), (8, 3)):
        values[at(day, utc_hour) : at(day, utc_hour) + 20] = 9000.0
    history = TrafficHistory("x", start, 60, values)
    assert repaired(history, Calendar("Europe/Berlin")).masked == ()
    assert len(repaired(history, UTC_CALENDAR).masked) == 2


def test_four_weeks_of_15_s_steps_take_less_than_a_tenth_of_a_second() -> None:
    minutes = weeks(4).values
    fine = np.interp(np.arange(4 * len(minutes)), 4 * np.arange(len(minutes)), minutes)
    history = TrafficHistory("x", MONDAY, 15, fine)
    assert len(history) == 161_280
    best = min(_cpu_seconds(history) for _ in range(5))
    assert best < 0.1


def _cpu_seconds(history: TrafficHistory) -> float:
    begun = process_time()
    repaired(history, Calendar("Europe/Berlin", "DE"))
    return process_time() - begun


def test_a_bridge_takes_the_shape_of_the_season() -> None:
    history = changed(lambda values: values.__setitem__(slice(at(9, 8), at(9, 9)), np.nan))
    whole = weeks(3).values
    filled = bridged(history, DAY).values
    inside = slice(at(9, 8), at(9, 9))
    straight = np.linspace(whole[at(9, 8) - 1], whole[at(9, 9)], 62)[1:-1]
    error = np.abs(filled[inside] / whole[inside] - 1).mean()
    assert error < 0.03
    assert error < np.abs(straight / whole[inside] - 1).mean() / 2
    assert np.isnan(history.values[inside]).all()
    assert np.array_equal(np.delete(filled, np.r_[inside]), np.delete(whole, np.r_[inside]))


@pytest.mark.parametrize(
    ("gap", "reason"),
    [
        (slice(at(9, 8), at(9, 9) + 1), "longer than an hour"),
        (slice(0, 5), "no edge before"),
        (slice(21 * DAY - 5, 21 * DAY), "no edge after"),
    ],
)
def test_gaps_that_are_not_bridged(gap: slice, reason: str) -> None:
    history = changed(lambda values: values.__setitem__(gap, np.nan))
    assert np.isnan(bridged(history, DAY).values[gap]).all(), reason


def test_without_a_season_before_or_after_the_edges_are_joined() -> None:
    history = with_values(weeks(1), np.array([100.0, np.nan, np.nan, np.nan, 1600.0]))
    assert bridged(history, DAY).values == pytest.approx([100, 200, 400, 800, 1600], rel=0.01)
    nothing = with_values(weeks(1), np.array([0.0, np.nan, 0.0]))
    assert bridged(nothing, DAY).values.tolist() == [0, 0, 0]


def test_the_season_after_helps_where_there_is_none_before() -> None:
    values = np.array([10.0, np.nan, 10.0, 20.0, 40.0, 20.0])
    assert bridged(with_values(weeks(1), values), 3).values[1] == pytest.approx(20, rel=0.01)
