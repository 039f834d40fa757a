"""What is kept beyond what a model says: for bursts, for a jump, and by the hour."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from forecaster.calendar import Calendar
from forecaster.forecast import HOURLY_SECONDS, Calibration, Window
from forecaster.history import Floats
from forecaster.registry import combined
from forecaster.spare import hourly_jumps, kept
from tests.traffic import jobs_by_the_hour

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
