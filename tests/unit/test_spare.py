"""What is kept beyond what a model says: for bursts, for a jump, and by the hour."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import numpy as np
import pytest

from forecaster.calendar import Calendar
from forecaster.demand import Demand, demand_of
from forecaster.forecast import HOURLY_SECONDS, Calibration, Window
from forecaster.history import Floats, TrafficHistory
from forecaster.registry import combined
from forecaster.spare import daily_peaks, hourly_jumps, kept
from tests.traffic import jobs_by_the_hour, office_hours

ORDER, HOLD = Window("order", 3, 5), Window("hold", 0, 4)


def by_hand(rates: Floats, origin: int, window: Window, step: int) -> float:
    """The highest jump of the 72 hours whose windows have ended, a step wider on either side."""
    hour, jumps, back = 3600 // step, [0.0], 0
    side = max(1, 15 // step)
    while len(jumps) <= HOURLY_SECONDS // 3600 and origin - (back + 1) * hour >= 1:
        back += 1
        past = origin - back * hour
        first, last = past + max(0, window.first - side), past + window.last + side
        if last <= origin:
            jumps.append(np.nanmax(rates[first:last]) - rates[past - 1])
    return float(np.nanmax(jumps))


@pytest.mark.parametrize("step", [15, 60, 600, 1800])
@pytest.mark.parametrize("window", [ORDER, HOLD, Window("order", 250, 260)])
def test_the_highest_jump_at_this_time_of_the_past_hours(step: int, window: Window) -> None:
    rates = np.random.default_rng(step).uniform(1_000, 9_000, 100 * 3600 // step)
    rates[[50, 700 // step]] = np.nan
    origins = np.unique(np.linspace(1, len(rates), 40, dtype=np.int64))
    found = hourly_jumps(np.log(rates + 7.0), origins, step, window)
    expected = [by_hand(rates, int(origin), window, step) for origin in origins]
    assert found == pytest.approx(expected, abs=1e-6)
    alone = [hourly_jumps(np.log(rates + 7.0), one, step, window)[0] for one in origins[:, None]]
    assert found.tolist() == alone


def test_it_knows_nothing_of_what_comes() -> None:
    rates = jobs_by_the_hour(5).values
    later = rates.copy()
    later[5000:] = 1e6
    origins = np.arange(4000, 5001)
    told = (hourly_jumps(np.log(each), origins, 60, HOLD).tolist() for each in (rates, later))
    assert next(told) == next(told)


def test_steps_longer_than_an_hour_have_no_time_of_the_hour() -> None:
    assert hourly_jumps(np.zeros(99), np.array([50]), 7200, ORDER).tolist() == [0.0]


def test_a_jump_does_not_lead_beyond_the_highest_rate_of_three_days() -> None:
    spare = Calibration(1e-3, 2.0, hourly=0.5).spare
    assert float(kept(spare, 100.0, 400.0, 300.0)) == 250.0
    assert float(kept(spare, 300.0, 400.0, 300.0)) == 400.0


@pytest.mark.parametrize(("minute", "times"), [(28, 5.0), (31, 5.0), (40, 1.0), (50, 1.0)])
def test_a_fleet_is_there_when_a_job_may_start_and_at_no_other_time(
    minute: int, times: float
) -> None:
    """Calm for half an hour; jobs start at two past the half hour, a cold start is 3 minutes. A
    scrape that was missed just now changes nothing of it."""
    history = jobs_by_the_hour(8)
    fitted = combined(Calendar()).fit(history, history.end, (ORDER, HOLD))
    hours = history.values.reshape(-1, 60)
    calm = int(np.flatnonzero(hours[:, :30].max(axis=1) < 40_000)[-1])
    known = history.steps(0, calm * 60 + minute)
    now = known.values[-1]
    missed = replace(known, values=np.append(known.values[:-1], np.nan))
    for chosen, expected in (
        (Calibration(1e-3, 2.0, hourly=1.0), times),
        (Calibration(1e-3, 2.0), 1.0),
    ):
        calibrated = replace(fitted, calibration=chosen)
        for seen, name in product((known, missed), ("order", "hold")):
            window = combined(Calendar()).predict(calibrated, seen, seen.end).window(name)
            assert window is not None
            spared = window.floor_upper(2.0) / now
            if expected > 1.0:
                assert spared == pytest.approx(expected, rel=0.1)
                assert window.floor_reason == "a jump at this time of the hour"
                assert window.spare_qps == window.floor_qps
            else:
                assert spared < 1.2
            assert (window.spare_qps > 0) is bool(chosen.hourly)


DAY, HALF_AN_HOUR = 1440, 30
IN_BERLIN = Calendar("Europe/Berlin", country="DE")


def at_this_clock(demand: Demand, origin: int, days: int) -> int | None:
    """The origin whose newest known minute had the same time on the wall clock so many days ago."""
    local = demand.local[: origin - 1].tolist()
    wanted = int(demand.local[origin - 1]) - days * 86_400
    return local.index(wanted) + 1 if wanted in local else None


def daily_by_hand(demand: Demand, origin: int, window: Window, reach: int) -> float:
    """The highest minute around the window on days of one type; of any where none is known."""
    rates: dict[bool, list[float]] = {True: [0.0], False: [0.0]}
    for days in range(1, min(14, (reach - HALF_AN_HOUR) // DAY) + 1):
        then = at_this_clock(demand, origin, days)
        if then is not None:
            first = max(0, then + window.first - HALF_AN_HOUR)
            logs = demand.logs[first : min(then + window.last + HALF_AN_HOUR, origin)]
            same = bool(demand.day_type[then - 1] == demand.day_type[origin - 1])
            rates[same] += [float(np.nanmax(np.exp(logs))) - demand.offset]
    return max(rates[True]) or max(rates[False])


@pytest.mark.parametrize("window", [ORDER, HOLD, Window("order", 1430, 1435)])
@pytest.mark.parametrize("reach_days", [3, 28])
def test_the_highest_around_this_time_of_past_days(window: Window, reach_days: int) -> None:
    """Over the end of summer time and a holiday, with gaps; only so far back as one may look."""
    rates = np.random.default_rng(5).uniform(1_000, 9_000, 20 * DAY)
    rates[[700, 4 * DAY + 60]] = np.nan
    start = datetime(2026, 10, 16, tzinfo=UTC)
    demand = demand_of(TrafficHistory("noise", start, 60, rates), IN_BERLIN)
    assert -3540 in np.diff(demand.local)  # an hour comes twice
    origins = np.unique(np.linspace(1, len(rates), 60, dtype=np.int64))
    found = daily_peaks(demand, origins, window, HALF_AN_HOUR * 60, reach_days * DAY)
    expected = [daily_by_hand(demand, int(each), window, reach_days * DAY) for each in origins]
    assert found == pytest.approx(expected, rel=1e-9)
    assert found[0] == 0.0


@pytest.mark.parametrize(
    ("hour", "weekend", "times"), [(8.75, False, 20.0), (8.0, False, 1.0), (8.75, True, 1.0)]
)
def test_a_fleet_is_there_when_work_may_begin_and_on_no_weekend(
    hour: float, weekend: bool, times: float
) -> None:
    """Work begins at nine, some days up to twenty minutes early; a window of ten minutes more is
    looked at. Who begins to watch anew says what who has watched all along says."""
    history = office_hours(15 if weekend else 12, 20)
    chosen = Calibration(1e-3, 2.0, daily=0.9, daily_seconds=600)
    day = 14 if weekend else 11
    begun = history.steps(0, (day - 1) * DAY + 60)
    fitted = combined(Calendar()).fit(begun, begun.end, (ORDER, HOLD))
    calibrated = replace(fitted, calibration=chosen)
    known = history.steps(0, (day - 1) * DAY + int(hour * 60))
    model = combined(Calendar())
    model.predict(calibrated, begun, begun.end)
    said = [each.predict(calibrated, known, known.end) for each in (model, combined(Calendar()))]
    assert said[0] == said[1]
    order, hold = said[0].windows[:2]
    assert order.spare_qps / known.values[-1] == pytest.approx(0.9 * times, rel=0.2)
    assert hold.spare_qps == 0.0
    if times > 1.0:
        assert order.floor_qps == order.spare_qps
        assert order.floor_reason == "the highest rate around this time of day"


def test_who_has_watched_as_history_grew_looks_as_far_back() -> None:
    """A day that the history was too short for when the model was fitted, busier than any since."""
    history = office_hours(11, 0)
    values = history.values.copy()
    values[:DAY] *= 2
    history = replace(history, values=values)
    begun, known = history.steps(0, 10 * DAY - 60), history.steps(0, 10 * DAY + 10 * 60)
    fitted = combined(Calendar()).fit(begun, begun.end, (ORDER, HOLD))
    calibrated = replace(fitted, calibration=Calibration(1e-3, 2.0, daily=1.0, daily_seconds=600))
    model = combined(Calendar())
    model.predict(calibrated, begun, begun.end)
    said = [each.predict(calibrated, known, known.end) for each in (model, combined(Calendar()))]
    assert said[0] == said[1]
    assert said[0].windows[0].spare_qps > 180_000
